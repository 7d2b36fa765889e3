-- One row is: a unit of a component with its token profile
-- From: unit_profiles
CREATE MACRO component_profiles(component, model := NULL, layer := NULL) AS TABLE
SELECT
  row_number() OVER (ORDER BY u.model, u.layer, u.unit) AS place,
  u.unit_number,
  u.model,
  u.component,
  u.layer,
  u.unit,
  u.token_numbers,
  u.weights
FROM unit_profiles AS u
WHERE u.component = TRY_CAST(component AS component_name)
  AND (model IS NULL OR u.model = model)
  AND (layer IS NULL OR u.layer = layer);

COMMENT ON MACRO TABLE component_profiles IS 'The token profiles of one component''s units (see unit_profiles), with each one''s place in the order of model, layer and unit, from 1.';
