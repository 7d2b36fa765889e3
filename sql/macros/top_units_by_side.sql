-- One row is: a unit, best first
-- From: pair_scores
CREATE MACRO top_units_by_side(
  token, side, k := 20, model := NULL, component := NULL, layer := NULL, "by" := 'max'
) AS TABLE
WITH scored AS (
  SELECT
    s.model,
    s.component,
    s.layer,
    s.unit,
    s.unit_id,
    max(s.score) AS score,
    min_by(
      CASE side WHEN 'query' THEN s.key_token ELSE s.query_token END,
      (-s.score, CASE side WHEN 'query' THEN s.key_token ELSE s.query_token END)
    ) AS other_token,
    count(*) AS n_pairs,
    max(s.max_activation) AS max_activation,
    min(s.min_activation) AS min_activation,
    sum(CAST(s.sum_positive AS DOUBLE)) AS sum_positive
  FROM pair_scores(
    query_token := CASE side WHEN 'query' THEN token END,
    key_token := CASE side WHEN 'query' THEN NULL WHEN 'key' THEN token ELSE error('side must be query or key') END,
    model := model,
    component := component,
    layer := layer,
    "by" := "by"
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
  s.other_token,
  s.n_pairs,
  s.max_activation,
  s.min_activation,
  s.sum_positive
FROM scored AS s
ORDER BY rank
LIMIT k;

COMMENT ON MACRO TABLE top_units_by_side IS 'The k units (per token pair) that respond most where a token is the query or the key (side), ranked from 0 by the best of its pairs (see pair_scores): other_token is the other token of that. top_units_by_query and top_units_by_key are made of it.';
