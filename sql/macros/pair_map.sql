-- One row is: a query position and a key position
-- From: unit_pairs
CREATE MACRO pair_map(unit_id, section := NULL) AS TABLE
SELECT
  p.query_position,
  p.key_position,
  count(*) AS n,
  avg(CAST(p.activation AS DOUBLE)) AS mean_activation,
  max(p.activation) AS max_activation,
  min(p.activation) AS min_activation
FROM unit_pairs(unit_id, section := section) AS p
GROUP BY
  p.query_position,
  p.key_position
ORDER BY
  p.query_position,
  p.key_position;

COMMENT ON MACRO TABLE pair_map IS 'A unit''s activation (per token pair) by the positions of query and key, over its records of one section (NULL for all): what a picture of its attention shows.';
