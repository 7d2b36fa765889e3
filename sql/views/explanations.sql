-- One row is: an explanation of a unit
-- From: the committed parts of explanations
CREATE VIEW explanations AS
SELECT
  p.model,
  p.about AS component,
  p.layer,
  p.unit,
  concat_ws('/', p.model, p.about, p.layer, p.unit) AS unit_id,
  p.rank,
  p.explanation,
  p.explainer,
  p.score,
  p.score_kind,
  p.origin,
  p.created_at,
  concat_ws('/', p.model, p.component) AS dataset
FROM $parts AS p;

COMMENT ON VIEW explanations IS 'What a unit responds to, in words, with the score that counts first; explanation_scores has the others. Join units by unit_id. Scores of GPT-2 small and of XL were made by different methods: compare within one dataset only.';
