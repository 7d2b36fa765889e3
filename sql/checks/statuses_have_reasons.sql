-- One row is: a file without what its status needs
-- From: files
-- Holds: ok files have a size and a SHA-256, rejected and failed ones an error, and there is no other status than these and absent
SELECT
  model,
  component,
  layer,
  unit,
  status,
  bytes,
  sha256,
  error
FROM files
WHERE CASE status
  WHEN 'ok' THEN bytes IS NULL OR sha256 IS NULL
  WHEN 'rejected' THEN coalesce(error, '') = ''
  WHEN 'failed' THEN coalesce(error, '') = ''
  ELSE status IS DISTINCT FROM 'absent'
END;
