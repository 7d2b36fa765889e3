-- One row is: a unit that another one is the same as
-- From: unit_selectivity, context_records
CREATE VIEW duplicate_units AS
WITH top_records AS (
  SELECT
    r.model,
    r.component,
    r.layer,
    r.unit,
    sum(CAST(hash(r.text_key, r.rank, r.active_positions, r.active_values) AS HUGEINT)) AS digest
  FROM context_records AS r
  WHERE r.section = 'top'
  GROUP BY ALL
),
digests AS (
  SELECT
    s.model,
    s.component,
    s.layer,
    s.unit,
    s.profile AS digest,
    'token_stats' AS basis
  FROM unit_selectivity AS s
  UNION ALL
  SELECT
    t.model,
    t.component,
    t.layer,
    t.unit,
    t.digest,
    'top records' AS basis
  FROM top_records AS t
),
ordered AS (
  SELECT
    d.model,
    d.component,
    d.layer,
    d.unit,
    d.basis,
    count(*) OVER same AS n_same,
    first_value(concat_ws('/', d.model, d.component, d.layer, d.unit)) OVER (
      same ORDER BY d.model, d.component, d.layer, d.unit
    ) AS first_unit_id
  FROM digests AS d
  WINDOW same AS (PARTITION BY d.model, d.basis, d.digest)
)
SELECT
  CAST(o.model AS VARCHAR) AS model,
  CAST(o.component AS VARCHAR) AS component,
  CAST(o.layer AS INTEGER) AS layer,
  o.unit,
  concat_ws('/', o.model, o.component, o.layer, o.unit) AS unit_id,
  o.basis,
  o.first_unit_id,
  o.n_same
FROM ordered AS o
WHERE o.n_same > 1;

COMMENT ON VIEW duplicate_units IS 'Units of one model that have the same figures on every token (basis token_stats), or the same positive activations on the same top texts in the same order (top records). Datasets per token; dead units are in dead_units. By hashes of 64 bits, summed.';
