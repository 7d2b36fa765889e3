-- One row is: a record in a bucket that its unit does not have
-- From: records, units
-- Holds: records of section quantile lie in one of the unit's n_buckets, and no others in any
SELECT
  model,
  component,
  layer,
  unit,
  records.section,
  records.quantile,
  records.rank,
  units.n_buckets
FROM records
LEFT JOIN units USING (model, component, layer, unit)
WHERE CASE records.section
  WHEN 'quantile' THEN (records.quantile BETWEEN 0 AND units.n_buckets - 1) IS NOT TRUE
  ELSE records.quantile IS NOT NULL
END;
