-- One row is: the embedding of an explanation's text
-- From: explanation_parts
CREATE TABLE IF NOT EXISTS explanation_vectors (
  explanation_hash UBIGINT,
  part_number INTEGER,
  embedding FLOAT[384]
);

COMMENT ON TABLE explanation_vectors IS 'The embeddings that warehouse explain embed made, one for each distinct text.';
