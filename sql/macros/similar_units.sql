-- One row is: a unit, most similar first
-- From: unit_profile, unit_profiles, profile_rows, vocabulary
CREATE MACRO similar_units(unit_id, k := 20, model := NULL, component := NULL, layer := NULL) AS TABLE
WITH asked AS MATERIALIZED (
  SELECT
    u.unit_number,
    unnest(u.token_numbers) AS token_number,
    unnest(u.weights) AS weight
  FROM unit_profile(unit_id) AS u
),
scored AS (
  SELECT
    p.unit_number,
    round(sum(CAST(a.weight AS DOUBLE) * p.weight), 6) AS score,
    count(*) AS n_shared_tokens
  FROM profile_rows AS p
  INNER JOIN asked AS a
    ON a.token_number = p.token_number AND a.unit_number <> p.unit_number
  GROUP BY p.unit_number
),
best AS MATERIALIZED (
  SELECT
    u.unit_number,
    u.model,
    u.component,
    u.layer,
    u.unit,
    s.score,
    s.n_shared_tokens
  FROM scored AS s
  INNER JOIN unit_profiles AS u USING (unit_number)
  WHERE (model IS NULL OR u.model = model)
    AND (component IS NULL OR u.component = component)
    AND (layer IS NULL OR u.layer = layer)
  ORDER BY
    s.score DESC,
    u.model,
    u.component,
    u.layer,
    u.unit
  LIMIT k
),
shared AS (
  SELECT
    t.unit_number,
    list(v.token ORDER BY CAST(a.weight AS DOUBLE) * t.weight DESC, v.token)[:5] AS shared_tokens
  FROM (
    SELECT
      b.unit_number,
      unnest(u.token_numbers) AS token_number,
      unnest(u.weights) AS weight
    FROM best AS b
    INNER JOIN unit_profiles AS u USING (unit_number)
  ) AS t
  INNER JOIN asked AS a USING (token_number)
  INNER JOIN vocabulary AS v USING (token_number)
  GROUP BY t.unit_number
)
SELECT
  row_number() OVER (ORDER BY b.score DESC, b.model, b.component, b.layer, b.unit) - 1 AS rank,
  CAST(b.model AS VARCHAR) AS model,
  CAST(b.component AS VARCHAR) AS component,
  CAST(b.layer AS INTEGER) AS layer,
  b.unit,
  concat_ws('/', b.model, b.component, b.layer, b.unit) AS unit_id,
  b.score,
  b.n_shared_tokens,
  s.shared_tokens
FROM best AS b
INNER JOIN shared AS s USING (unit_number)
ORDER BY rank;

COMMENT ON MACRO TABLE similar_units IS 'The k units, of any component, whose token profiles resemble a unit''s most, ranked from 0 by the cosine of the two: 1 for the same tokens in the same proportions, whatever the scale; units that share no token of the 32 strongest are left out. It depends on the two units alone. Profiles are counted from the records of all sections, so texts that were chosen for one unit and not for the other lower it. Empty for a unit that is unknown, never active or per token pair.';
