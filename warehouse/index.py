"""The token index: the rows of token_stats of all datasets in one table of the catalogue, sorted by token and strength.

A build takes over the index of the catalogue before it, drops the rows of shards that are gone or were built anew, and
appends those of new ones as a further sorted run. Where that would make too many runs, all is sorted again. Sorting is
DuckDB's own, which spills to disk what its memory limit does not hold.

DuckDB compresses the rows to some 8 bytes: beside one another, strengths of one token differ little, tokens and
datasets are numbers, and sums that follow from another figure, as they do of a token that a unit met once, are NULL.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from warehouse.lake import Lake
from warehouse.parts import Shard

MAX_RUNS = 8
"""Sorted runs of an index: each costs a query a look at another place."""

MEMORY_LIMIT = "2GB"
"""What DuckDB may take while it sorts; the rest goes to disk."""

TABLES = ("index_rows", "index_units", "index_shards", "vocabulary")
"""The tables of a catalogue that are taken over by the next one."""

_SHARD_COLUMNS = ("model", "component", "layer", "first_unit", "last_unit", "commit_mark", "run")

_READ_PARTS = """
read_parquet(
  getvariable('index_parts'),
  hive_partitioning = true,
  hive_types = {model: VARCHAR, component: VARCHAR, layer: INTEGER}
)
"""

_APPEND_VOCABULARY = f"""
INSERT INTO vocabulary
SELECT
  (SELECT coalesce(max(token_number), -1) FROM vocabulary) + row_number() OVER (ORDER BY n_rows DESC, token),
  token,
  0,
  0,
  gpt2_id
FROM (SELECT token, count(*) AS n_rows FROM {_READ_PARTS} GROUP BY token)
ANTI JOIN vocabulary USING (token)
LEFT JOIN gpt2 USING (token)
ORDER BY token
"""
# Numbered by frequency, tokens with figures of one size are neighbours: 8.8 bytes a row, against 9.7 in the order of
# their text.

_APPEND_ROWS = f"""
INSERT INTO index_rows
SELECT
  v.token_number,
  s.model,
  s.component,
  s.layer,
  s.unit,
  s.max_activation,
  s.n,
  s.n_active,
  s.n_random,
  nullif(s.sum_positive, s.max_activation),
  nullif(s.sum_activation, s.sum_positive),
  nullif(s.sum_random, CASE WHEN s.n_random = 0 THEN 0 ELSE s.sum_activation END)
FROM {_READ_PARTS} AS s
INNER JOIN vocabulary AS v USING (token)
ORDER BY
  v.token_number,
  s.max_activation DESC,
  s.model,
  s.component,
  s.layer,
  s.unit
"""

_APPEND_UNITS = f"""
INSERT INTO index_units
SELECT
  t.model,
  t.component,
  t.layer,
  t.unit,
  u.max_activation,
  t.total_positive
FROM (
  SELECT
    model,
    component,
    layer,
    unit,
    sum(CAST(sum_positive AS DOUBLE)) AS total_positive
  FROM {_READ_PARTS}
  GROUP BY ALL
) AS t
LEFT JOIN units AS u USING (model, component, layer, unit)
ORDER BY ALL
"""

_DELETE_STALE = """
DELETE FROM {table} AS r
USING stale AS s
WHERE r.model = s.model AND r.component = s.component AND r.layer = s.layer
  AND r.unit BETWEEN s.first_unit AND s.last_unit
"""

_COUNT_VOCABULARY = """
CREATE TEMP TABLE counted AS
SELECT
  v.token_number,
  v.token,
  c.n_occurrences,
  c.n_units,
  v.gpt2_id
