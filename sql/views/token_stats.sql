-- One row is: a token of a unit
-- From: the committed parts of token_stats
CREATE VIEW token_stats AS
SELECT
  p.model,
  p.component,
  p.layer,
  p.unit,
  concat_ws('/', p.model, p.component, p.layer, p.unit) AS unit_id,
  p.token,
  p.n,
  p.n_active,
  p.max_activation,
  p.sum_activation,
  p.n_random,
  p.sum_random,
  p.sum_positive
FROM $parts AS p;

COMMENT ON VIEW token_stats IS 'What a unit does on a token, over its records of all sections. A token on which the unit is never active (> 0) has no row; the top records are chosen for their activations, so only n_random and sum_random are unbiased. Datasets per token.';
