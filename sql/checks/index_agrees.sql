-- One row is: a unit whose rows in the token index are not those of its Parquet
-- From: token_index, token_stats
-- Holds: the token index has the rows of token_stats, each figure the same
WITH indexed AS (
  SELECT
    model,
    component,
    layer,
    unit,
    count(*) AS n_rows,
    sum(CAST(hash(token, n, n_active, max_activation, sum_activation, n_random, sum_random, sum_positive) AS HUGEINT)) AS digest
  FROM token_index
  GROUP BY ALL
),
stored AS (
  SELECT
    model,
    component,
    layer,
    unit,
    count(*) AS n_rows,
    sum(CAST(hash(token, n, n_active, max_activation, sum_activation, n_random, sum_random, sum_positive) AS HUGEINT)) AS digest
  FROM token_stats
  GROUP BY ALL
)
SELECT
  model,
  component,
  layer,
  unit,
  i.n_rows AS n_indexed,
  s.n_rows AS n_stored
FROM indexed AS i
FULL JOIN stored AS s USING (model, component, layer, unit)
WHERE (i.n_rows, i.digest) IS DISTINCT FROM (s.n_rows, s.digest);
