-- One row is: a record
-- From: the committed parts of records
CREATE VIEW records AS
SELECT
  p.model,
  p.component,
  p.layer,
  p.unit,
  concat_ws('/', p.model, p.component, p.layer, p.unit) AS unit_id,
  p.section,
  p.quantile,
  p.rank,
  p.tokens,
  p.activations,
  p.max_activation,
  p.argmax
FROM $parts AS p;

COMMENT ON VIEW records IS 'Every text excerpt with its activations, as the file has it. Order is data: rank is the place in the source''s list. Filter by model, component, layer and unit, and only their parts are read.';
