-- One row is: a part whose explanations or embeddings can be searched
-- From: the commits of the lake
CREATE TABLE IF NOT EXISTS explanation_parts (
  part VARCHAR,
  commit_mark VARCHAR,
  part_number INTEGER,
  run INTEGER
);

COMMENT ON TABLE explanation_parts IS 'The parts and batches whose explanations and embeddings the tables of search hold, each with the version that they are of.';
