-- One row is: a unit that lacks rows of pair_stats, or has some too many
-- From: pair_activations, pair_stats
-- Holds: pair_stats has every pair with an activation other than zero, or the 1,000 strongest of a unit
WITH wanted AS (
  SELECT
    model,
    component,
    layer,
    unit,
    least(count(DISTINCT (query_token, key_token)), 1000) AS in_records
  FROM pair_activations
  WHERE activation <> 0
  GROUP BY ALL
),
found AS (
  SELECT
    model,
    component,
    layer,
    unit,
    count(*) AS in_pair_stats
  FROM pair_stats
  GROUP BY ALL
)
SELECT
  model,
  component,
  layer,
  unit,
  coalesce(in_records, 0) AS in_records,
  coalesce(in_pair_stats, 0) AS in_pair_stats
FROM wanted
FULL JOIN found USING (model, component, layer, unit)
WHERE coalesce(in_records, 0) <> coalesce(in_pair_stats, 0);
