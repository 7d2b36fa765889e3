-- One row is: a record's position
-- From: records, datasets
CREATE VIEW activations AS
SELECT
  r.model,
  r.component,
  r.layer,
  r.unit,
  r.unit_id,
  r.section,
  r.quantile,
  r.rank,
  CAST(generate_subscripts(r.tokens, 1) - 1 AS INTEGER) AS position,
  unnest(r.tokens) AS token,
  unnest(r.activations) AS activation
FROM records AS r
SEMI JOIN (
  SELECT
    d.model,
    d.component
  FROM datasets AS d
  WHERE d.per = 'token'
) AS per_token USING (model, component);

COMMENT ON VIEW activations IS 'Every token of every record with the activation on it, for datasets per token; pair_activations has the others.';
