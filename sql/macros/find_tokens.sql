-- One row is: a token of the lake that matches, most frequent first
-- From: vocabulary
CREATE MACRO find_tokens(pattern, how := 'exact') AS TABLE
SELECT
  v.token,
  v.n_occurrences,
  v.n_units,
  v.gpt2_id
FROM vocabulary AS v
WHERE CASE how
  WHEN 'exact' THEN v.token = pattern
  WHEN 'prefix' THEN starts_with(v.token, pattern)
  WHEN 'regex' THEN regexp_matches(v.token, CASE WHEN how = 'regex' THEN pattern ELSE '' END)
  WHEN 'loose' THEN lower(ltrim(v.token, ' ')) = lower(ltrim(pattern, ' '))
  ELSE error('how must be exact, prefix, regex or loose')
END
ORDER BY
  v.n_occurrences DESC,
  v.token;

COMMENT ON MACRO TABLE find_tokens IS 'Tokens that are the pattern (exact), begin with it (prefix), hold a match of it as a regular expression (regex), or are it but for case and spaces before it (loose).';
