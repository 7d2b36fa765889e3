-- One row is: a unit whose counts differ from its records
-- From: units, records
-- Holds: n_top, n_random and n_quantile count the unit's records
WITH counts AS (
  SELECT
    model,
    component,
    layer,
    unit,
    count(*) FILTER (WHERE section = 'top') AS found_top,
    count(*) FILTER (WHERE section = 'random') AS found_random,
    count(*) FILTER (WHERE section = 'quantile') AS found_quantile
  FROM records
  GROUP BY ALL
)
SELECT
  model,
  component,
  layer,
  unit,
  n_top,
  coalesce(found_top, 0) AS found_top,
  n_random,
  coalesce(found_random, 0) AS found_random,
  n_quantile,
  coalesce(found_quantile, 0) AS found_quantile
FROM units
LEFT JOIN counts USING (model, component, layer, unit)
WHERE (n_top, n_random, n_quantile) IS DISTINCT FROM (
  coalesce(found_top, 0), coalesce(found_random, 0), coalesce(found_quantile, 0)
);
