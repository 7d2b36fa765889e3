-- One row is: a match in a record inside which the record's unit is active, strongest first
-- From: context_hits, context_records, context_texts
CREATE MACRO contexts(
  pattern, how := 'phrase', k := 20, model := NULL, component := NULL, layer := NULL, around := 10
) AS TABLE
WITH hits AS MATERIALIZED (
  SELECT
    h.record,
    h.first_position,
    h.last_position,
    h.activation,
    h.position
  FROM context_hits(pattern, how := how, model := model, component := component, layer := layer) AS h
),
best AS (
  SELECT
    row_number() OVER (ORDER BY
      h.activation DESC, r.model, r.component, r.layer, r.unit, r.section, r.quantile, r.rank, h.first_position
    ) - 1 AS rank,
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
    b.section,
    b.quantile,
    b.record_rank,
    b.first_position,
    b.last_position,
    b.activation,
    b.position,
    t.text,
    t.token_starts || [length(t.text)] AS bounds
  FROM best AS b
  INNER JOIN context_texts AS t USING (text_key)
)
SELECT
  p.rank,
  CAST(p.model AS VARCHAR) AS model,
  CAST(p.component AS VARCHAR) AS component,
  CAST(p.layer AS INTEGER) AS layer,
  p.unit,
  concat_ws('/', p.model, p.component, p.layer, p.unit) AS unit_id,
  p.activation,
  CAST(p.section AS VARCHAR) AS section,
  p.quantile,
  p.record_rank,
  CAST(p.first_position AS INTEGER) AS first_position,
  CAST(p.last_position AS INTEGER) AS last_position,
  CAST(p.position AS INTEGER) AS position,
  p.text[p.bounds[p.position + 1] + 1:p.bounds[p.position + 2]] AS token,
  p.text[p.bounds[greatest(p.first_position - around, 0) + 1] + 1:p.bounds[p.first_position + 1]] AS before,
  p.text[p.bounds[p.first_position + 1] + 1:p.bounds[p.last_position + 2]] AS matched,
  p.text[p.bounds[p.last_position + 2] + 1:p.bounds[least(p.last_position + 2 + around, len(p.bounds))]] AS after
FROM placed AS p
ORDER BY p.rank;

COMMENT ON MACRO TABLE contexts IS 'The k strongest activations inside a phrase, substring or regular expression (see context_matches), over the records of datasets per token: each record and match once, ranked from 0 by the strongest activation between first_position and last_position, with the tokens around. A unit that is not active (> 0) inside is not listed. Equal ones stand in the order of model, component, layer, unit, section and rank.';
