-- One row is: this catalogue
-- From: the lake it was built for
CREATE TABLE catalogue AS
SELECT
  root,
  definitions,
  commits,
  built_at
FROM origin;

COMMENT ON TABLE catalogue IS 'Which lake this file is the catalogue of, in one row. It can be built again from the lake at any time.';
