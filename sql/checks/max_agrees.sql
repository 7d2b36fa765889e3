-- One row is: a record or a unit with another largest activation than its activations
-- From: records, units
-- Holds: max_activation is the largest activation (of a unit, over its top records), and argmax its first place
WITH tops AS (
  SELECT
    model,
    component,
    layer,
    unit,
    max(list_max(activations)) AS largest
  FROM records
  WHERE section = 'top'
  GROUP BY ALL
)
SELECT
  model,
  component,
  layer,
  unit,
  section,
  quantile,
  rank,
  max_activation,
  list_max(activations) AS largest,
  argmax
FROM records
WHERE max_activation IS DISTINCT FROM list_max(activations)
  OR argmax + 1 IS DISTINCT FROM nullif(list_position(activations, list_max(activations)), 0)
UNION ALL
SELECT
  model,
  component,
  layer,
  unit,
  NULL AS section,
  NULL AS quantile,
  NULL AS rank,
  max_activation,
  largest,
  NULL AS argmax
FROM units
LEFT JOIN tops USING (model, component, layer, unit)
WHERE max_activation IS DISTINCT FROM largest;
