-- One row is: a unit, best first
-- From: index_rows, vocabulary
CREATE MACRO top_units_but_not(
  token, other, k := 20, model := NULL, component := NULL, layer := NULL, weaker := 0.1
) AS TABLE
WITH strongest AS (
  SELECT
    r.model,
    r.component,
    r.layer,
    r.unit,
    max(r.max_activation) FILTER (WHERE v.token = token) AS max_activation,
    coalesce(max(r.max_activation) FILTER (WHERE v.token = other), 0) AS max_on_other
  FROM index_rows AS r
  INNER JOIN vocabulary AS v USING (token_number)
  WHERE v.token IN (token, other)
    AND (model IS NULL OR r.model = model)
    AND (component IS NULL OR r.component = component)
    AND (layer IS NULL OR r.layer = layer)
  GROUP BY ALL
)
SELECT
  row_number() OVER (ORDER BY s.max_activation DESC, s.model, s.component, s.layer, s.unit) - 1 AS rank,
  CAST(s.model AS VARCHAR) AS model,
  CAST(s.component AS VARCHAR) AS component,
  CAST(s.layer AS INTEGER) AS layer,
  s.unit,
  concat_ws('/', s.model, s.component, s.layer, s.unit) AS unit_id,
  s.max_activation,
  s.max_on_other
FROM strongest AS s
WHERE s.max_on_other <= weaker * s.max_activation
ORDER BY rank
LIMIT k;

COMMENT ON MACRO TABLE top_units_but_not IS 'The k units that respond most to a token, ranked from 0 by the strongest activation on it, of those whose strongest activation on the other token is at most the part weaker of that (0 for never active). A unit is listed too where its records do not have the other token at all.';
