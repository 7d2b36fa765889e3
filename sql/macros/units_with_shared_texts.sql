-- One row is: a unit, with most shared texts first
-- From: unit_profile, unit_profiles, unit_texts
CREATE MACRO units_with_shared_texts(unit_id, k := 20, model := NULL, component := NULL, layer := NULL) AS TABLE
WITH asked AS MATERIALIZED (
  SELECT
    t.unit_number,
    t.text_hash
  FROM unit_profile(unit_id) AS u
  INNER JOIN unit_texts AS t USING (unit_number)
  WHERE t.is_top
),
counted AS (
  SELECT
    t.unit_number,
    count(*) AS n_shared_texts
  FROM unit_texts AS t
  INNER JOIN asked AS a
    ON a.text_hash = t.text_hash AND a.unit_number <> t.unit_number
  WHERE t.is_top
  GROUP BY t.unit_number
)
SELECT
  row_number() OVER (ORDER BY c.n_shared_texts DESC, u.model, u.component, u.layer, u.unit) - 1 AS rank,
  CAST(u.model AS VARCHAR) AS model,
  CAST(u.component AS VARCHAR) AS component,
  CAST(u.layer AS INTEGER) AS layer,
  u.unit,
  concat_ws('/', u.model, u.component, u.layer, u.unit) AS unit_id,
  c.n_shared_texts,
  c.n_shared_texts / (SELECT count(*) FROM asked) AS share_of_texts
FROM counted AS c
INNER JOIN unit_profiles AS u USING (unit_number)
WHERE (model IS NULL OR u.model = model)
  AND (component IS NULL OR u.component = component)
  AND (layer IS NULL OR u.layer = layer)
ORDER BY rank
LIMIT k;

COMMENT ON MACRO TABLE units_with_shared_texts IS 'The k units whose top records have most texts in common with a unit''s, wherever in them they fire; share_of_texts is of the asked unit''s top texts, each counted once. Of datasets that were sampled from different texts no units can be found. Empty for a unit that is unknown, never active or per token pair.';
