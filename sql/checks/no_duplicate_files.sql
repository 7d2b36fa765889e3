-- One row is: a unit with more than one row in files
-- From: files
-- Holds: a unit has one row in files at most
SELECT
  model,
  component,
  layer,
  unit,
  count(*) AS n_rows,
  list(status) AS statuses
FROM files
GROUP BY
  model,
  component,
  layer,
  unit
HAVING n_rows > 1;
