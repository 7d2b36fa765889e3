-- One row is: a text of a unit's records
-- From: unit_profiles
CREATE TABLE IF NOT EXISTS unit_texts (
  text_hash UBIGINT,
  unit_number INTEGER,
  is_top BOOLEAN,
  fired_positions USMALLINT[]
);

COMMENT ON TABLE unit_texts IS 'Which texts each unit has records of, by a hash of the tokens, and where it fires in them: at a tenth of its largest activation or more, which explanation prompts show as 1 of 10. Sorted by text in a few runs. A text that several records of a unit have stands there once. Units that are in unit_profiles.';
