-- One row is: a unit's token pair
-- From: pair_stats, units
CREATE MACRO pair_scores(
  query_token := NULL, key_token := NULL, model := NULL, component := NULL, layer := NULL, "by" := 'max'
) AS TABLE
SELECT
  s.model,
  s.component,
  s.layer,
  s.unit,
  s.unit_id,
  s.query_token,
  s.key_token,
  s.n,
  s.n_active,
  s.max_activation,
  s.min_activation,
  s.sum_activation,
  s.n_random,
  s.sum_random,
  s.sum_positive,
  CASE "by"
    WHEN 'max' THEN CAST(s.max_activation AS DOUBLE)
    WHEN 'mean' THEN CAST(s.sum_random AS DOUBLE) / nullif(s.n_random, 0)
    WHEN 'relative' THEN CAST(s.sum_activation AS DOUBLE) / s.n / u.max_activation
    WHEN 'abs' THEN CAST(greatest(s.max_activation, -s.min_activation) AS DOUBLE)
  END AS score
FROM range(
  CASE WHEN "by" IN ('max', 'mean', 'relative', 'abs') THEN 1 ELSE error('by must be max, mean, relative or abs') END
) AS checked
CROSS JOIN pair_stats AS s
LEFT JOIN units AS u
  ON "by" = 'relative' AND u.max_activation > 0
  AND u.model = s.model AND u.component = s.component AND u.layer = s.layer AND u.unit = s.unit
WHERE (query_token IS NULL OR s.query_token = query_token)
  AND (key_token IS NULL OR s.key_token = key_token)
  AND (model IS NULL OR s.model = model)
  AND (component IS NULL OR s.component = component)
  AND (layer IS NULL OR s.layer = layer);

COMMENT ON MACRO TABLE pair_scores IS 'Every pair of a query token and a key token (NULL for any) that is among the 1,000 strongest of a unit, with its score: by max its strongest activation; by mean over its occurrences in the random sample (NULL without any); by relative the mean over all its occurrences, as a part of the unit''s max_activation; by abs its largest absolute activation, as attributions are signed.';
