-- One row is: a unit that is never active
-- From: units, unit_selectivity, pair_stats, datasets
CREATE VIEW dead_units AS
SELECT
  u.model,
  u.component,
  u.layer,
  u.unit,
  u.unit_id,
  CASE WHEN u.n_top + u.n_random + u.n_quantile = 0 THEN 'no records' ELSE 'never active' END AS why
FROM units AS u
WHERE u.n_tokens IS NULL
  AND (u.model, u.component, u.layer, u.unit) NOT IN (
    SELECT
      p.model,
      p.component,
      p.layer,
      p.unit
    FROM pair_stats AS p
    WHERE p.max_activation <> 0 OR p.min_activation <> 0
  );

COMMENT ON VIEW dead_units IS 'Units without any record, and those whose every activation is 0 or less (of a dataset per token pair, 0: those are signed).';
