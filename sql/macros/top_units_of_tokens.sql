-- One row is: a unit, best first
-- From: index_rows, index_units, vocabulary
CREATE MACRO top_units_of_tokens(
  tokens, k := 20, model := NULL, component := NULL, layer := NULL, "by" := 'max'
) AS TABLE
WITH rows_of_tokens AS (
  SELECT
    r.model,
    r.component,
    r.layer,
    r.unit,
    v.token,
    r.n,
    r.n_active,
    r.max_activation,
    r.n_random,
    CAST(coalesce(r.sum_positive, r.max_activation) AS DOUBLE) AS sum_positive,
    CAST(coalesce(r.sum_activation, r.sum_positive, r.max_activation) AS DOUBLE) AS sum_activation,
    CASE
      WHEN r.sum_random IS NOT NULL OR r.n_random = 0 THEN CAST(coalesce(r.sum_random, 0) AS DOUBLE)
      ELSE CAST(coalesce(r.sum_activation, r.sum_positive, r.max_activation) AS DOUBLE)
    END AS sum_random
  FROM index_rows AS r
  INNER JOIN vocabulary AS v USING (token_number)
  WHERE list_contains(tokens, v.token)
    AND (model IS NULL OR r.model = model)
    AND (component IS NULL OR r.component = component)
    AND (layer IS NULL OR r.layer = layer)
),
together AS (
  SELECT
    t.model,
    t.component,
    t.layer,
    t.unit,
    min_by(t.token, (-t.max_activation, t.token)) AS token,
    count(*) AS n_tokens,
    sum(t.n) AS n,
    sum(t.n_active) AS n_active,
    max(t.max_activation) AS max_activation,
    sum(t.sum_activation) AS sum_activation,
    sum(t.n_random) AS n_random,
    sum(t.sum_random) AS sum_random,
    sum(t.sum_positive) AS sum_positive
  FROM rows_of_tokens AS t
  GROUP BY ALL
),
scored AS (
  SELECT
    t.model,
    t.component,
    t.layer,
    t.unit,
    t.token,
    t.n_tokens,
    t.n,
    t.n_active,
    t.max_activation,
    t.sum_activation,
    t.n_random,
    t.sum_random,
    t.sum_positive,
    CASE "by"
      WHEN 'max' THEN CAST(t.max_activation AS DOUBLE)
      WHEN 'mean' THEN t.sum_random / nullif(t.n_random, 0)
      WHEN 'relative' THEN t.sum_activation / t.n / CASE WHEN u.max_activation > 0 THEN u.max_activation END
      WHEN 'share' THEN t.sum_positive / u.total_positive
      WHEN 'tokens' THEN CAST(t.n_tokens AS DOUBLE)
      ELSE error('by must be max, mean, relative, share or tokens')
    END AS score
  FROM together AS t
  INNER JOIN index_units AS u USING (model, component, layer, unit)
)
SELECT
  row_number() OVER (
    ORDER BY s.score DESC, s.max_activation DESC, s.model, s.component, s.layer, s.unit
  ) - 1 AS rank,
  CAST(s.model AS VARCHAR) AS model,
  CAST(s.component AS VARCHAR) AS component,
  CAST(s.layer AS INTEGER) AS layer,
  s.unit,
  concat_ws('/', s.model, s.component, s.layer, s.unit) AS unit_id,
  s.score,
  s.token,
  s.n_tokens,
  s.n,
  s.n_active,
  s.max_activation,
  s.sum_activation,
  s.n_random,
  s.sum_random,
  s.sum_positive
FROM scored AS s
WHERE s.score IS NOT NULL
ORDER BY rank
LIMIT k;

COMMENT ON MACRO TABLE top_units_of_tokens IS 'The k units that respond most to a list of tokens taken together, ranked from 0 by score: as in top_units, with the figures of all tokens of the list that the unit is ever active on added up; by tokens, the number of those (n_tokens). token is the one with the strongest activation. Equal scores stand in the order of max_activation, model, component, layer and unit.';
