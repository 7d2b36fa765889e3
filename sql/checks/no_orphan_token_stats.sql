-- One row is: a unit with rows in token_stats and no ok file
-- From: token_stats, files
-- Holds: every row of token_stats belongs to a unit with an ok file
SELECT
  model,
  component,
  layer,
  unit,
  count(*) AS n_rows
FROM token_stats
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
