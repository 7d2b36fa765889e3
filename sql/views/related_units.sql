-- One row is: a unit that is related to a unit
-- From: the committed parts of related_units
CREATE VIEW related_units AS
SELECT
  p.model,
  p.about AS component,
  p.layer,
  p.unit,
  concat_ws('/', p.model, p.about, p.layer, p.unit) AS unit_id,
  p.direction,
  p.sign,
  p.rank,
  p.related_layer,
  p.related_unit,
  p.weight,
  concat_ws('/', p.model, p.about, p.related_layer, p.related_unit) AS related_unit_id,
  concat_ws('/', p.model, p.component) AS dataset
FROM $parts AS p;

COMMENT ON VIEW related_units IS 'The units with the largest positive and negative weights from or to a unit, strongest first. A unit of the first layer has none upstream, one of the last none downstream.';
