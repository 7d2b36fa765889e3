-- One row is: a dataset
-- From: the registry, built-in and of this lake
CREATE TABLE datasets AS
SELECT
  model,
  component,
  kind,
  per,
  holds,
  about,
  n_layers,
  units_per_layer,
  notes
FROM registry
ORDER BY
  model,
  component;

COMMENT ON TABLE datasets IS 'Every dataset that can be in this lake, built or not.';
