-- One row is: a place in a text that matches, from its first to its last token
-- From: context_texts
CREATE MACRO context_matches(pattern, how := 'phrase') AS TABLE
WITH candidates AS (
  SELECT
    t.text_key,
    t.text,
    t.token_starts
  FROM context_texts AS t
  WHERE CASE
    WHEN pattern = '' THEN error('pattern must not be empty')
    WHEN how IN ('phrase', 'substring') THEN contains(t.text, pattern)
    WHEN how = 'regex' THEN regexp_matches(t.text, CASE WHEN how = 'regex' THEN pattern ELSE '' END)
    ELSE error('how must be phrase, substring or regex')
  END
),
phrase_ends AS (
  SELECT
    c.text_key,
    c.text,
    c.token_starts,
    unnest(list_filter(
      list_append(c.token_starts[2:], length(c.text)),
      lambda char: char >= length(pattern) AND substring(c.text, char - length(pattern) + 1, length(pattern)) = pattern
    )) AS last_char,
    last_char - length(pattern) AS first_char
  FROM candidates AS c
  WHERE how = 'phrase'
),
phrases AS (
  SELECT
    e.text_key,
    e.first_char,
    e.last_char
  FROM phrase_ends AS e
  WHERE list_contains(e.token_starts, e.first_char)
    OR (substring(e.text, e.first_char, 1) = ' ' AND list_contains(e.token_starts, e.first_char - 1))
),
pieces AS (
  SELECT
    c.text_key,
    CASE how WHEN 'regex' THEN pattern ELSE regexp_escape(pattern) END AS expression,
    unnest(regexp_extract_all(c.text, '(?s:(.*?))(?:' || expression || ')')) AS piece,
    unnest(regexp_extract_all(c.text, '(?s:(.*?))(?:' || expression || ')', 1)) AS gap,
    generate_subscripts(regexp_extract_all(c.text, '(?s:(.*?))(?:' || expression || ')'), 1) AS number
  FROM candidates AS c
  WHERE how <> 'phrase'
),
finds AS (
  SELECT
    p.text_key,
    length(p.piece) - length(p.gap) AS n_chars,
    sum(greatest(length(p.piece), 1)) OVER (PARTITION BY p.text_key ORDER BY p.number) AS last_char
  FROM pieces AS p
),
spans AS (
  SELECT
    p.text_key,
    p.first_char,
    p.last_char
  FROM phrases AS p
  UNION ALL
  SELECT
    f.text_key,
    f.last_char - f.n_chars AS first_char,
    f.last_char
  FROM finds AS f
  WHERE f.n_chars > 0
)
SELECT DISTINCT
  s.text_key,
  len(list_filter(t.token_starts[2:], lambda char: char <= s.first_char)) AS first_position,
  len(list_filter(t.token_starts, lambda char: char < s.last_char)) - 1 AS last_position
FROM spans AS s
INNER JOIN context_texts AS t USING (text_key);

COMMENT ON MACRO TABLE context_matches IS 'Where the texts of the lake''s records hold a pattern: as whole tokens (phrase; the space that the first token starts with may be left out), anywhere, inside tokens too (substring), or as a regular expression of RE2 (regex). Matches of the latter two do not overlap, and are found from the left; one without a character is none.';
