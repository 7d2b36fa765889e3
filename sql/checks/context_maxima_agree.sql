-- One row is: a token of a text whose strongest activation is not that of the text's records
-- From: context_texts, context_records
-- Holds: of each token of a text, contexts know the strongest activation of all records
WITH known AS (
  SELECT
    text_key,
    unnest(max_activations) AS known_activation,
    generate_subscripts(max_activations, 1) - 1 AS position
  FROM context_texts
),
stored AS (
  SELECT
    text_key,
    position,
    max(activation) AS stored_activation
  FROM (
    SELECT
      text_key,
      unnest(active_positions) AS position,
      unnest(active_values) AS activation
    FROM context_records
  )
  GROUP BY
    text_key,
    position
)
SELECT
  text_key,
  position,
  k.known_activation,
  coalesce(s.stored_activation, 0) AS stored_activation
FROM known AS k
FULL JOIN stored AS s USING (text_key, position)
WHERE k.known_activation IS DISTINCT FROM coalesce(s.stored_activation, 0);
