-- One row is: a unit whose records the contexts have otherwise than its Parquet
-- From: context_records, context_texts, records, datasets
-- Holds: of each record in which a unit of a dataset per token is active, contexts have the tokens and the positive activations
WITH texts AS (
  SELECT
    text_key,
    text,
    list_append(token_starts[2:], length(text)) AS token_ends,
    list_transform(token_starts, lambda start, place: CAST(token_ends[place] - start AS BIGINT)) AS token_lengths
  FROM context_texts
),
indexed AS (
  SELECT
    r.model,
    r.component,
    r.layer,
    r.unit,
    count(*) AS n_records,
    sum(CAST(hash(
      CAST(r.section AS VARCHAR),
      r.quantile,
      r.rank,
      t.text,
      t.token_lengths,
      list_transform(r.active_positions, lambda position: CAST(position AS BIGINT)),
      r.active_values
    ) AS HUGEINT)) AS digest
  FROM context_records AS r
  LEFT JOIN texts AS t USING (text_key)
  GROUP BY ALL
),
stored AS (
  SELECT
    r.model,
    r.component,
    r.layer,
    r.unit,
    count(*) AS n_records,
    sum(CAST(hash(
      r.section,
      r.quantile,
      r.rank,
      array_to_string(r.tokens, ''),
      list_transform(r.tokens, lambda token: length(token)),
      list_filter(range(len(r.tokens)), lambda position: r.activations[position + 1] > 0),
      list_filter(r.activations, lambda activation: activation > 0)
    ) AS HUGEINT)) AS digest
  FROM records AS r
  SEMI JOIN (SELECT model, component FROM datasets WHERE per = 'token') AS per_token USING (model, component)
  WHERE r.max_activation > 0
  GROUP BY ALL
)
SELECT
  model,
  component,
  layer,
  unit,
  i.n_records AS n_indexed,
  s.n_records AS n_stored
FROM indexed AS i
FULL JOIN stored AS s USING (model, component, layer, unit)
WHERE (i.n_records, i.digest) IS DISTINCT FROM (s.n_records, s.digest);
