-- One row is: a unit, best first
-- From: pair_scores
CREATE MACRO top_units_by_query(
  token, k := 20, model := NULL, component := NULL, layer := NULL, "by" := 'max'
) AS TABLE
WITH scored AS (
  SELECT
    s.model,
    s.component,
    s.layer,
    s.unit,
    s.unit_id,
    max(s.score) AS score,
    min_by(s.key_token, (-s.score, s.key_token)) AS key_token,
    count(*) AS n_pairs,
    max(s.max_activation) AS max_activation,
    min(s.min_activation) AS min_activation,
    sum(CAST(s.sum_positive AS DOUBLE)) AS sum_positive
  FROM pair_scores(
    query_token := token, model := model, component := component, layer := layer, "by" := "by"
  ) AS s
  WHERE s.score IS NOT NULL
  GROUP BY ALL
)
SELECT
  row_number() OVER (ORDER BY s.score DESC, s.model, s.component, s.layer, s.unit) - 1 AS rank,
  s.model,
  s.component,
  s.layer,
  s.unit,
  s.unit_id,
  s.score,
  s.key_token,
  s.n_pairs,
  s.max_activation,
  s.min_activation,
  s.sum_positive
FROM scored AS s
ORDER BY rank
LIMIT k;

COMMENT ON MACRO TABLE top_units_by_query IS 'The k units (per token pair) that respond most where a token is the query, ranked from 0 by the best of its pairs (see pair_scores): key_token is the other token of that. n_pairs and sum_positive are over the pairs of the token that are among the unit''s 1,000 strongest.';
