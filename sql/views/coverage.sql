-- One row is: a layer of a dataset
-- From: datasets, files
CREATE VIEW coverage AS
WITH layers AS (
  SELECT
    model,
    component,
    CAST(unnest(range(n_layers)) AS INTEGER) AS layer,
    units_per_layer
  FROM datasets
),
counts AS (
  SELECT
    model,
    component,
    layer,
    count(*) FILTER (WHERE unit < units_per_layer AND status = 'ok') AS n_ok,
    count(*) FILTER (WHERE unit < units_per_layer AND status = 'absent') AS n_absent,
    count(*) FILTER (WHERE unit < units_per_layer AND status = 'rejected') AS n_rejected,
    count(*) FILTER (WHERE unit < units_per_layer AND status = 'failed') AS n_failed,
    count(*) FILTER (WHERE unit >= coalesce(units_per_layer, 0)) AS n_extra
  FROM files
  LEFT JOIN layers USING (model, component, layer)
  GROUP BY ALL
)
SELECT
  model,
  component,
  layer,
  CAST(coalesce(units_per_layer, 0) AS BIGINT) AS expected,
  coalesce(n_ok, 0) AS ok,
  coalesce(n_absent, 0) AS absent,
  coalesce(n_rejected, 0) AS rejected,
  coalesce(n_failed, 0) AS failed,
  expected - ok - absent - rejected - failed AS missing,
  coalesce(n_extra, 0) AS extra
FROM layers
FULL JOIN counts USING (model, component, layer);

COMMENT ON VIEW coverage IS 'How much of each layer is built: expected = ok + absent + rejected + failed + missing. Files outside the registered range (units past the end of a layer, layers past the last) are counted in extra alone, whatever their status.';
