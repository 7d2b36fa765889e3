-- One row is: a unit, best first
-- From: index_rows, index_units, vocabulary
CREATE MACRO top_units(token, k := 20, model := NULL, component := NULL, layer := NULL) AS TABLE (
    SELECT
      row_number() OVER () - 1 AS rank,
      CAST(b.model AS VARCHAR) AS model,
      CAST(b.component AS VARCHAR) AS component,
      CAST(b.layer AS INTEGER) AS layer,
      b.unit,
      concat_ws('/', b.model, b.component, b.layer, b.unit) AS unit_id,
      CAST(b.max_activation AS DOUBLE) AS score,
      b.n,
      b.n_active,
      b.max_activation,
      coalesce(b.sum_activation, b.sum_positive, b.max_activation) AS sum_activation,
      b.n_random,
      coalesce(
        b.sum_random,
        CASE WHEN b.n_random = 0 THEN 0 ELSE coalesce(b.sum_activation, b.sum_positive, b.max_activation) END
      ) AS sum_random,
      coalesce(b.sum_positive, b.max_activation) AS sum_positive
    FROM (
      SELECT
        r.model,
        r.component,
        r.layer,
        r.unit,
        r.n,
        r.n_active,
        r.max_activation,
        r.sum_activation,
        r.n_random,
        r.sum_random,
        r.sum_positive
      FROM index_rows AS r
      INNER JOIN vocabulary AS v USING (token_number)
      WHERE v.token = token
        AND (model IS NULL OR r.model = model)
        AND (component IS NULL OR r.component = component)
        AND (layer IS NULL OR r.layer = layer)
      ORDER BY r.max_activation DESC, r.model, r.component, r.layer, r.unit
      LIMIT k
    ) AS b
  ),
  (token, "by" VARCHAR, k := 20, model := NULL, component := NULL, layer := NULL) AS TABLE (
    SELECT
      row_number() OVER () - 1 AS rank,
      CAST(b.model AS VARCHAR) AS model,
      CAST(b.component AS VARCHAR) AS component,
      CAST(b.layer AS INTEGER) AS layer,
      b.unit,
      concat_ws('/', b.model, b.component, b.layer, b.unit) AS unit_id,
      b.score,
      b.n,
      b.n_active,
      b.max_activation,
      coalesce(b.sum_activation, b.sum_positive, b.max_activation) AS sum_activation,
      b.n_random,
      coalesce(
        b.sum_random,
        CASE WHEN b.n_random = 0 THEN 0 ELSE coalesce(b.sum_activation, b.sum_positive, b.max_activation) END
      ) AS sum_random,
      coalesce(b.sum_positive, b.max_activation) AS sum_positive
    FROM (
      SELECT
        r.model,
        r.component,
        r.layer,
        r.unit,
        r.n,
        r.n_active,
        r.max_activation,
        r.sum_activation,
        r.n_random,
        r.sum_random,
        r.sum_positive,
        CASE "by"
          WHEN 'max' THEN CAST(r.max_activation AS DOUBLE)
          WHEN 'mean' THEN CAST(
            coalesce(r.sum_random, r.sum_activation, r.sum_positive, r.max_activation) AS DOUBLE
          ) / nullif(r.n_random, 0)
          WHEN 'relative' THEN CAST(coalesce(r.sum_activation, r.sum_positive, r.max_activation) AS DOUBLE)
            / r.n / u.max_activation
          WHEN 'share' THEN CAST(coalesce(r.sum_positive, r.max_activation) AS DOUBLE) / u.total_positive
          ELSE error('by must be max, mean, relative or share')
        END AS score
      FROM index_rows AS r
      INNER JOIN vocabulary AS v USING (token_number)
      LEFT JOIN index_units AS u
        ON "by" IN ('relative', 'share') AND ("by" = 'share' OR u.max_activation > 0)
        AND u.model = r.model AND u.component = r.component AND u.layer = r.layer AND u.unit = r.unit
      WHERE v.token = CASE
          WHEN "by" IN ('max', 'mean', 'relative', 'share') THEN token
          ELSE error('by must be max, mean, relative or share')
        END
        AND (model IS NULL OR r.model = model)
        AND (component IS NULL OR r.component = component)
        AND (layer IS NULL OR r.layer = layer)
      ORDER BY
        score DESC NULLS LAST,
        r.model,
        r.component,
        r.layer,
        r.unit
      LIMIT k
    ) AS b
    WHERE b.score IS NOT NULL
  );

COMMENT ON MACRO TABLE top_units IS 'The k units that respond most to a token, ranked from 0 by score: by max the strongest activation on it; by mean over its occurrences in the random sample (none without any); by relative the mean over all its occurrences, as a part of the unit''s max_activation; by share its part of the unit''s whole positive activation. Equal scores stand in the order of model, component, layer and unit. Planning the query is most of its time, so it is written flat, and without "by" it is the shorter one by max.';
