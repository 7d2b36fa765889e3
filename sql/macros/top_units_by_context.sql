-- One row is: a unit, best first
-- From: context_hits, context_records
CREATE MACRO top_units_by_context(
  pattern, how := 'phrase', k := 20, model := NULL, component := NULL, layer := NULL, "by" := 'max'
) AS TABLE
WITH scored AS (
  SELECT
    r.model,
    r.component,
    r.layer,
    r.unit,
    max(h.activation) AS max_activation,
    count(DISTINCT r.text_key) AS n_texts,
    CASE "by"
      WHEN 'max' THEN CAST(max(h.activation) AS DOUBLE)
      WHEN 'texts' THEN CAST(count(DISTINCT r.text_key) AS DOUBLE)
    END AS score
  FROM range(CASE WHEN "by" IN ('max', 'texts') THEN 1 ELSE error('by must be max or texts') END) AS checked
  CROSS JOIN context_hits(pattern, how := how, model := model, component := component, layer := layer) AS h
  INNER JOIN context_records AS r ON r.rowid = h.record
  GROUP BY
    r.model,
    r.component,
    r.layer,
    r.unit
)
SELECT
  row_number() OVER (ORDER BY s.score DESC, s.model, s.component, s.layer, s.unit) - 1 AS rank,
  CAST(s.model AS VARCHAR) AS model,
  CAST(s.component AS VARCHAR) AS component,
  CAST(s.layer AS INTEGER) AS layer,
  s.unit,
  concat_ws('/', s.model, s.component, s.layer, s.unit) AS unit_id,
  s.score,
  s.max_activation,
  s.n_texts
FROM scored AS s
ORDER BY rank
LIMIT k;

COMMENT ON MACRO TABLE top_units_by_context IS 'The k units that respond most inside a phrase, substring or regular expression (see context_matches), ranked from 0: by max the strongest activation inside a match; by texts the number of distinct texts with a match inside which they are active. Equal ones stand in the order of model, component, layer and unit.';
