-- One row is: a unit
-- From: the committed parts of units, unit_selectivity
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
  p.n_quantile,
  s.n_tokens,
  s.entropy,
  s.top_token,
  s.top_token_share
FROM $parts AS p
LEFT JOIN unit_selectivity AS s
  ON s.model = p.model AND s.component = p.component AND s.layer = p.layer AND s.unit = p.unit;

COMMENT ON VIEW units IS 'Every neuron, head or latent whose file was read, with the figures that its file gives, the size of its records, and how its positive activation is spread over tokens (datasets per token).';
