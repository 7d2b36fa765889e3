-- One row is: a unit whose explanations are not numbered from 0 without gaps
-- From: explanations
-- Holds: the explanations that a dataset has of a unit are numbered from 0, each number once
SELECT
  model,
  split_part(dataset, '/', 2) AS component,
  layer,
  unit,
  list(rank ORDER BY rank) AS ranks
FROM explanations
GROUP BY
  model,
  dataset,
  layer,
  unit
HAVING ranks IS DISTINCT FROM range(count(*));
