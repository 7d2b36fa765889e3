-- One row is: a token of the lake
-- From: index_rows
CREATE TABLE IF NOT EXISTS vocabulary (
  token_number INTEGER,
  token VARCHAR PRIMARY KEY,
  n_occurrences BIGINT,
  n_units BIGINT,
  gpt2_id INTEGER
);

COMMENT ON TABLE vocabulary IS 'Every token on which some unit is active, of datasets per token.';
