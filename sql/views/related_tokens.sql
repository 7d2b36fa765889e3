-- One row is: a token that is related to a unit
-- From: the committed parts of related_tokens
CREATE VIEW related_tokens AS
SELECT
  p.model,
  p.about AS component,
  p.layer,
  p.unit,
  concat_ws('/', p.model, p.about, p.layer, p.unit) AS unit_id,
  p.basis,
  p.direction,
  p.sign,
  p.rank,
  p.token,
  p.strength,
  concat_ws('/', p.model, p.component) AS dataset
FROM $parts AS p;

COMMENT ON VIEW related_tokens IS 'The tokens with the highest mean activation in a unit, and those whose embedding has the largest positive and negative weights to (input) or from (output) it. A token may be of another text than a lake''s records, which token_stats counts.';
