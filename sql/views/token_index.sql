-- One row is: a token of a unit
-- From: index_rows, vocabulary
CREATE VIEW token_index AS
SELECT
  CAST(r.model AS VARCHAR) AS model,
  CAST(r.component AS VARCHAR) AS component,
  CAST(r.layer AS INTEGER) AS layer,
  r.unit,
  concat_ws('/', r.model, r.component, r.layer, r.unit) AS unit_id,
  v.token,
  r.n,
  r.n_active,
  r.max_activation,
  coalesce(r.sum_activation, r.sum_positive, r.max_activation) AS sum_activation,
  r.n_random,
  CASE
    WHEN r.sum_random IS NOT NULL OR r.n_random = 0 THEN coalesce(r.sum_random, 0)
    ELSE coalesce(r.sum_activation, r.sum_positive, r.max_activation)
  END AS sum_random,
  coalesce(r.sum_positive, r.max_activation) AS sum_positive
FROM index_rows AS r
INNER JOIN vocabulary AS v USING (token_number);

COMMENT ON VIEW token_index IS 'The rows of token_stats, sorted by token: take it to filter by token, and token_stats to filter by unit. As of the catalogue''s build.';
