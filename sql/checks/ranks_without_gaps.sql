-- One row is: a list of records whose ranks are not 0, 1, 2 …
-- From: records
-- Holds: the ranks of each section and bucket run from 0 without a gap or a repeat
SELECT
  model,
  component,
  layer,
  unit,
  section,
  quantile,
  count(*) AS n_records,
  count(DISTINCT rank) AS n_ranks,
  min(rank) AS first_rank,
  max(rank) AS last_rank
FROM records
GROUP BY ALL
HAVING n_ranks <> n_records
  OR first_rank <> 0
  OR last_rank <> n_records - 1;
