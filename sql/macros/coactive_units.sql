-- One row is: a unit, most often active with the other first
-- From: unit_profile, unit_profiles, unit_texts
CREATE MACRO coactive_units(
  unit_id, k := 20, model := NULL, component := NULL, layer := NULL, "by" := 'count'
) AS TABLE
WITH asked AS MATERIALIZED (
  SELECT
    t.unit_number,
    t.text_hash,
    t.fired_positions
  FROM unit_profile(unit_id) AS u
  INNER JOIN unit_texts AS t USING (unit_number)
),
met AS (
  SELECT
    t.unit_number,
    len(list_intersect(a.fired_positions, t.fired_positions)) AS n_shared,
    len(a.fired_positions) + len(t.fired_positions) AS n_fired
  FROM unit_texts AS t
  INNER JOIN asked AS a
    ON a.text_hash = t.text_hash AND a.unit_number <> t.unit_number
),
counted AS (
  SELECT
    m.unit_number,
    CAST(sum(m.n_shared) AS BIGINT) AS n_shared_positions,
    sum(m.n_shared) / sum(m.n_fired - m.n_shared) AS share_of_positions,
    count(*) FILTER (WHERE m.n_shared > 0) AS n_coactive_texts,
    count(*) AS n_shared_texts
  FROM met AS m
  GROUP BY m.unit_number
  HAVING sum(m.n_shared) > 0
),
ordered AS (
  SELECT
    row_number() OVER (
      ORDER BY
        CASE "by"
          WHEN 'count' THEN c.n_shared_positions
          WHEN 'share' THEN c.share_of_positions
        END DESC,
        u.model,
        u.component,
        u.layer,
        u.unit
    ) - 1 AS rank,
    u.model,
    u.component,
    u.layer,
    u.unit,
    c.n_shared_positions,
    c.share_of_positions,
    c.n_coactive_texts,
    c.n_shared_texts
  FROM range(CASE WHEN "by" IN ('count', 'share') THEN 1 ELSE error('by must be count or share') END) AS checked
  CROSS JOIN counted AS c
  INNER JOIN unit_profiles AS u USING (unit_number)
  WHERE (model IS NULL OR u.model = model)
    AND (component IS NULL OR u.component = component)
    AND (layer IS NULL OR u.layer = layer)
)
SELECT
  o.rank,
  CAST(o.model AS VARCHAR) AS model,
  CAST(o.component AS VARCHAR) AS component,
  CAST(o.layer AS INTEGER) AS layer,
  o.unit,
  concat_ws('/', o.model, o.component, o.layer, o.unit) AS unit_id,
  o.n_shared_positions,
  o.share_of_positions,
  o.n_coactive_texts,
  o.n_shared_texts
FROM ordered AS o
ORDER BY o.rank
LIMIT k;

COMMENT ON MACRO TABLE coactive_units IS 'The k units that fire most often where a unit does: on the same text at the same position, each at a tenth of its largest activation or more; ordered by count of such positions, or by share, their part of the positions of the shared texts where either fires. Only texts that both units have records of can be compared, and top records are texts chosen for firing: the figures say where units were seen together, not how often they fire together in any text. Empty for a unit that is unknown, never active or per token pair.';
