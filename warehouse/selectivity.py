"""How a unit's positive activation is spread over tokens: one row a unit, counted when a catalogue is built.

A build counts the units of new shards alone, as the plan of the token index says (`index.plan_index`), and keeps the
rows of the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from warehouse.index import IndexedShard, IndexPlan

TABLES = ("unit_selectivity",)
"""The tables of a catalogue that are taken over by the next one."""

_DELETE = """
DELETE FROM unit_selectivity AS r
USING selectivity_shards AS s
WHERE r.model = s.model AND r.component = s.component AND r.layer = s.layer
  AND r.unit BETWEEN s.first_unit AND s.last_unit
"""

_APPEND = """
INSERT INTO unit_selectivity
SELECT
  model,
  component,
  layer,
  unit,
  count(*),
  -- Of parts p = s / total, the sum of -p log2(p), in one pass; 0 where rounding would make it negative.
  greatest(log2(sum(strength)) - sum(strength * log2(strength)) / sum(strength), 0),
  min_by(token, (-strength, token)),
  max(strength) / sum(strength),
  min_by(n, (-strength, token)),
  min_by(n_active, (-strength, token)),
  sum(CAST(hash(token, n, n_active, max_activation, sum_activation, n_random, sum_random, sum_positive) AS HUGEINT))
FROM (
  SELECT *, CAST(sum_positive AS DOUBLE) AS strength
  FROM read_parquet(
    getvariable('selectivity_parts'),
    hive_partitioning = true,
    hive_types = {model: VARCHAR, component: VARCHAR, layer: INTEGER}
  )
)
GROUP BY
  model,
  component,
  layer,
  unit
ORDER BY
  model,
  component,
  layer,
  unit
"""

_SET_PARTS = """
SET VARIABLE selectivity_parts = (
  SELECT list(regexp_replace(p.path, '[*?[]', '[\\0]', 'g') ORDER BY p.path)
  FROM parts AS p
  SEMI JOIN selectivity_shards AS s ON p.table_name = 'token_stats' AND ends_with(p.path, s.name)
)
"""


def update_selectivity(connection: duckdb.DuckDBPyConnection, plan: IndexPlan) -> None:
    """Bring the rows of `unit_selectivity` to what is wanted.

    Args:
        connection: to the catalogue that is being built, defined, with the table that the plan was made for or an
            empty one.
        plan: from `plan_index`, the same that the token index is brought up by.

    Raises:
        duckdb.Error: a part cannot be read, or the disk is full.
    """
    if plan.stale:
        _run(connection, plan.stale, _DELETE)
    if plan.new:
        _run(connection, plan.new, _SET_PARTS, _APPEND, "RESET VARIABLE selectivity_parts")


def _run(connection: duckdb.DuckDBPyConnection, shards: Sequence[IndexedShard], *statements: str) -> None:
    connection.register("selectivity_shards", _shard_table(shards))
    for statement in statements:
        connection.execute(statement)
    connection.unregister("selectivity_shards")


def _shard_table(shards: Sequence[IndexedShard]) -> pa.Table:
    rows = [(s.shard.model, s.shard.component, s.shard.layer, s.shard.first, s.shard.last) for s in shards]
    names = ("model", "component", "layer", "first_unit", "last_unit")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    return pa.table(columns | {"name": [s.shard.part_name for s in shards]})
