-- One row is: a unit whose stored profile is not that of its Parquet
-- From: unit_profiles, profile_rows, token_stats, vocabulary
-- Holds: token profiles are those of token_stats, by unit and by token
WITH counted AS (
  SELECT
    s.model,
    s.component,
    s.layer,
    s.unit,
    s.token,
    CAST(CAST(s.sum_positive AS DOUBLE) / (s.n + 3) AS FLOAT) AS weight
  FROM token_stats AS s
  QUALIFY row_number() OVER (PARTITION BY s.model, s.component, s.layer, s.unit ORDER BY weight DESC, s.token) <= 32
),
wanted AS (
  SELECT
    c.model,
    c.component,
    c.layer,
    c.unit,
    list(c.token ORDER BY c.weight DESC, c.token) AS tokens,
    list(c.weight ORDER BY c.weight DESC, c.token) AS weights
  FROM counted AS c
  GROUP BY ALL
),
stored AS (
  SELECT
    u.unit_number,
    u.model,
    u.component,
    u.layer,
    u.unit,
    unnest(u.token_numbers) AS token_number,
    unnest(u.weights) AS weight,
    generate_subscripts(u.weights, 1) AS place
  FROM unit_profiles AS u
),
found AS (
  SELECT
    CAST(s.model AS VARCHAR) AS model,
    CAST(s.component AS VARCHAR) AS component,
    CAST(s.layer AS INTEGER) AS layer,
    s.unit,
    list(v.token ORDER BY s.place) AS tokens,
    list(s.weight ORDER BY s.place) AS weights,
    count(p.weight) FILTER (WHERE p.weight = s.weight) AS n_by_token
  FROM stored AS s
  INNER JOIN vocabulary AS v USING (token_number)
  LEFT JOIN profile_rows AS p
    ON p.token_number = s.token_number AND p.unit_number = s.unit_number
  GROUP BY
    s.model,
    s.component,
    s.layer,
    s.unit
)
SELECT
  model,
  component,
  layer,
  unit,
  f.tokens AS tokens_found,
  w.tokens AS tokens_counted,
  f.n_by_token
FROM wanted AS w
FULL JOIN found AS f USING (model, component, layer, unit)
WHERE f.tokens IS DISTINCT FROM w.tokens
  OR f.n_by_token <> len(f.tokens)
  OR list_max(list_transform(range(1, len(f.weights) + 1), lambda i: abs(f.weights[i] / f.weights[1] - w.weights[i] / w.weights[1])))
    > 1e-6;
