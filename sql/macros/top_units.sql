-- One row is: a unit, best first
-- From: token_scores
CREATE MACRO top_units(token, k := 20, model := NULL, component := NULL, layer := NULL, "by" := 'max') AS TABLE
WITH best AS (
  SELECT
    s.model,
    s.component,
    s.layer,
    s.unit,
    s.unit_id,
    s.score,
    s.n,
    s.n_active,
    s.max_activation,
    s.sum_activation,
    s.n_random,
    s.sum_random,
    s.sum_positive
  FROM token_scores(token, model := model, component := component, layer := layer, "by" := "by") AS s
  WHERE s.score IS NOT NULL
  ORDER BY
    s.score DESC,
    s.model,
    s.component,
    s.layer,
    s.unit
  LIMIT k
)
SELECT
  row_number() OVER (ORDER BY b.score DESC, b.model, b.component, b.layer, b.unit) - 1 AS rank,
  b.model,
  b.component,
  b.layer,
  b.unit,
  b.unit_id,
  b.score,
  b.n,
  b.n_active,
  b.max_activation,
  b.sum_activation,
  b.n_random,
  b.sum_random,
  b.sum_positive
FROM best AS b
ORDER BY rank;

COMMENT ON MACRO TABLE top_units IS 'The k units that respond most to a token, ranked from 0 by token_scores; equal scores stand in the order of model, component, layer and unit.';
