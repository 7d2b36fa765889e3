-- One row is: a unit that is active somewhere, and nowhere in its random sample
-- From: units, dead_units
CREATE VIEW near_dead_units AS
SELECT
  u.model,
  u.component,
  u.layer,
  u.unit,
  u.unit_id,
  u.max_activation,
  u.n_random
FROM units AS u
ANTI JOIN dead_units AS d USING (model, component, layer, unit)
WHERE u.active_fraction = 0;

COMMENT ON VIEW near_dead_units IS 'Units that are active in some record but in none of their random sample, the unbiased part: rarer than one in its n_random records can show. Units without a random sample are not among them.';
