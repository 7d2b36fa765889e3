-- One row is: a record whose activations are neither a triangle nor a trapezium
-- From: records, datasets
-- Holds: in datasets per token pair, n tokens have the sum of min(i + 1, m) activations over i < n, for an m of 1 to n
SELECT
  model,
  component,
  layer,
  unit,
  section,
  quantile,
  rank,
  len(tokens) AS n_tokens,
  len(activations) AS n_activations,
  n_tokens * (n_tokens + 1) // 2 - n_activations AS n_cut,
  CAST(floor((sqrt(greatest(8 * n_cut + 1, 0)) - 1) / 2) AS BIGINT) AS cut_side
FROM records
JOIN datasets USING (model, component)
WHERE datasets.per = 'token_pair'
  AND NOT coalesce(cut_side * (cut_side + 1) // 2 = n_cut AND n_cut >= 0 AND cut_side < greatest(n_tokens, 1), false);
