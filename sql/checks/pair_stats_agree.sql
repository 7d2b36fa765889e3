-- One row is: a pair whose figures differ from its records
-- From: pair_stats, pair_activations
-- Holds: the figures of pair_stats are those of the unit's records, within float32
WITH found AS (
  SELECT
    model,
    component,
    layer,
    unit,
    query_token,
    key_token,
    count(*) AS n,
    count(*) FILTER (WHERE activation > 0) AS n_active,
    count(*) FILTER (WHERE section = 'random') AS n_random,
    max(activation) AS max_activation,
    min(activation) AS min_activation,
    sum(CAST(activation AS DOUBLE)) AS sum_activation,
    sum(CASE WHEN section = 'random' THEN CAST(activation AS DOUBLE) ELSE 0 END) AS sum_random,
    sum(greatest(CAST(activation AS DOUBLE), 0)) AS sum_positive,
    1e-6 * sum(abs(CAST(activation AS DOUBLE))) AS tolerance
  FROM pair_activations
  SEMI JOIN pair_stats USING (model, component, layer, unit, query_token, key_token)
  GROUP BY ALL
)
SELECT
  s.model,
  s.component,
  s.layer,
  s.unit,
  s.query_token,
  s.key_token,
  s.n,
  f.n AS found_n,
  s.sum_activation,
  f.sum_activation AS found_sum
FROM pair_stats AS s
LEFT JOIN found AS f USING (model, component, layer, unit, query_token, key_token)
WHERE (s.n, s.n_active, s.n_random, s.max_activation, s.min_activation) IS DISTINCT FROM (
    CAST(f.n AS INTEGER), CAST(f.n_active AS INTEGER), CAST(f.n_random AS INTEGER), f.max_activation, f.min_activation
  )
  OR abs(s.sum_activation - f.sum_activation) > f.tolerance
  OR abs(s.sum_random - f.sum_random) > f.tolerance
  OR abs(s.sum_positive - f.sum_positive) > f.tolerance;
