-- One row is: a record with another number of activations than of tokens
-- From: records, datasets
-- Holds: in datasets per token, a record has as many activations as tokens
SELECT
  model,
  component,
  layer,
  unit,
  section,
  quantile,
  rank,
  len(tokens) AS n_tokens,
  len(activations) AS n_activations
FROM records
JOIN datasets USING (model, component)
WHERE datasets.per = 'token'
  AND len(tokens) IS DISTINCT FROM len(activations);
