"""Token profiles and texts of units: which units resemble one another, and which fire together.

Both follow the token index, shard by shard and run by run. A unit's profile is made of its own rows of token_stats
alone: no figure of another unit is in it, so that it need not be made again when units are added, and two units have
the same score in every lake that holds them.

Texts are told apart by 64 bits of their MD5, since DuckDB's own hash may be another in its next version.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import duckdb
import pyarrow as pa

from warehouse.index import MEMORY_LIMIT, IndexedShard, IndexPlan

TABLES = ("unit_profiles", "profile_rows", "unit_texts")
"""The tables that follow the index, and stay with it in the copy of a catalogue that is built on."""

_SHARDS_AT_ONCE = 64

_READ_PARTS = """
read_parquet(
  $parts,
  hive_partitioning = true,
  hive_types = {model: VARCHAR, component: VARCHAR, layer: INTEGER}
)
"""

_WEIGHT = "CAST(CAST(sum_positive AS DOUBLE) / (n + 3) AS FLOAT)"
# Without the 3, what a unit met once by chance would crowd out what it responds to. `benchmarks.similar` plants twins
# and counts how many of them this and other weights find.

_APPEND_PROFILES = f"""
INSERT INTO unit_profiles
SELECT
  (SELECT coalesce(max(unit_number), -1) FROM unit_profiles)
    + row_number() OVER (ORDER BY model, component, layer, unit),
  model,
  component,
  layer,
  unit,
  token_numbers,
  list_transform(weights, lambda w: w / sqrt(list_sum(list_transform(weights, lambda v: CAST(v AS DOUBLE) * v))))
FROM (
  SELECT
    s.model,
    s.component,
    s.layer,
    s.unit,
    list(v.token_number ORDER BY s.weight DESC, s.token)[:32] AS token_numbers,
    list(s.weight ORDER BY s.weight DESC, s.token)[:32] AS weights
  FROM (
    SELECT
      r.model,
      r.component,
      r.layer,
      r.unit,
      r.token,
      {_WEIGHT} AS weight
    FROM {_READ_PARTS} AS r
    INNER JOIN (
      SELECT
        model,
        component,
        layer,
        unit,
        list_min(max({_WEIGHT}, 32)) AS weakest
      FROM {_READ_PARTS}
      GROUP BY ALL
    ) AS kept USING (model, component, layer, unit)
    WHERE {_WEIGHT} >= kept.weakest
  ) AS s
  INNER JOIN vocabulary AS v USING (token)
  GROUP BY
    s.model,
    s.component,
    s.layer,
    s.unit
)
"""
# The weakest weight of each unit first, from numbers alone: sorting every token of every unit takes four times as long.

_APPEND_ROWS = """
INSERT INTO profile_rows
SELECT
  unnest(token_numbers) AS token_number,
  unit_number,
  unnest(weights) AS weight
FROM unit_profiles
WHERE unit_number > $last
ORDER BY
  token_number,
  unit_number
"""

_APPEND_TEXTS = f"""
INSERT INTO unit_texts
SELECT
  md5_number_lower(len(r.tokens) || ' ' || array_to_string(r.tokens, chr(0))) AS text_hash,
  u.unit_number,
  bool_or(r.section = 'top'),
  list_sort(list_distinct(flatten(list(
    list_filter(
      range(len(r.activations)),
      lambda i: r.activations[i + 1] > 0 AND 10 * CAST(r.activations[i + 1] AS DOUBLE) >= u.largest
    )
  ))))
FROM {_READ_PARTS} AS r
INNER JOIN (
  SELECT
    model,
    component,
    layer,
    unit,
    any_value(p.unit_number) AS unit_number,
    max(r.max_activation) AS largest
  FROM {_READ_PARTS} AS r
  INNER JOIN unit_profiles AS p USING (model, component, layer, unit)
  GROUP BY ALL
) AS u USING (model, component, layer, unit)
GROUP BY
  text_hash,
  u.unit_number
ORDER BY
  text_hash,
  u.unit_number
"""

_STALE_UNITS = """
SELECT u.unit_number
FROM unit_profiles AS u
INNER JOIN stale_shards AS s
  ON s.model = u.model AND s.component = u.component AND s.layer = u.layer
  AND u.unit BETWEEN s.first_unit AND s.last_unit
"""


def update_profiles(connection: duckdb.DuckDBPyConnection, plan: IndexPlan) -> None:
    """Bring the profiles and texts of a database to what is wanted, after its index was.

    Args:
        connection: to the catalogue that is being built, with the tables that the plan was made for or empty ones.
        plan: what `index.update_index` has just done.

    Raises:
        duckdb.Error: a part cannot be read, or the disk is full.
    """
    ((limit,),) = connection.execute("SELECT current_setting('memory_limit')").fetchall()
    connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
    if plan.stale:
        _drop_shards(connection, plan.stale)
    ((last,),) = connection.execute("SELECT coalesce(max(unit_number), -1) FROM unit_profiles").fetchall()
    for first in range(0, len(plan.new), _SHARDS_AT_ONCE):
        shards = plan.new[first : first + _SHARDS_AT_ONCE]
        connection.execute(_APPEND_PROFILES, {"parts": _list_parts(connection, "token_stats", shards)})
        if records := _list_parts(connection, "records", shards):
            connection.execute(_APPEND_TEXTS, {"parts": records})
    connection.execute(_APPEND_ROWS, {"last": last})
    connection.execute(f"SET memory_limit = '{limit}'")


def _drop_shards(connection: duckdb.DuckDBPyConnection, shards: Sequence[IndexedShard]) -> None:
    rows = [(s.shard.model, s.shard.component, s.shard.layer, s.shard.first, s.shard.last) for s in shards]
    names = ("model", "component", "layer", "first_unit", "last_unit")
    connection.register("stale_shards", pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))))
    connection.execute(f"CREATE TEMP TABLE stale_units AS {_STALE_UNITS}")
    for table in TABLES:
        connection.execute(f"DELETE FROM {table} WHERE unit_number IN (SELECT unit_number FROM stale_units)")
    connection.execute("DROP TABLE stale_units")
    connection.unregister("stale_shards")


def _list_parts(connection: duckdb.DuckDBPyConnection, table: str, shards: Sequence[IndexedShard]) -> list[str]:
    """Give the paths of a table's parts for some shards, each as the pattern that matches it alone."""
    paths = connection.execute("SELECT path FROM parts WHERE table_name = $table", {"table": table}).fetchall()
    wanted = {s.shard.part_name for s in shards}
    here = (path for (path,) in paths if path.rpartition(f"/{table}/")[2] in wanted)
    return sorted(re.sub(r"[*?[]", r"[\g<0>]", path) for path in here)
