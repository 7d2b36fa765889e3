-- One row is: a score of an explanation
-- From: the committed parts of explanation_scores, merged_answers
CREATE VIEW explanation_scores AS
SELECT
  p.model,
  p.about AS component,
  p.layer,
  p.unit,
  concat_ws('/', p.model, p.about, p.layer, p.unit) AS unit_id,
  p.rank,
  p.score_kind,
  p.score,
  p.origin,
  concat_ws('/', p.model, p.component) AS dataset,
  CAST(NULL AS DOUBLE) AS score_low,
  CAST(NULL AS DOUBLE) AS score_high,
  CAST(NULL AS INTEGER) AS n_scored
FROM $parts AS p
UNION ALL
SELECT
  a.model,
  a.component,
  a.layer,
  a.unit,
  a.unit_id,
  a.rank,
  s.scored.score_kind,
  s.scored.score,
  a.origin,
  concat_ws('/', 'answers', a.batch) AS dataset,
  s.scored.score_low,
  s.scored.score_high,
  s.scored.n_scored
FROM merged_answers AS a
CROSS JOIN unnest(a.scores) AS s(scored)
WHERE s.scored.score IS NOT NULL;

COMMENT ON VIEW explanation_scores IS 'Every score of an explanation that is a number, the one in explanations too: join by dataset, unit_id and rank. Scores of GPT-2 small and of XL cannot be compared.';
