-- One row is: a source file
-- From: the committed parts of files
CREATE VIEW files AS
SELECT
  p.model,
  p.component,
  p.layer,
  p.unit,
  concat_ws('/', p.model, p.component, p.layer, p.unit) AS unit_id,
  p.status,
  p.uri,
  p.format,
  p.bytes,
  p.sha256,
  p.etag,
  p.error,
  p.fetched_at
FROM $parts AS p;

COMMENT ON VIEW files IS 'Every file that a build has asked the source for, whether it was there and readable or not.';
