-- One row is: what a run or an import says of a unit, or why it says nothing
-- From: the batches of answers
CREATE VIEW answers AS
SELECT
  p.model,
  p.component,
  p.layer,
  p.unit,
  concat_ws('/', p.model, p.component, p.layer, p.unit) AS unit_id,
  p.batch,
  p.rank,
  p.origin,
  p.explanation,
  p.explainer,
  p.status,
  p.error,
  p.scores,
  p.created_at,
  p.prompt_tokens,
  p.completion_tokens,
  p.cost,
  p.run_id,
  p.answer_key
FROM $parts AS p;

COMMENT ON VIEW answers IS 'Every answer that explanation runs and imports brought, those that failed too, with all its scores: status says what came of it. The ok ones are in explanations, each said once (merged_answers). Tokens and cost are what the run paid for the row, so they add up.';
