-- One row is: a unit that has been active on the token
-- From: token_stats, units
CREATE MACRO token_scores(token, model := NULL, component := NULL, layer := NULL, "by" := 'max') AS TABLE
WITH totals AS (
  SELECT
    s.model,
    s.component,
    s.layer,
    s.unit,
    sum(CAST(s.sum_positive AS DOUBLE)) AS total_positive
  FROM token_stats AS s
  SEMI JOIN (
    SELECT
      c.model,
      c.component,
      c.layer,
      c.unit
    FROM token_stats AS c
    WHERE c.token = token
  ) AS candidates USING (model, component, layer, unit)
  WHERE "by" = 'share'
  GROUP BY ALL
)
SELECT
  s.model,
  s.component,
  s.layer,
  s.unit,
  s.unit_id,
  s.n,
  s.n_active,
  s.max_activation,
  s.sum_activation,
  s.n_random,
  s.sum_random,
  s.sum_positive,
  CASE "by"
    WHEN 'max' THEN CAST(s.max_activation AS DOUBLE)
    WHEN 'mean' THEN CAST(s.sum_random AS DOUBLE) / nullif(s.n_random, 0)
    WHEN 'relative' THEN CAST(s.sum_activation AS DOUBLE) / s.n / u.max_activation
    WHEN 'share' THEN CAST(s.sum_positive AS DOUBLE) / t.total_positive
  END AS score
FROM range(
  CASE WHEN "by" IN ('max', 'mean', 'relative', 'share') THEN 1 ELSE error('by must be max, mean, relative or share') END
) AS checked
CROSS JOIN token_stats AS s
LEFT JOIN totals AS t USING (model, component, layer, unit)
LEFT JOIN units AS u
  ON "by" = 'relative' AND u.max_activation > 0
  AND u.model = s.model AND u.component = s.component AND u.layer = s.layer AND u.unit = s.unit
WHERE s.token = token
  AND (model IS NULL OR s.model = model)
  AND (component IS NULL OR s.component = component)
  AND (layer IS NULL OR s.layer = layer);

COMMENT ON MACRO TABLE token_scores IS 'Every unit that has been active on a token, with its score: by max the strongest activation on it; by mean over its occurrences in the random sample (NULL without any); by relative the mean over all its occurrences, as a part of the unit''s max_activation; by share its part of the unit''s whole positive activation.';
