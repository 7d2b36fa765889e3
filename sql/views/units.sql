-- One row is: a unit
-- From: the committed parts of units
CREATE VIEW units AS
SELECT
  p.model,
  p.component,
  p.layer,
  p.unit,
  concat_ws('/', p.model, p.component, p.layer, p.unit) AS unit_id,
  p.mean,
  p.variance,
  p.skewness,
  p.kurtosis,
  p.quantile_boundaries,
  p.n_buckets,
  p.max_activation,
  p.active_fraction,
  p.n_top,
  p.n_random,
  p.n_quantile
FROM $parts AS p;

COMMENT ON VIEW units IS 'Every neuron, head or latent whose file was read, with the figures that its file gives and the size of its records.';
