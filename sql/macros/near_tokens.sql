-- One row is: a token of the lake that resembles the one asked for, nearest first
-- From: token_stats
CREATE MACRO near_tokens(token, k := 5) AS TABLE
WITH likely AS (
  SELECT
    s.token,
    count(*) AS n_units
  FROM token_stats AS s
  WHERE s.token <> token
    AND starts_with(lower(trim(s.token)), lower(trim(token)))
  GROUP BY s.token
)
SELECT
  l.token,
  l.n_units
FROM likely AS l
ORDER BY
  length(trim(l.token)),
  l.n_units DESC,
  l.token
LIMIT k;

COMMENT ON MACRO TABLE near_tokens IS 'Tokens that are the one asked for but for its case or the spaces around it, then those that begin like it, shortest first, with the number of units that are active on each. Reads the tokens of every unit.';
