-- One row is: a unit, best first
-- From: top_units_by_side
CREATE MACRO top_units_by_query(
  token, k := 20, model := NULL, component := NULL, layer := NULL, "by" := 'max'
) AS TABLE
SELECT
  s.rank,
  s.model,
  s.component,
  s.layer,
  s.unit,
  s.unit_id,
  s.score,
  s.other_token AS key_token,
  s.n_pairs,
  s.max_activation,
  s.min_activation,
  s.sum_positive
FROM top_units_by_side(
  token, 'query', k := k, model := model, component := component, layer := layer, "by" := "by"
) AS s
ORDER BY s.rank;

COMMENT ON MACRO TABLE top_units_by_query IS 'The k units (per token pair) that respond most where a token is the query, ranked from 0 by the best of its pairs (see pair_scores): key_token is the other token of that. n_pairs and sum_positive are over the pairs of the token that are among the unit''s 1,000 strongest.';
