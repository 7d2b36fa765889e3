-- One row is: a score of an explanation
-- From: the committed parts of explanation_scores
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
  concat_ws('/', p.model, p.component) AS dataset
FROM $parts AS p;

COMMENT ON VIEW explanation_scores IS 'Every score of an explanation that its file gives as a number, the one in explanations too: join by dataset, unit_id and rank. Scores of GPT-2 small and of XL cannot be compared.';
