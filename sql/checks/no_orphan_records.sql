-- One row is: a unit with rows in records and no ok file
-- From: records, files
-- Holds: every row of records belongs to a unit with an ok file
SELECT
  model,
  component,
  layer,
  unit,
  count(*) AS n_rows
FROM records
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
