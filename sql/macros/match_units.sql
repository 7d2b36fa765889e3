-- One row is: a unit of component_a with its best match in component_b
-- From: component_profiles
CREATE MACRO match_units(
  component_a,
  component_b,
  model := NULL,
  layer := NULL,
  model_a := NULL,
  model_b := NULL,
  layer_a := NULL,
  layer_b := NULL
) AS TABLE
WITH units_a AS MATERIALIZED (
  FROM component_profiles(component_a, model := coalesce(model_a, model), layer := coalesce(layer_a, layer))
),
units_b AS MATERIALIZED (
  FROM component_profiles(component_b, model := coalesce(model_b, model), layer := coalesce(layer_b, layer))
),
nominated AS MATERIALIZED (
  SELECT
    a.a,
    b.b,
    CAST(round(sum(CAST(a.weight AS DOUBLE) * b.weight), 6) AS FLOAT) AS likeness
  FROM (
    SELECT
      u.place AS a,
      u.unit_number,
      unnest(u.token_numbers[:8]) AS token_number,
      unnest(u.weights[:8]) AS weight
    FROM units_a AS u
  ) AS a
  INNER JOIN (
    SELECT
      u.place AS b,
      u.unit_number,
      unnest(u.token_numbers[:8]) AS token_number,
      unnest(u.weights[:8]) AS weight
    FROM units_b AS u
  ) AS b
    ON b.token_number = a.token_number AND b.unit_number <> a.unit_number
  GROUP BY
    a.a,
    b.b
),
candidates AS (
  SELECT
    n.a,
    unnest(arg_max(n.b, {'likeness': n.likeness, 'order': -n.b}, 4)) AS b
  FROM nominated AS n
  GROUP BY n.a
  UNION
  SELECT
    unnest(arg_max(n.a, {'likeness': n.likeness, 'order': -n.a}, 4)) AS a,
    n.b
  FROM nominated AS n
  GROUP BY n.b
),
weighed AS MATERIALIZED (
  SELECT
    c.a,
    c.b,
    unnest(u.token_numbers) AS token_number,
    unnest(u.weights) AS weight
  FROM candidates AS c
  INNER JOIN units_a AS u ON u.place = c.a
),
scored AS MATERIALIZED (
  SELECT
    w.a,
    w.b,
    round(sum(CAST(w.weight AS DOUBLE) * t.weight), 6) AS score,
    count(*) AS n_shared_tokens
  FROM weighed AS w
  INNER JOIN (
    SELECT
      u.place AS b,
      unnest(u.token_numbers) AS token_number,
      unnest(u.weights) AS weight
    FROM units_b AS u
  ) AS t USING (b, token_number)
  GROUP BY
    w.a,
    w.b
),
best_of_a AS (
  SELECT DISTINCT ON (s.a)
    s.a,
    s.b,
    s.score,
    s.n_shared_tokens
  FROM scored AS s
  ORDER BY
    s.a,
    s.score DESC,
    s.b
),
best_of_b AS (
  SELECT DISTINCT ON (s.b)
    s.b,
    s.a
  FROM scored AS s
  ORDER BY
    s.b,
    s.score DESC,
    s.a
)
SELECT
  CAST(u.model AS VARCHAR) AS model,
  CAST(u.component AS VARCHAR) AS component,
  CAST(u.layer AS INTEGER) AS layer,
  u.unit,
  concat_ws('/', u.model, u.component, u.layer, u.unit) AS unit_id,
  CASE WHEN m.place IS NOT NULL THEN concat_ws('/', m.model, m.component, m.layer, m.unit) END AS match_unit_id,
  f.score,
  f.n_shared_tokens,
  CASE WHEN m.place IS NOT NULL THEN r.a IS NOT NULL END AS is_mutual
FROM units_a AS u
LEFT JOIN best_of_a AS f ON f.a = u.place
LEFT JOIN units_b AS m ON m.place = f.b
LEFT JOIN best_of_b AS r ON r.b = f.b AND r.a = f.a
ORDER BY u.place;

COMMENT ON MACRO TABLE match_units IS 'Every unit of component_a with the unit of component_b that resembles it most by the score of similar_units, and whether that one''s best match is it. To spare most of the work only a few pairs are scored: those that share one of the 8 strongest tokens of both, and of these the 4 of each unit that resemble it most by those 8. So the best is missed at times, mostly where nothing resembles the unit much, and NULL says that no unit shares such a token. A unit is no match of itself, so a component with itself gives near duplicates. model and layer are of both sides, where model_a, layer_a, model_b or layer_b do not name one side''s own. Equal scores go to the first in order of model, layer and unit.';
