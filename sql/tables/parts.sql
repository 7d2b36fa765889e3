-- One row is: a Parquet part
-- From: the commits of the lake
CREATE TABLE parts AS
SELECT
  table_name,
  path
FROM committed
ORDER BY
  table_name,
  path;

COMMENT ON TABLE parts IS 'The Parquet files that the views read: those that were committed when the catalogue was built.';
