-- One row is: a unit with rows in related_tokens and no ok file
-- From: related_tokens, files
-- Holds: every row of related_tokens belongs to a unit with an ok file in its dataset
SELECT
  model,
  split_part(dataset, '/', 2) AS component,
  layer,
  unit,
  count(*) AS n_rows
FROM related_tokens
ANTI JOIN (
  SELECT
    concat_ws('/', model, component) AS dataset,
    layer,
    unit
  FROM files
  WHERE status = 'ok'
) AS ok_files USING (dataset, layer, unit)
GROUP BY ALL;
