-- One row is: a token of a unit, as the index stores it
-- From: datasets
CREATE TYPE IF NOT EXISTS model_name AS ENUM (SELECT DISTINCT model FROM datasets ORDER BY model);

CREATE TYPE IF NOT EXISTS component_name AS ENUM (SELECT DISTINCT component FROM datasets ORDER BY component);

CREATE TABLE IF NOT EXISTS index_rows (
  token_number INTEGER,
  model model_name,
  component component_name,
  layer SMALLINT,
  unit INTEGER,
  max_activation FLOAT,
  n INTEGER,
  n_active INTEGER,
  n_random INTEGER,
  sum_positive FLOAT,
  sum_activation FLOAT,
  sum_random FLOAT
);

COMMENT ON TABLE index_rows IS 'The token index in its stored form, sorted by token and strength in a few runs; read it through token_index. A figure that follows from another is NULL: sum_positive that is max_activation, sum_activation that is sum_positive, sum_random that is sum_activation (or 0 without n_random).';
