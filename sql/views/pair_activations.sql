-- One row is: a record's token pair
-- From: records, datasets
CREATE VIEW pair_activations AS
WITH places AS (
  SELECT
    r.model,
    r.component,
    r.layer,
    r.unit,
    r.unit_id,
    r.section,
    r.quantile,
    r.rank,
    r.tokens,
    len(r.tokens) * (len(r.tokens) + 1) // 2 - len(r.activations) AS n_cut,
    len(r.tokens) - TRY_CAST((sqrt(8 * n_cut + 1) - 1) / 2 AS BIGINT) AS n_keys,
    n_keys * (n_keys + 1) // 2 AS n_triangle,
    unnest(r.activations) AS activation,
    generate_subscripts(r.activations, 1) - 1 AS place
  FROM records AS r
  SEMI JOIN (
    SELECT
      d.model,
      d.component
    FROM datasets AS d
    WHERE d.per = 'token_pair'
  ) AS per_pair USING (model, component)
)
SELECT
  p.model,
  p.component,
  p.layer,
  p.unit,
  p.unit_id,
  p.section,
  p.quantile,
  p.rank,
  CASE
    WHEN p.place < p.n_triangle THEN CAST(floor((sqrt(8 * p.place + 1) - 1) / 2) AS INTEGER)
    ELSE CAST(p.n_keys + (p.place - p.n_triangle) // p.n_keys AS INTEGER)
  END AS query_position,
  CASE
    WHEN p.place < p.n_triangle THEN CAST(p.place - CAST(query_position AS BIGINT) * (query_position + 1) // 2 AS INTEGER)
    ELSE CAST((p.place - p.n_triangle) % p.n_keys AS INTEGER)
  END AS key_position,
  p.tokens[query_position + 1] AS query_token,
  p.tokens[key_position + 1] AS key_token,
  p.activation
FROM places AS p;

COMMENT ON VIEW pair_activations IS 'Every token pair of every record with the activation on it, for datasets per token pair: the flattened lower triangle taken apart, or the trapezium where a query has no more than n_keys keys.';
