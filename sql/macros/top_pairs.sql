-- One row is: a pair of tokens, strongest first
-- From: pair_stats
CREATE MACRO top_pairs(unit_id, k := 20) AS TABLE
SELECT
  row_number() OVER (
    ORDER BY greatest(s.max_activation, -s.min_activation) DESC, s.query_token, s.key_token
  ) - 1 AS rank,
  s.query_token,
  s.key_token,
  s.n,
  s.n_active,
  s.max_activation,
  s.min_activation,
  s.sum_activation,
  s.n_random,
  s.sum_random,
  s.sum_positive
FROM range(
  CASE
    WHEN regexp_full_match(unit_id, '[^/]+/[^/]+/[0-9]+/[0-9]+') THEN 1
    ELSE error('unit_id must be model/component/layer/unit')
  END
) AS checked
CROSS JOIN pair_stats AS s
WHERE s.model = split_part(unit_id, '/', 1)
  AND s.component = split_part(unit_id, '/', 2)
  AND s.layer = TRY_CAST(split_part(unit_id, '/', 3) AS INTEGER)
  AND s.unit = TRY_CAST(split_part(unit_id, '/', 4) AS INTEGER)
ORDER BY rank
LIMIT k;

COMMENT ON MACRO TABLE top_pairs IS 'The k pairs of query and key token that a unit (per token pair) responds to most, ranked from 0 by the largest absolute activation: attributions are signed.';