FROM vocabulary AS v
INNER JOIN (
  SELECT
    token_number,
    sum(n) AS n_occurrences,
    count(*) AS n_units
  FROM index_rows
  GROUP BY token_number
) AS c USING (token_number)
"""


@dataclass(frozen=True, slots=True)
class IndexedShard:
    """A shard that an index holds or should hold, and the mark of its commit."""

    shard: Shard
    mark: str


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """What is to be done to an index.

    Attributes:
        stale: shards whose rows are to be dropped.
        new: shards whose rows are to be appended.
        run: number of the run that they become, from 0; at 0 the index is built from nothing.
    """

    stale: tuple[IndexedShard, ...]
    new: tuple[IndexedShard, ...]
    run: int


def wanted_shards(lake: Lake) -> list[IndexedShard]:
    """Give the committed shards that have token_stats, each with the mark of its commit."""
    marks = lake.marks()
    return [IndexedShard(shard, marks[shard]) for shard in lake.shards("token_stats") if shard in marks]


def plan_index(
    connection: duckdb.DuckDBPyConnection, old: Path | None, lake: Lake, wanted: Sequence[IndexedShard]
) -> IndexPlan:
    """Compare the index of the catalogue in place with the shards that the next one should hold.

    Args:
        connection: to a database of its own, on which the old catalogue is attached for the look.
        old: the catalogue in place, made by the same SQL; None where there is none.
        lake: whose datasets the index numbers.
        wanted: the shards, each with its commit's mark.

    Returns:
        The least work, or everything anew where the index cannot be added to.
    """
    from_nothing = IndexPlan((), tuple(wanted), 0)
    if old is None:
        return from_nothing
    try:
        connection.execute(f"ATTACH '{str(old).replace(chr(39), chr(39) * 2)}' AS before (READ_ONLY)")
        numbered = connection.execute("SELECT model || '/' || component FROM before.datasets").fetchall()
        rows = connection.execute(f"SELECT {', '.join(_SHARD_COLUMNS)} FROM before.index_shards").fetchall()
    except duckdb.Error:  # of an earlier version, or damaged
        return from_nothing
    present = {IndexedShard(Shard(*row[:5]), row[5]): row[6] for row in rows}
    stale = tuple(present.keys() - set(wanted))
    new = tuple(shard for shard in wanted if shard not in present)
    n_runs = max(present.values(), default=-1) + 1
    is_worth_keeping = len(stale) + len(new) <= len(present) and n_runs + bool(new) <= MAX_RUNS
    has_same_numbers = {key for (key,) in numbered} == set(lake.datasets())
    return IndexPlan(stale, new, n_runs) if is_worth_keeping and has_same_numbers else from_nothing


def keep_tables(connection: duckdb.DuckDBPyConnection, tables: Sequence[str]) -> None:
    """Drop everything but some tables from a copy of a catalogue, so that the rest can be defined again."""
    drops = connection.execute(
        "SELECT format('DROP VIEW \"{}\"', view_name) FROM duckdb_views() WHERE NOT internal "
        "UNION ALL SELECT DISTINCT format('DROP MACRO \"{}\"', function_name) FROM duckdb_functions() "
        "WHERE NOT internal AND function_type = 'macro' "
        "UNION ALL SELECT format('DROP TABLE \"{}\"', table_name) FROM duckdb_tables() WHERE table_name NOT IN $tables "
        "UNION ALL SELECT DISTINCT format('DROP MACRO TABLE \"{}\"', function_name) FROM duckdb_functions() "
        "WHERE NOT internal AND function_type = 'table_macro'",
        {"tables": list(tables)},
    ).fetchall()
    for (drop,) in drops:
        connection.execute(drop)


def update_index(connection: duckdb.DuckDBPyConnection, plan: IndexPlan) -> None:
    """Bring the index of a database to what is wanted.

    Args:
        connection: to the catalogue that is being built, defined, with the index that the plan was made for or an
            empty one.
        plan: from `plan_index`.

    Raises:
        duckdb.Error: a part cannot be read, or the disk is full.
    """
    ((limit,),) = connection.execute("SELECT current_setting('memory_limit')").fetchall()
    connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
    if plan.stale:
        _drop_shards(connection, plan.stale)
    if plan.new:
        _append_shards(connection, plan.new, plan.run)
    if plan.stale or plan.new:
        _count_vocabulary(connection)
    connection.execute(f"SET memory_limit = '{limit}'")


def _shard_table(shards: Sequence[IndexedShard], run: int) -> pa.Table:
    rows = [(s.shard.model, s.shard.component, s.shard.layer, s.shard.first, s.shard.last, s.mark, run) for s in shards]
    return pa.table(dict(zip(_SHARD_COLUMNS, map(list, zip(*rows, strict=True)), strict=True)))


def _drop_shards(connection: duckdb.DuckDBPyConnection, shards: Sequence[IndexedShard]) -> None:
    connection.register("stale", _shard_table(shards, 0))
    for table in ("index_rows", "index_units"):
        connection.execute(_DELETE_STALE.format(table=table))
    connection.execute(
        "DELETE FROM index_shards AS r USING stale AS s WHERE r.model = s.model AND r.component = s.component "
        "AND r.layer = s.layer AND r.first_unit = s.first_unit AND r.last_unit = s.last_unit"
    )
    connection.unregister("stale")


def _append_shards(connection: duckdb.DuckDBPyConnection, shards: Sequence[IndexedShard], run: int) -> None:
    connection.register("appended", _shard_table(shards, run))
    connection.register("names", pa.table({"name": [s.shard.part_name for s in shards]}))
    connection.register("gpt2", _gpt2_ids())
    connection.execute(
        "SET VARIABLE index_parts = (SELECT list(regexp_replace(p.path, '[*?[]', '[\\0]', 'g') ORDER BY p.path) "
        "FROM parts AS p SEMI JOIN names AS n ON p.table_name = 'token_stats' AND ends_with(p.path, n.name))"
    )
    connection.execute(_APPEND_VOCABULARY)
    connection.execute(_APPEND_ROWS)
    connection.execute(_APPEND_UNITS)
    connection.execute("INSERT INTO index_shards FROM appended")
    connection.execute("RESET VARIABLE index_parts")
    for name in ("appended", "names", "gpt2"):
        connection.unregister(name)


def _count_vocabulary(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(_COUNT_VOCABULARY)
    connection.execute("DELETE FROM vocabulary")
    connection.execute("INSERT INTO vocabulary FROM counted ORDER BY token")
    connection.execute("DROP TABLE counted")


def _gpt2_ids() -> pa.Table:
    """Give the tokens that have exactly one GPT-2 id; what is part of a UTF-8 character reads alike for many."""
    from warehouse.decode.gpt2 import token_texts  # which loads the decoders, and no question needs those

    texts = token_texts().tolist()
    counts = Counter(texts)
    ids = {text: number for number, text in enumerate(texts) if counts[text] == 1 and "\ufffd" not in text}
    return pa.table({"token": list(ids), "gpt2_id": pa.array(ids.values(), pa.int32())})
