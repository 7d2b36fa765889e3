-- One row is: a text of the lake's records
-- From: datasets
CREATE TABLE IF NOT EXISTS context_texts (
  text_key UBIGINT,
  text VARCHAR,
  token_starts INTEGER[],
  max_activations FLOAT[]
);

COMMENT ON TABLE context_texts IS 'The distinct texts in which some unit is active, of datasets per token: all units of a model share a few. Texts of the same characters that are parted into other tokens are others. max_activations has for each token the strongest activation that any unit has there (0 where none is active): contexts looks into the records of no match that cannot be among the best.';
