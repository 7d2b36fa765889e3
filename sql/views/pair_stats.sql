-- One row is: a token pair of a unit
-- From: the committed parts of pair_stats
CREATE VIEW pair_stats AS
SELECT
  p.model,
  p.component,
  p.layer,
  p.unit,
  concat_ws('/', p.model, p.component, p.layer, p.unit) AS unit_id,
  p.query_token,
  p.key_token,
  p.n,
  p.n_active,
  p.max_activation,
  p.min_activation,
  p.sum_activation,
  p.n_random,
  p.sum_random,
  p.sum_positive
FROM $parts AS p;

COMMENT ON VIEW pair_stats IS 'What a unit does on a pair of query token and key token, over its records of all sections: the 1,000 pairs of each unit that are strongest by absolute value. Datasets per token pair.';
