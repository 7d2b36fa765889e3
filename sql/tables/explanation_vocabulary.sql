-- One row is: a term of the explanations
-- From: explanation_texts
CREATE TABLE IF NOT EXISTS explanation_vocabulary (
  term_number INTEGER,
  term VARCHAR,
  n_explanations INTEGER
);

COMMENT ON TABLE explanation_vocabulary IS 'The stems of all words of the explanations.';
