-- One row is: a record
-- From: records
CREATE MACRO unit_records(unit_id, section := NULL) AS TABLE
SELECT
  r.model,
  r.component,
  r.layer,
  r.unit,
  r.unit_id,
  r.section,
  r.quantile,
  r.rank,
  r.tokens,
  r.activations,
  r.max_activation,
  r.argmax
FROM range(
  CASE
    WHEN section NOT IN ('top', 'random', 'quantile') THEN error('section must be top, random or quantile')
    WHEN regexp_full_match(unit_id, '[^/]+/[^/]+/[0-9]+/[0-9]+') THEN 1
    ELSE error('unit_id must be model/component/layer/unit')
  END
) AS checked
CROSS JOIN records AS r
WHERE r.model = split_part(unit_id, '/', 1)
  AND r.component = split_part(unit_id, '/', 2)
  AND r.layer = TRY_CAST(split_part(unit_id, '/', 3) AS INTEGER)
  AND r.unit = TRY_CAST(split_part(unit_id, '/', 4) AS INTEGER)
  AND (section IS NULL OR r.section = section)
ORDER BY
  list_position(['top', 'random', 'quantile'], r.section),
  r.quantile,
  r.rank;

COMMENT ON MACRO TABLE unit_records IS 'The records of a unit in the order of its file: top, random, quantile buckets; NULL for all sections.';
