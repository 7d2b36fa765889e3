-- One row is: a unit with its token profile
-- From: unit_profiles
CREATE MACRO unit_profile(unit_id) AS TABLE
SELECT
  u.unit_number,
  u.token_numbers,
  u.weights
FROM range(
  CASE
    WHEN regexp_full_match(unit_id, '[^/]+/[^/]+/[0-9]+/[0-9]+') THEN 1
    ELSE error('unit_id must be model/component/layer/unit')
  END
) AS checked
CROSS JOIN unit_profiles AS u
WHERE u.model = TRY_CAST(split_part(unit_id, '/', 1) AS model_name)
  AND u.component = TRY_CAST(split_part(unit_id, '/', 2) AS component_name)
  AND u.layer = TRY_CAST(split_part(unit_id, '/', 3) AS SMALLINT)
  AND u.unit = TRY_CAST(split_part(unit_id, '/', 4) AS INTEGER);

COMMENT ON MACRO TABLE unit_profile IS 'The row of unit_profiles of one unit: what similar_units, units_with_shared_texts and coactive_units start from. Empty for a unit that is unknown, never active or per token pair.';
