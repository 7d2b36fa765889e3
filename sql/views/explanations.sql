-- One row is: an explanation of a unit
-- From: the committed parts of explanations, merged_answers
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
  a.explanation,
  a.explainer,
  a.scores[1].score,
  a.scores[1].score_kind,
  a.origin,
  a.created_at,
  concat_ws('/', 'answers', a.batch) AS dataset,
  a.scores[1].score_low,
  a.scores[1].score_high,
  a.scores[1].n_scored
FROM merged_answers AS a;

COMMENT ON VIEW explanations IS 'What a unit responds to, in words, with the score that counts first; explanation_scores has the others. A unit may have many: published ones (origin openai), and those of runs and imports under the names that these were given. Join units by unit_id. Scores of GPT-2 small and of XL were made by different methods: compare within one dataset and score_kind only.';
