-- One row is: a token whose figures differ from its records, or that is in one of them alone
-- From: token_stats, activations
-- Holds: token_stats has every token that is ever active, with the figures of the unit's records, within float32
WITH found AS (
  SELECT
    model,
    component,
    layer,
    unit,
    token,
    count(*) AS n,
    count(*) FILTER (WHERE activation > 0) AS n_active,
    count(*) FILTER (WHERE section = 'random') AS n_random,
    max(activation) AS max_activation,
    sum(CAST(activation AS DOUBLE)) AS sum_activation,
    sum(CASE WHEN section = 'random' THEN CAST(activation AS DOUBLE) ELSE 0 END) AS sum_random,
    sum(greatest(CAST(activation AS DOUBLE), 0)) AS sum_positive,
    1e-6 * sum(abs(CAST(activation AS DOUBLE))) AS tolerance
  FROM activations
  GROUP BY ALL
  HAVING n_active > 0
)
SELECT
  model,
  component,
  layer,
  unit,
  token,
  s.n,
  f.n AS found_n,
  s.max_activation,
  f.max_activation AS found_max,
  s.sum_activation,
  f.sum_activation AS found_sum
FROM token_stats AS s
FULL JOIN found AS f USING (model, component, layer, unit, token)
WHERE (s.n, s.n_active, s.n_random, s.max_activation) IS DISTINCT FROM (
    CAST(f.n AS INTEGER), CAST(f.n_active AS INTEGER), CAST(f.n_random AS INTEGER), f.max_activation
  )
  OR abs(s.sum_activation - f.sum_activation) > f.tolerance
  OR abs(s.sum_random - f.sum_random) > f.tolerance
  OR abs(s.sum_positive - f.sum_positive) > f.tolerance;
