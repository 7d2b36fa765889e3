-- One row is: a record and the split that holds it
-- From: unit_records, units
CREATE MACRO splits(unit_id, n := NULL) AS TABLE
WITH counted AS (
  SELECT
    u.n_top,
    u.n_random
  FROM range(
    CASE
      WHEN n < 1 THEN error('n must be at least 1')
      WHEN regexp_full_match(unit_id, '[^/]+/[^/]+/[0-9]+/[0-9]+') THEN 1
      ELSE error('unit_id must be model/component/layer/unit')
    END
  ) AS checked
  CROSS JOIN units AS u
  WHERE u.model = split_part(unit_id, '/', 1)
    AND u.component = split_part(unit_id, '/', 2)
    AND u.layer = TRY_CAST(split_part(unit_id, '/', 3) AS INTEGER)
    AND u.unit = TRY_CAST(split_part(unit_id, '/', 4) AS INTEGER)
),
each_split AS MATERIALIZED (
  SELECT
    CASE
      WHEN c.n_top < 4 * coalesce(n, 1) OR c.n_random < 3 * coalesce(n, 1) THEN error(format(
        '{} needs {} top records and {} random ones for its splits, has {} and {}',
        unit_id, 4 * coalesce(n, 1), 3 * coalesce(n, 1), c.n_top, c.n_random
      ))
      ELSE CAST(coalesce(n, c.n_top // 4) AS INTEGER)
    END AS n_top,
    CAST(coalesce(n, c.n_random // 3) AS INTEGER) AS n_random
  FROM counted AS c
)
SELECT
  CASE r.section
    WHEN 'top' THEN ['train', 'calibration', 'valid', 'test'][r.rank % 4 + 1]
    ELSE ['calibration', 'valid', 'test'][r.rank % 3 + 1]
  END AS split,
  r.model,
  r.component,
  r.layer,
  r.unit,
  r.unit_id,
  r.section,
  r.rank,
  r.tokens,
  r.activations,
  r.max_activation,
  r.argmax
FROM each_split AS s
INNER JOIN unit_records(unit_id) AS r
  ON (r.section = 'top' AND r.rank < 4 * s.n_top) OR (r.section = 'random' AND r.rank < 3 * s.n_random)
ORDER BY
  list_position(['train', 'calibration', 'valid', 'test'], split),
  list_position(['top', 'random'], r.section),
  r.rank;

COMMENT ON MACRO TABLE splits IS 'The records of a unit in the splits of OpenAI''s explanation method: of every four top records, in order, the first is for train, then calibration, valid and test; of every three random ones, calibration, valid and test. n records from each list for a split, or as many as there are (NULL): a remainder of the list is then in no split. Too few records for even one each, or for n, are an error that says how many there are; a unit that is not in the lake has no rows.';
