-- One row is: a unit with its best pair, best first
-- From: pair_scores
CREATE MACRO top_units_by_pair(
  query_token := NULL, key_token := NULL, k := 20, model := NULL, component := NULL, layer := NULL, "by" := 'max'
) AS TABLE
WITH best AS (
  SELECT DISTINCT ON (s.model, s.component, s.layer, s.unit)
    s.model,
    s.component,
    s.layer,
    s.unit,
    s.unit_id,
    s.query_token,
    s.key_token,
    s.score,
    s.n,
    s.n_active,
    s.max_activation,
    s.min_activation,
    s.sum_activation,
    s.n_random,
    s.sum_random,
    s.sum_positive
  FROM pair_scores(query_token, key_token, model := model, component := component, layer := layer, "by" := "by") AS s
  WHERE s.score IS NOT NULL
  ORDER BY
    s.score DESC,
    s.model,
    s.component,
    s.layer,
    s.unit,
    s.query_token,
    s.key_token
  LIMIT k
)
SELECT
  row_number() OVER (ORDER BY b.score DESC, b.model, b.component, b.layer, b.unit) - 1 AS rank,
  b.model,
  b.component,
  b.layer,
  b.unit,
  b.unit_id,
  b.query_token,
  b.key_token,
  b.score,
  b.n,
  b.n_active,
  b.max_activation,
  b.min_activation,
  b.sum_activation,
  b.n_random,
  b.sum_random,
  b.sum_positive
FROM best AS b
ORDER BY rank;

COMMENT ON MACRO TABLE top_units_by_pair IS 'The k units that respond most to a pair of tokens, ranked from 0 by pair_scores. With a NULL token (any), each unit stands there once, with its best pair.';
