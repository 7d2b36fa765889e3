-- One row is: a place in a text that matches, from its first to its last token
-- From: context_texts
CREATE MACRO context_matches(pattern, how := 'phrase') AS TABLE
WITH candidates AS (
  SELECT
    t.text_key,
    t.text,
    t.token_starts,
    CASE how
      WHEN 'regex' THEN regexp_extract_all(t.text, '(?s:.*?)(?:' || pattern || ')')
      ELSE list_transform(string_split(t.text, pattern)[:-2], lambda gap: gap || pattern)
    END AS pieces,
    CASE how WHEN 'regex' THEN regexp_extract_all(t.text, '(?:' || pattern || ')') END AS found,
    how = 'phrase' AND len(list_filter(
      range(1, length(pattern)),
      lambda n: ends_with(pattern, pattern[:n]) AND contains(t.text, pattern || pattern[n + 1:])
    )) > 0 AS is_overlapping
  FROM context_texts AS t
  WHERE CASE
    WHEN pattern = '' THEN error('pattern must not be empty')
    WHEN how IN ('phrase', 'substring') THEN contains(t.text, pattern)
    WHEN how = 'regex' THEN regexp_matches(t.text, CASE WHEN how = 'regex' THEN pattern ELSE '' END)
    ELSE error('how must be phrase, substring or regex')
  END
),
pieces AS (
  SELECT
    c.text_key,
    unnest(c.pieces) AS piece,
    generate_subscripts(c.pieces, 1) AS number,
    unnest(c.found) AS found,
    unnest(CASE WHEN how = 'regex' AND list_contains(c.found, '')
      THEN regexp_extract_all(c.text, '(?s:(.*?))(?:' || pattern || ')', 1)
    END) AS gap
  FROM candidates AS c
  WHERE NOT c.is_overlapping
),
finds AS (
  SELECT
    p.text_key,
    CASE how WHEN 'regex' THEN coalesce(length(p.piece) - length(p.gap), length(p.found)) ELSE length(pattern) END
      AS n_chars,
    CAST(sum(greatest(length(p.piece), 1)) OVER (PARTITION BY p.text_key ORDER BY p.number) AS INTEGER) AS last_char
  FROM pieces AS p
),
spans AS (
  SELECT
    f.text_key,
    f.last_char,
    f.last_char - f.n_chars AS first_char
  FROM finds AS f
  WHERE f.n_chars > 0
  UNION ALL
  SELECT
    c.text_key,
    unnest(list_filter(
      list_append(c.token_starts[2:], length(c.text)),
      lambda char: char >= length(pattern) AND substring(c.text, char - length(pattern) + 1, length(pattern)) = pattern
    )) AS last_char,
    last_char - length(pattern) AS first_char
  FROM candidates AS c
  WHERE c.is_overlapping
),
placed AS (
  SELECT
    s.text_key,
    len(list_filter(t.token_starts, lambda char: char <= s.first_char)) - 1 AS first_position,
    len(list_filter(t.token_starts, lambda char: char < s.last_char)) - 1 AS last_position,
    t.max_activations
  FROM spans AS s
  INNER JOIN context_texts AS t USING (text_key)
  WHERE how <> 'phrase' OR (
    (s.last_char = length(t.text) OR list_contains(t.token_starts, s.last_char))
    AND (
      list_contains(t.token_starts, s.first_char)
      OR (substring(t.text, s.first_char, 1) = ' ' AND list_contains(t.token_starts, s.first_char - 1))
    )
  )
)
SELECT DISTINCT
  p.text_key,
  p.first_position,
  p.last_position,
  list_max(p.max_activations[p.first_position + 1:p.last_position + 1]) AS max_activation
FROM placed AS p;

COMMENT ON MACRO TABLE context_matches IS 'Where the texts of the lake''s records hold a pattern: as whole tokens (phrase; the space that the first token starts with may be left out), anywhere, inside tokens too (substring), or as a regular expression of RE2 (regex). Matches of the latter two do not overlap, and are found from the left; one without a character is none. max_activation is the strongest activation that any unit has inside, in any record.';
