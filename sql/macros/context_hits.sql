-- One row is: a match in a record inside which the record's unit is active
-- From: context_matches, context_records
CREATE MACRO context_hits(
  pattern, how := 'phrase', k := NULL, model := NULL, component := NULL, layer := NULL
) AS TABLE
WITH matches AS MATERIALIZED (
  SELECT
    m.text_key,
    m.first_position,
    m.last_position,
    m.max_activation
  FROM context_matches(pattern, how := how) AS m
),
wanted AS NOT MATERIALIZED (
  SELECT
    r.rowid AS record,
    r.text_key,
    r.active_positions,
    r.active_values
  FROM context_records AS r
  WHERE (model IS NULL OR r.model = model)
    AND (component IS NULL OR r.component = component)
    AND (layer IS NULL OR r.layer = layer)
),
strongest AS (
  SELECT
    m.text_key,
    m.first_position,
    m.last_position
  FROM matches AS m
  ORDER BY m.max_activation DESC
  LIMIT 100
),
strong AS (
  SELECT
    list_max(list_filter(
      w.active_values, lambda value, i: w.active_positions[i] BETWEEN m.first_position AND m.last_position
    )) AS activation
  FROM strongest AS m
  INNER JOIN wanted AS w USING (text_key)
  ORDER BY activation DESC NULLS LAST
  LIMIT k
),
least AS (
  SELECT CASE WHEN count(s.activation) = k THEN min(s.activation) ELSE 0 END AS activation
  FROM strong AS s
)
SELECT
  p.record,
  p.first_position,
  p.last_position,
  max(p.value) AS activation,
  arg_max(p.position, (p.value, -CAST(p.position AS INTEGER))) AS position
FROM (
  SELECT
    w.record,
    m.first_position,
    m.last_position,
    unnest(w.active_positions) AS position,
    unnest(w.active_values) AS value
  FROM wanted AS w
  INNER JOIN matches AS m USING (text_key)
  WHERE m.max_activation >= (SELECT l.activation FROM least AS l)
) AS p
WHERE p.position BETWEEN p.first_position AND p.last_position
GROUP BY
  p.record,
  p.first_position,
  p.last_position;

COMMENT ON MACRO TABLE context_hits IS 'Every match of context_matches in every record whose unit is active (> 0) inside it, with the strongest activation there and the first place of that. With k, matches in which no unit of the lake is as active as the k-th best hit of the hundred strongest are left out, so that the k strongest hits are among the rest. record is a row number of context_records, in this catalogue alone.';
