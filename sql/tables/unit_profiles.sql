-- One row is: a unit with its token profile
-- From: index_rows
CREATE TABLE IF NOT EXISTS unit_profiles (
  unit_number INTEGER,
  model model_name,
  component component_name,
  layer SMALLINT,
  unit INTEGER,
  token_numbers INTEGER[],
  weights FLOAT[]
);

COMMENT ON TABLE unit_profiles IS 'The 32 tokens that each unit responds to most, strongest first. A token''s weight is the mean of its positive activations over n + 3 occurrences, as if it had been met three times more without effect: what was met once counts a quarter, what was met often its mean. Weights are divided by the root of the sum of their squares, so that the product of two profiles is their cosine. Datasets per token.';
