-- One row is: a token of a unit's profile
-- From: unit_profiles
CREATE TABLE IF NOT EXISTS profile_rows (
  token_number INTEGER,
  unit_number INTEGER,
  weight FLOAT
);

COMMENT ON TABLE profile_rows IS 'The profiles of unit_profiles again, sorted by token in a few runs, to find the units that share one.';
