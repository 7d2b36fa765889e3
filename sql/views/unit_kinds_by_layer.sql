-- One row is: a layer of a dataset
-- From: units, dead_units, near_dead_units, duplicate_units, one_token_units
CREATE VIEW unit_kinds_by_layer AS
WITH kinds AS (
  SELECT
    model,
    component,
    layer,
    unit,
    'dead' AS kind
  FROM dead_units
  UNION ALL
  SELECT
    model,
    component,
    layer,
    unit,
    'near_dead' AS kind
  FROM near_dead_units
  UNION ALL
  SELECT DISTINCT
    model,
    component,
    layer,
    unit,
    'duplicate' AS kind
  FROM duplicate_units
  UNION ALL
  SELECT
    model,
    component,
    layer,
    unit,
    CASE WHEN is_in_context THEN 'one_token_in_context' ELSE 'one_token' END AS kind
  FROM one_token_units
)
SELECT
  u.model,
  u.component,
  u.layer,
  count(DISTINCT u.unit) AS units,
  count(*) FILTER (WHERE k.kind = 'dead') AS dead,
  count(*) FILTER (WHERE k.kind = 'near_dead') AS near_dead,
  count(*) FILTER (WHERE k.kind = 'duplicate') AS duplicate,
  count(*) FILTER (WHERE k.kind = 'one_token') AS one_token,
  count(*) FILTER (WHERE k.kind = 'one_token_in_context') AS one_token_in_context
FROM units AS u
LEFT JOIN kinds AS k USING (model, component, layer, unit)
GROUP BY ALL;

COMMENT ON VIEW unit_kinds_by_layer IS 'How many units of each layer are in dead_units, near_dead_units, duplicate_units and one_token_units; a unit can be of several kinds.';
