-- One row is: a token of the lake that resembles the one asked for, nearest first
-- From: vocabulary
CREATE MACRO near_tokens(token, k := 5) AS TABLE
SELECT
  v.token,
  v.n_units
FROM (
  SELECT
    t.token,
    t.n_units,
    length(trim(t.token)) AS n_chars,
    CASE
      WHEN starts_with(lower(trim(t.token)), lower(trim(token))) THEN 0
      WHEN abs(length(trim(t.token)) - length(trim(token))) <= 2 AND length(trim(token)) <= 40
        THEN damerau_levenshtein(lower(trim(t.token)), lower(trim(token)))
    END AS n_edits
  FROM vocabulary AS t
  WHERE t.token <> token
) AS v
WHERE v.n_edits <= least(length(trim(token)) // 3, 2)
ORDER BY
  v.n_edits,
  v.n_chars,
  v.n_units DESC,
  v.token
LIMIT k;

COMMENT ON MACRO TABLE near_tokens IS 'Tokens that are the one asked for but for its case or the spaces around it, then those that begin like it, shortest first, then those that are a letter or two from it (one for three letters, two from six on), with the number of units that are active on each.';
