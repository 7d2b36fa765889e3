-- One row is: a match in a record inside which the record's unit is active
-- From: context_matches, context_records
CREATE MACRO context_hits(pattern, how := 'phrase', model := NULL, component := NULL, layer := NULL) AS TABLE
SELECT
  p.record,
  p.first_position,
  p.last_position,
  max(p.value) AS activation,
  arg_max(p.position, (p.value, -CAST(p.position AS INTEGER))) AS position
FROM (
  SELECT
    r.rowid AS record,
    m.first_position,
    m.last_position,
    unnest(r.active_positions) AS position,
    unnest(r.active_values) AS value
  FROM context_records AS r
  INNER JOIN context_matches(pattern, how := how) AS m USING (text_key)
  WHERE (model IS NULL OR r.model = model)
    AND (component IS NULL OR r.component = component)
    AND (layer IS NULL OR r.layer = layer)
) AS p
WHERE p.position BETWEEN p.first_position AND p.last_position
GROUP BY
  p.record,
  p.first_position,
  p.last_position;

COMMENT ON MACRO TABLE context_hits IS 'Every match of context_matches in every record whose unit is active (> 0) inside it, with the strongest activation there and the first place of that. record is a row number of context_records, in this catalogue alone.';
