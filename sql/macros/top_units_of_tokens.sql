-- One row is: a unit, best first
-- From: index_rows, index_units, vocabulary
CREATE MACRO top_units_of_tokens(
  tokens, k := 20, model := NULL, component := NULL, layer := NULL, "by" := 'max'
) AS TABLE
WITH together AS (
  SELECT
    r.model,
    r.component,
    r.layer,
    r.unit,
    min_by(v.token, (-r.max_activation, v.token)) AS token,
    count(*) AS n_tokens,
    CAST(sum(r.n_active) AS BIGINT) AS n_active,
    max(r.max_activation) AS max_activation,
    sum(CAST(coalesce(r.sum_positive, r.max_activation) AS DOUBLE)) AS sum_positive
  FROM index_rows AS r
  INNER JOIN vocabulary AS v USING (token_number)
  WHERE list_contains(tokens, v.token)
    AND (model IS NULL OR r.model = model)
    AND (component IS NULL OR r.component = component)
    AND (layer IS NULL OR r.layer = layer)
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
    t.n_active,
    t.max_activation,
    t.sum_positive,
    CASE "by"
      WHEN 'max' THEN CAST(t.max_activation AS DOUBLE)
      WHEN 'share' THEN t.sum_positive / u.total_positive
      WHEN 'tokens' THEN CAST(t.n_tokens AS DOUBLE)
      ELSE error('by must be max, share or tokens: a mean of several would lack those that a unit is never active on')
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
  s.n_active,
  s.max_activation,
  s.sum_positive
FROM scored AS s
WHERE s.score IS NOT NULL
ORDER BY rank
LIMIT k;

COMMENT ON MACRO TABLE top_units_of_tokens IS 'The k units that respond most to a list of tokens taken together, ranked from 0 by score: by max the strongest activation on any of them; by share their part of the unit''s whole positive activation; by tokens, how many of them the unit is ever active on (n_tokens). token is the one with the strongest activation. There is no mean: the index has no row for a token that a unit is never active on, so that of several would leave out just those. Equal scores stand in the order of max_activation, model, component, layer and unit.';
