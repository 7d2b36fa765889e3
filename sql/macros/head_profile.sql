-- One row is: a distance between query and key
-- From: unit_pairs
CREATE MACRO head_profile(unit_id, section := NULL) AS TABLE
SELECT
  p.query_position - p.key_position AS distance,
  count(*) AS n,
  count(*) FILTER (WHERE p.activation > 0) AS n_active,
  avg(CAST(p.activation AS DOUBLE)) AS mean_activation,
  max(p.activation) AS max_activation,
  sum(abs(CAST(p.activation AS DOUBLE))) / sum(sum(abs(CAST(p.activation AS DOUBLE)))) OVER () AS share
FROM unit_pairs(unit_id, section := section) AS p
GROUP BY distance
ORDER BY distance;

COMMENT ON MACRO TABLE head_profile IS 'How strong a unit (per token pair) is by the distance from query back to key: 0 is the token itself, 1 the one before. Over its records of one section (NULL for all); share is the part of its whole absolute activation. Long distances have fewer pairs, which mean_activation allows for and share does not.';
