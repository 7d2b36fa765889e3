-- One row is: a unit whose positive activations are not all in token_stats
-- From: records, token_stats, datasets
-- Holds: token_stats.sum_positive sums to the positive activations in the unit's records, within float32
WITH wanted AS (
  SELECT
    model,
    component,
    layer,
    unit,
    sum(list_sum(list_transform(activations, lambda a: greatest(CAST(a AS DOUBLE), 0)))) AS in_records
  FROM records
  JOIN datasets USING (model, component)
  WHERE datasets.per = 'token'
  GROUP BY ALL
),
found AS (
  SELECT
    model,
    component,
    layer,
    unit,
    sum(CAST(sum_positive AS DOUBLE)) AS in_token_stats
  FROM token_stats
  GROUP BY ALL
)
SELECT
  model,
  component,
  layer,
  unit,
  coalesce(in_records, 0) AS in_records,
  coalesce(in_token_stats, 0) AS in_token_stats
FROM wanted
FULL JOIN found USING (model, component, layer, unit)
WHERE abs(coalesce(in_records, 0) - coalesce(in_token_stats, 0)) > 1e-6 * coalesce(in_records, 0);
