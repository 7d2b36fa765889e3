-- One row is: a token, best first
-- From: token_stats
CREATE MACRO top_tokens(unit_id, k := 20) AS TABLE
SELECT
  row_number() OVER (ORDER BY s.max_activation DESC, s.token) - 1 AS rank,
  s.token,
  s.n,
  s.n_active,
  s.max_activation,
  s.sum_activation,
  s.n_random,
  s.sum_random,
  s.sum_positive,
  CAST(s.sum_random AS DOUBLE) / nullif(s.n_random, 0) AS random_mean,
  s.sum_positive / sum(CAST(s.sum_positive AS DOUBLE)) OVER () AS share
FROM range(
  CASE
    WHEN regexp_full_match(unit_id, '[^/]+/[^/]+/[0-9]+/[0-9]+') THEN 1
    ELSE error('unit_id must be model/component/layer/unit')
  END
) AS checked
CROSS JOIN token_stats AS s
WHERE s.model = split_part(unit_id, '/', 1)
  AND s.component = split_part(unit_id, '/', 2)
  AND s.layer = TRY_CAST(split_part(unit_id, '/', 3) AS INTEGER)
  AND s.unit = TRY_CAST(split_part(unit_id, '/', 4) AS INTEGER)
ORDER BY rank
LIMIT k;

COMMENT ON MACRO TABLE top_tokens IS 'The k tokens that a unit (per token) responds to most, ranked from 0 by the strongest activation; equal ones stand in the order of their text. random_mean is the mean over the token''s occurrences in the random sample, which is unbiased (NULL without any); share is the token''s part of the unit''s whole positive activation.';
