-- One row is: a unit whose active positions are not all in token_stats
-- From: records, token_stats, datasets
-- Holds: token_stats.n_active sums to the positive activations' number in the unit's records
WITH wanted AS (
  SELECT
    model,
    component,
    layer,
    unit,
    sum(len(list_filter(activations, lambda a: a > 0))) AS in_records
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
    sum(n_active) AS in_token_stats
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
WHERE coalesce(in_records, 0) <> coalesce(in_token_stats, 0);
