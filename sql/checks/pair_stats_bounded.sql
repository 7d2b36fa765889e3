-- One row is: a unit with more than 1,000 rows in pair_stats
-- From: pair_stats
-- Holds: pair_stats keeps 1,000 pairs of a unit at most, each once
SELECT
  model,
  component,
  layer,
  unit,
  count(*) AS n_pairs,
  count(DISTINCT (query_token, key_token)) AS n_different
FROM pair_stats
GROUP BY ALL
HAVING n_pairs > 1000
  OR n_different < n_pairs;
