-- One row is: a unit with another number of ok files or of rows in units than one
-- From: files, units, datasets
-- Holds: every ok file of activations has one row in units, and every row of units an ok file
WITH ok_files AS (
  SELECT
    model,
    component,
    layer,
    unit,
    count(*) AS n_files
  FROM files
  ANTI JOIN (
    SELECT
      model,
      component
    FROM datasets
    WHERE holds <> 'activations'
  ) AS siblings USING (model, component)
  WHERE status = 'ok'
  GROUP BY ALL
),
unit_rows AS (
  SELECT
    model,
    component,
    layer,
    unit,
    count(*) AS n_units
  FROM units
  GROUP BY ALL
)
SELECT
  model,
  component,
  layer,
  unit,
  coalesce(n_files, 0) AS n_files,
  coalesce(n_units, 0) AS n_units
FROM ok_files
FULL JOIN unit_rows USING (model, component, layer, unit)
WHERE n_files IS DISTINCT FROM 1
  OR n_units IS DISTINCT FROM 1;
