-- One row is: a unit that is in the token index
-- From: index_rows
CREATE TABLE IF NOT EXISTS index_units (
  model model_name,
  component component_name,
  layer SMALLINT,
  unit INTEGER,
  max_activation FLOAT,
  total_positive DOUBLE
);

COMMENT ON TABLE index_units IS 'What the scores of top_units need to know of a unit as a whole.';
