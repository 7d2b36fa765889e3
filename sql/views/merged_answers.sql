-- One row is: an explanation that a run or an import brought
-- From: answers
CREATE VIEW merged_answers AS
WITH newest AS (
  SELECT
    a.model,
    a.component,
    a.layer,
    a.unit,
    a.unit_id,
    a.batch,
    a.rank,
    a.origin,
    a.explanation,
    a.explainer,
    a.created_at,
    list(a.scores) OVER same AS all_scores
  FROM answers AS a
  WHERE a.status = 'ok'
  WINDOW same AS (
    PARTITION BY
      a.model, a.component, a.layer, a.unit, a.unit_id, a.origin, a.explanation, a.explainer,
      CASE WHEN a.run_id IS NULL THEN a.answer_key END
    ORDER BY a.created_at DESC NULLS LAST, a.batch DESC, a.rank DESC
    ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
  )
  QUALIFY row_number() OVER same = 1
),
scored AS (
  SELECT
    n.model,
    n.component,
    n.layer,
    n.unit,
    n.unit_id,
    n.batch,
    n.rank,
    n.origin,
    n.explanation,
    n.explainer,
    n.created_at,
    flatten(n.all_scores) AS scores,
    list_transform(scores, lambda score: score.score_kind) AS score_kinds
  FROM newest AS n
)
SELECT
  s.model,
  s.component,
  s.layer,
  s.unit,
  s.unit_id,
  s.batch,
  s.rank,
  s.origin,
  s.explanation,
  s.explainer,
  list_filter(s.scores, lambda score, place: list_position(s.score_kinds, score.score_kind) = place) AS scores,
  s.created_at
FROM scored AS s;

COMMENT ON VIEW merged_answers IS 'The ok answers, each explanation once: what runs of one origin and explainer say of a unit in the same words is one row, that of the newest answer, with the newest score of each kind. Imports are as they came. The rows are in explanations.';
