-- One row is: a token pair of a unit's records
-- From: pair_activations
CREATE MACRO unit_pairs(unit_id, section := NULL) AS TABLE
SELECT
  a.section,
  a.quantile,
  a.rank,
  a.query_position,
  a.key_position,
  a.activation
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
  AND (section IS NULL OR a.section = section);

COMMENT ON MACRO TABLE unit_pairs IS 'The activations of one unit (per token pair) by position, in its records of one section (NULL for all): what head_profile and pair_map add up.';
