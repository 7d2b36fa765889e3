-- One row is: a shard that is in the token index
-- From: the commits of the lake
CREATE TABLE IF NOT EXISTS index_shards (
  model VARCHAR,
  component VARCHAR,
  layer INTEGER,
  first_unit INTEGER,
  last_unit INTEGER,
  commit_mark VARCHAR,
  run INTEGER
);

COMMENT ON TABLE index_shards IS 'The shards whose rows the token index holds, each with the commit that they are of.';
