-- One row is: a unit that is active on some token
-- From: index_rows
CREATE TABLE IF NOT EXISTS unit_selectivity (
  model model_name,
  component component_name,
  layer SMALLINT,
  unit INTEGER,
  n_tokens INTEGER,
  entropy DOUBLE,
  top_token VARCHAR,
  top_token_share DOUBLE,
  top_token_n INTEGER,
  top_token_n_active INTEGER,
  profile HUGEINT
);

COMMENT ON TABLE unit_selectivity IS 'How a unit''s positive activation is spread over tokens, over its records of all sections; units shows it. Datasets per token.';
