-- One row is: a record in which its unit is active
-- From: index_rows, context_texts
CREATE TYPE IF NOT EXISTS section_name AS ENUM ('top', 'random', 'quantile');

CREATE TABLE IF NOT EXISTS context_records (
  text_key UBIGINT,
  model model_name,
  component component_name,
  layer SMALLINT,
  unit INTEGER,
  section section_name,
  quantile INTEGER,
  rank INTEGER,
  active_positions USMALLINT[],
  active_values FLOAT[]
);

COMMENT ON TABLE context_records IS 'The records of datasets per token by their text, each with its positive activations alone; read it through contexts. Sorted by text in a few runs.';
