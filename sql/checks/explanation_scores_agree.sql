-- One row is: an explanation whose scores are not those that explanation_scores has, or scores without one
-- From: explanations, explanation_scores
-- Holds: a score belongs to an explanation, is a number, of each kind once; the one in explanations is among them
SELECT
  model,
  split_part(dataset, '/', 2) AS component,
  layer,
  unit,
  rank,
  any_value(e.score) AS score,
  list(s.score_kind) AS score_kinds,
  list(s.score) AS scores
FROM explanations AS e
FULL JOIN explanation_scores AS s USING (model, dataset, layer, unit, rank)
GROUP BY
  model,
  dataset,
  layer,
  unit,
  rank
HAVING count(e.explanation) = 0
  OR count(s.score_kind) <> count(DISTINCT s.score_kind)
  OR count(s.score_kind) <> count(s.score)
  OR any_value(e.score) IS DISTINCT FROM any_value(s.score) FILTER (WHERE s.score_kind = e.score_kind);
