-- One row is: a query position and a key position
-- From: pair_activations
CREATE MACRO pair_map(unit_id, section := NULL) AS TABLE
SELECT
  a.query_position,
  a.key_position,
  count(*) AS n,
  avg(CAST(a.activation AS DOUBLE)) AS mean_activation,
  max(a.activation) AS max_activation,
  min(a.activation) AS min_activation
FROM range(
  CASE
    WHEN section NOT IN ('top', 'random', 'quantile') THEN error('section must be top, random or quantile')
    WHEN regexp_full_match(unit_id, '[^/]+/[^/]+/[0-9]+/[0-9]+') THEN 1
    ELSE error('unit_id must be model/component/layer/unit')
  END
) AS checked
CROSS JOIN pair_activations AS a
WHERE a.model = split_part(unit_id, '/', 1)
  AND a.component = split_part(unit_id, '/', 2)
  AND a.layer = TRY_CAST(split_part(unit_id, '/', 3) AS INTEGER)
  AND a.unit = TRY_CAST(split_part(unit_id, '/', 4) AS INTEGER)
  AND (section IS NULL OR a.section = section)
GROUP BY
  a.query_position,
  a.key_position
ORDER BY
  a.query_position,
  a.key_position;

COMMENT ON MACRO TABLE pair_map IS 'A unit''s activation (per token pair) by the positions of query and key, over its records of one section (NULL for all): what a picture of its attention shows.';
