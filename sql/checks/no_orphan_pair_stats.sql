-- One row is: a unit with rows in pair_stats and no ok file
-- From: pair_stats, files
-- Holds: every row of pair_stats belongs to a unit with an ok file
SELECT
  model,
  component,
  layer,
  unit,
  count(*) AS n_rows
FROM pair_stats
ANTI JOIN (
  SELECT
    model,
    component,
    layer,
    unit
  FROM files
  WHERE status = 'ok'
) AS ok_files USING (model, component, layer, unit)
GROUP BY ALL;
