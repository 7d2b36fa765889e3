-- One row is: a unit with rows in explanations and no ok file
-- From: explanations, files
-- Holds: every row of explanations that is of no answer belongs to a unit with an ok file in its dataset
SELECT
  model,
  split_part(dataset, '/', 2) AS component,
  layer,
  unit,
  count(*) AS n_rows
FROM explanations
ANTI JOIN (
  SELECT
    concat_ws('/', model, component) AS dataset,
    layer,
    unit
  FROM files
  WHERE status = 'ok'
) AS ok_files USING (dataset, layer, unit)
WHERE NOT starts_with(dataset, 'answers/')
GROUP BY ALL;
