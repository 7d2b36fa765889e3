-- One row is: a distance between query and key
-- From: pair_activations
CREATE MACRO head_profile(unit_id, section := NULL) AS TABLE
SELECT
  a.query_position - a.key_position AS distance,
  count(*) AS n,
  count(*) FILTER (WHERE a.activation > 0) AS n_active,
  avg(CAST(a.activation AS DOUBLE)) AS mean_activation,
  max(a.activation) AS max_activation,
  sum(abs(CAST(a.activation AS DOUBLE))) / sum(sum(abs(CAST(a.activation AS DOUBLE)))) OVER () AS share
FROM range(
  CASE
    WHEN section NOT IN ('top', 'random', 'quantile') THEN error('section must be top, random or quantile')
    WHEN regexp_full_match(unit_id, '[^/]+/[^/]+/[0-9]+/[0-9]+') THEN 1
    ELSE error('unit_id must be model/component/layer/unit')
  END
) AS checked
CROSS JOIN pair_activations AS a
WHERE a.model = split_part(unit_id, '/', 1)
  AND a.component = split_part(unit_id, '/', 2)
  AND a.layer = TRY_CAST(split_part(unit_id, '/', 3) AS INTEGER)
  AND a.unit = TRY_CAST(split_part(unit_id, '/', 4) AS INTEGER)
  AND (section IS NULL OR a.section = section)
GROUP BY distance
ORDER BY distance;

COMMENT ON MACRO TABLE head_profile IS 'How strong a unit (per token pair) is by the distance from query back to key: 0 is the token itself, 1 the one before. Over its records of one section (NULL for all); share is the part of its whole absolute activation. Long distances have fewer pairs, which mean_activation allows for and share does not.';
