-- One row is: a match in a record inside which the record's unit is active, strongest first
-- From: context_hits, context_records, context_texts, index_units
CREATE MACRO context_excerpts(
  pattern, how := 'phrase', k := 20, model := NULL, component := NULL, layer := NULL, around := 10
) AS TABLE
WITH hits AS MATERIALIZED (
  SELECT
    h.record,
    h.first_position,
    h.last_position,
    h.activation,
    h.position
  FROM context_hits(pattern, how := how, k := k, model := model, component := component, layer := layer) AS h
),
best AS (
  SELECT
    row_number() OVER (ORDER BY
      h.activation DESC, r.model, r.component, r.layer, r.unit, r.section, r.quantile, r.rank, h.first_position
    ) - 1 AS rank,
    h.record,
    r.text_key,
    r.model,
    r.component,
    r.layer,
    r.unit,
    r.section,
    r.quantile,
    r.rank AS record_rank,
    h.first_position,
    h.last_position,
    h.activation,
    h.position
  FROM hits AS h
  INNER JOIN context_records AS r ON r.rowid = h.record
  WHERE h.activation >= (
    SELECT min(strongest.activation)
    FROM (SELECT hits.activation FROM hits ORDER BY hits.activation DESC LIMIT k) AS strongest
  )
  ORDER BY rank
  LIMIT k
),
placed AS (
  SELECT
    b.rank,
    b.model,
    b.component,
    b.layer,
    b.unit,
    b.activation,
    b.section,
    b.quantile,
    b.record_rank,
    b.first_position,
    b.last_position,
    b.position,
    t.text,
    t.token_starts || [length(t.text)] AS bounds,
    range(
      greatest(b.first_position - greatest(around, 0), 0),
      least(b.last_position + greatest(around, 0) + 1, len(t.token_starts))
    ) AS positions,
    r.active_positions,
    r.active_values
  FROM best AS b
  INNER JOIN context_texts AS t USING (text_key)
  INNER JOIN context_records AS r ON r.rowid = b.record
)
SELECT
  p.rank,
  CAST(p.model AS VARCHAR) AS model,
  CAST(p.component AS VARCHAR) AS component,
  CAST(p.layer AS INTEGER) AS layer,
  p.unit,
  concat_ws('/', p.model, p.component, p.layer, p.unit) AS unit_id,
  p.activation,
  u.max_activation,
  CAST(p.section AS VARCHAR) AS section,
  p.quantile,
  p.record_rank,
  CAST(p.first_position AS INTEGER) AS first_position,
  CAST(p.last_position AS INTEGER) AS last_position,
  CAST(p.position AS INTEGER) AS position,
  len(p.bounds) - 1 AS n_tokens,
  CAST(p.positions[1] AS INTEGER) AS excerpt_position,
  list_transform(p.positions, lambda i: p.text[p.bounds[i + 1] + 1:p.bounds[i + 2]]) AS tokens,
  list_transform(
    p.positions, lambda i: coalesce(p.active_values[list_position(p.active_positions, CAST(i AS USMALLINT))], 0)
  ) AS activations
FROM placed AS p
LEFT JOIN index_units AS u
  ON u.model = p.model AND u.component = p.component AND u.layer = p.layer AND u.unit = p.unit
ORDER BY p.rank;

COMMENT ON MACRO TABLE context_excerpts IS 'The hits of contexts with the text as tokens and the unit''s activations on them, to be shaded: the tokens of the match and up to around on each side of it, from excerpt_position on. Activations of 0 or less read as 0. max_activation is the unit''s, over its top records.';
