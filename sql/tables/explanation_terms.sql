-- One row is: a term in an explanation
-- From: explanation_texts, explanation_vocabulary
CREATE TABLE IF NOT EXISTS explanation_terms (
  term_number INTEGER,
  explanation_number INTEGER,
  n_in_text INTEGER,
  n_words INTEGER
);

COMMENT ON TABLE explanation_terms IS 'Which explanations have a term, sorted by term in a few runs; read it through search_explanations.';
