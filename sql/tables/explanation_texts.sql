-- One row is: an explanation of a unit
-- From: explanation_parts
CREATE TABLE IF NOT EXISTS explanation_texts (
  explanation_number INTEGER,
  part_number INTEGER,
  model VARCHAR,
  component VARCHAR,
  layer SMALLINT,
  unit INTEGER,
  dataset VARCHAR,
  rank INTEGER,
  explanation VARCHAR,
  explanation_hash UBIGINT,
  n_words INTEGER,
  explainer VARCHAR,
  score DOUBLE,
  score_kind VARCHAR,
  origin VARCHAR,
  created_at TIMESTAMPTZ
);

COMMENT ON TABLE explanation_texts IS 'The rows of explanations again, numbered, for search_explanations and nearest_explanations.';
