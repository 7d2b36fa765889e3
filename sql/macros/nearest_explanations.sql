-- One row is: an explanation, nearest in meaning first
-- From: explanation_texts, explanation_vectors
CREATE MACRO nearest_explanations(
  embedding, k := 20, model := NULL, component := NULL, layer := NULL, min_score := NULL, origin := NULL,
  explainer := NULL, score_kind := NULL
) AS TABLE
WITH near AS (
  SELECT
    v.explanation_hash,
    array_inner_product(v.embedding, CAST(embedding AS FLOAT[384])) AS relevance
  FROM explanation_vectors AS v
),
best AS (
  SELECT
    t.model,
    t.component,
    t.layer,
    t.unit,
    t.explanation,
    t.score,
    t.score_kind,
    t.explainer,
    t.origin,
    t.created_at,
    t.dataset,
    t.rank,
    n.relevance
  FROM near AS n
  INNER JOIN explanation_texts AS t USING (explanation_hash)
  WHERE (model IS NULL OR t.model = model)
    AND (component IS NULL OR t.component = component)
    AND (layer IS NULL OR t.layer = layer)
    AND (min_score IS NULL OR t.score >= min_score)
    AND (origin IS NULL OR t.origin = origin)
    AND (explainer IS NULL OR t.explainer = explainer)
    AND (score_kind IS NULL OR t.score_kind = score_kind)
  ORDER BY
    n.relevance DESC,
    t.score DESC NULLS LAST,
    t.model,
    t.component,
    t.layer,
    t.unit,
    t.dataset,
    t.rank
  LIMIT k
)
SELECT
  row_number() OVER () - 1 AS rank,
  b.model,
  b.component,
  b.layer,
  b.unit,
  concat_ws('/', b.model, b.component, b.layer, b.unit) AS unit_id,
  b.relevance,
  b.explanation,
  b.score,
  b.score_kind,
  b.explainer,
  b.origin,
  b.created_at,
  b.dataset,
  b.rank AS explanation_rank
FROM best AS b;

COMMENT ON MACRO TABLE nearest_explanations IS 'The k explanations whose embeddings are nearest to one, ranked from 0 by the cosine of the two. The embedding has 384 numbers and length 1, as `warehouse.embedding` makes it of a question, or explanation_vectors has it of an explanation. Only explanations that `warehouse explain embed` has been run for. Ties and filters as of search_explanations.';
