-- One row is: a token of the lake that resembles the one asked for, nearest first
-- From: vocabulary
CREATE MACRO near_tokens(token, k := 5) AS TABLE
SELECT
  v.token,
  v.n_units
FROM vocabulary AS v
WHERE v.token <> token
  AND starts_with(lower(trim(v.token)), lower(trim(token)))
ORDER BY
  length(trim(v.token)),
  v.n_units DESC,
  v.token
LIMIT k;

COMMENT ON MACRO TABLE near_tokens IS 'Tokens that are the one asked for but for its case or the spaces around it, then those that begin like it, shortest first, with the number of units that are active on each.';
