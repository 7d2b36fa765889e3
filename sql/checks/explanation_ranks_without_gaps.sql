-- One row is: a unit whose explanations are not numbered from 0 without gaps
-- From: explanations
-- Holds: a dataset's explanations of a unit are numbered from 0, each number once; only those of answers have gaps
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
HAVING CASE
  WHEN starts_with(dataset, 'answers/') THEN count(*) <> count(DISTINCT rank) OR min(rank) < 0
  ELSE ranks IS DISTINCT FROM range(count(*))
END;
