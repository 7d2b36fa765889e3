-- One row is: a unit per token pair
-- From: pair_activations, records, datasets
CREATE MACRO head_patterns(model := NULL, component := NULL, layer := NULL, section := 'random') AS TABLE
WITH befores AS (
  SELECT
    r.model,
    r.component,
    r.layer,
    r.unit,
    r.section,
    coalesce(r.quantile, -1) AS bucket,
    r.rank,
    CAST(generate_subscripts(r.tokens, 1) AS INTEGER) AS key_position,
    unnest(r.tokens) AS token_before
  FROM records AS r
  SEMI JOIN (SELECT d.model, d.component FROM datasets AS d WHERE d.per = 'token_pair') AS per_pair
    USING (model, component)
  WHERE (model IS NULL OR r.model = model)
    AND (component IS NULL OR r.component = component)
    AND (layer IS NULL OR r.layer = layer)
    AND (section IS NULL OR r.section = section)
),
pairs AS (
  SELECT
    a.model,
    a.component,
    a.layer,
    a.unit,
    a.section,
    coalesce(a.quantile, -1) AS bucket,
    a.rank,
    a.query_position,
    a.key_position,
    a.query_token,
    abs(CAST(a.activation AS DOUBLE)) AS strength
  FROM pair_activations AS a
  WHERE (model IS NULL OR a.model = model)
    AND (component IS NULL OR a.component = component)
    AND (layer IS NULL OR a.layer = layer)
    AND CASE
      WHEN section IS NULL OR section IN ('top', 'random', 'quantile') THEN section IS NULL OR a.section = section
      ELSE error('section must be top, random or quantile')
    END
    AND a.query_position >= 2
),
queries AS (
  SELECT
    p.model,
    p.component,
    p.layer,
    p.unit,
    nullif(sum(p.strength), 0) AS total,
    sum(p.strength) FILTER (WHERE p.key_position = 0) AS on_first,
    sum(p.strength) FILTER (WHERE p.key_position = p.query_position - 1) AS on_previous,
    sum(p.strength) FILTER (WHERE p.key_position = p.query_position) AS on_self,
    sum(p.strength) FILTER (
      WHERE b.token_before = p.query_token AND p.key_position < p.query_position
    ) AS on_induced
  FROM pairs AS p
  LEFT JOIN befores AS b USING (model, component, layer, unit, section, bucket, rank, key_position)
  GROUP BY
    p.model,
    p.component,
    p.layer,
    p.unit,
    p.section,
    p.bucket,
    p.rank,
    p.query_position
)
SELECT
  q.model,
  q.component,
  q.layer,
  q.unit,
  concat_ws('/', q.model, q.component, q.layer, q.unit) AS unit_id,
  count(q.total) AS n_queries,
  avg(q.on_first / q.total) AS first_token,
  avg(q.on_previous / q.total) AS previous_token,
  avg(q.on_self / q.total) AS same_token,
  avg(q.on_induced / q.total) AS induction,
  count(q.on_induced / q.total) AS n_induction_queries
FROM queries AS q
GROUP BY
  q.model,
  q.component,
  q.layer,
  q.unit
ORDER BY
  q.model,
  q.component,
  q.layer,
  q.unit;

COMMENT ON MACRO TABLE head_patterns IS 'What part of a unit''s absolute activation, 0 to 1, a query gives to the first token, to the one before it, to itself, and to keys that follow an earlier occurrence of the query''s token (induction): each the mean over the queries that have such a key and any activation, from the third token on (before that, these keys are not three). Of the random sample, which is unbiased, unless another section (NULL for all) is named. Reads every pair of every record: name a layer of a large lake.';
