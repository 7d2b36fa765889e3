"""A connection for other people's SQL: it reads the lake, and nothing else, and changes nothing.

Two walls. DuckDB itself is told to open no file but the committed parts; and a statement is run only if its syntax
tree holds nothing but reads, since DuckDB would also write where it may read (a COPY can hide in a WITH).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import duckdb
import orjson
import polars as pl
import pyarrow as pa

from warehouse.catalogue import attach_catalogue, connect, describe, match_only, quote
from warehouse.errors import QueryError, StaleCatalogue
from warehouse.lake import Lake
from warehouse.remote_parts import RemoteParts

Parameters: TypeAlias = Sequence[object] | Mapping[str, object] | None

_EXPLAIN = re.compile(r"EXPLAIN\s+(?:ANALYZE\s+)?(?:\(\s*(?:ANALYZE|FORMAT)\b[\w\s,]*\)\s*)?", re.IGNORECASE | re.ASCII)
_STALE = " (if a shard was built again since the catalogue was: run 'warehouse catalogue')"
_BATCH_ROWS = 512
"""Rows that are read of a bounded answer at a time: so many more than its bound may be in memory."""
_MOST_CHECKED = 1_000
_READING_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
_REFUSED_FUNCTIONS = {
    # run SQL that is given as a text, past the check of the syntax tree
    "query",
    "json_execute_serialized_sql",
    # change the state of DuckDB
    "add_parquet_key",
    "checkpoint",
    "create_external_resource",
    "deregister_external_resource",
    "destroy_external_resource",
    "disable_logging",
    "disable_profiling",
    "enable_logging",
    "enable_profiling",
    "force_checkpoint",
    "register_external_resource",
    "register_external_resource_type",
    "truncate_duckdb_logs",
    "write_log",
}


def open_boxed(lake: Lake, remote: RemoteParts | None = None, **settings: bool | str) -> duckdb.DuckDBPyConnection:
    """Open a lake's catalogue for SQL from anyone: no other file, no network, no extension, no settings.

    Each file is allowed by its name rather than the lake by its folder: DuckDB compares folders before it follows
    symbolic links, and one in the lake would then lead out of it. The parts of a remote lake are all that is reached
    on its store, and only to be read.

    Args:
        lake: which.
        remote: what reads the parts of a remote lake; by default a new one.
        settings: further settings of DuckDB, as memory_limit, which nobody can change either.

    Raises:
        LakeError: there is no lake, or no catalogue can be had.
    """
    if remote is None and not lake.is_local:
        remote = RemoteParts(lake)
    connection = connect(lake, ":memory:", remote, python_enable_replacements=False, **settings)
    attach_catalogue(connection, lake)
    parts = connection.execute("SELECT path FROM warehouse.parts").fetchall()
    allowed = {name for (part,) in parts for name in (part, match_only(part))}
    connection.execute(f"SET allowed_paths = [{', '.join(map(quote, allowed))}]")
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def query_boxed(
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    parameters: Parameters = None,
    before: Sequence[str] = (),
    checked: MutableMapping[str, str] | None = None,
) -> pl.DataFrame:
    """Run one reading statement on a boxed connection; threads may share it.

    Args:
        connection: from `open_boxed`.
        sql: a SELECT in any form (FROM, VALUES, WITH, DESCRIBE, SHOW, SUMMARIZE, PIVOT … IN), or EXPLAIN of one.
        parameters: values for ? or $name.
        before: statements of our own to run first, as for temporary views, which nobody else sees.
        checked: texts that were found to be reads, each with its statement, which are not looked at again.

    Raises:
        QueryError: the statement is wrong, does more than read, or asks for what is outside the box.
    """
    with connection.cursor() as cursor, _explained():
        frame: pl.DataFrame = _ask(cursor, sql, parameters, before, {} if checked is None else checked).pl()
        return frame


def query_bounded(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Parameters, max_rows: int, max_bytes: int
) -> tuple[pl.DataFrame, bool]:
    """Run one reading statement as `query_boxed` does, but read no more of its answer than is asked for.

    Args:
        connection: from `open_boxed`; no other thread may use it meanwhile, but to interrupt it.
        sql: as for `query_boxed`.
        parameters: as for `query_boxed`.
        max_rows: rows at most.
        max_bytes: bytes of the answer in memory (as Arrow) at most.

    Returns:
        The first rows, and whether there are more.

    Raises:
        QueryError: as `query_boxed`, or the statement was interrupted, or its first row alone is larger than max_bytes.
    """
    batches: list[pa.RecordBatch] = []
    rows_left, bytes_left, is_cut = max_rows, max_bytes, False
    with _explained():
        reader = _ask(connection, sql, parameters, (), {}).to_arrow_reader(min(max_rows + 1, _BATCH_ROWS))
        for batch in reader:
            kept = _cut(batch.slice(0, rows_left), bytes_left)
            batches.append(kept)
            rows_left, bytes_left = rows_left - kept.num_rows, bytes_left - kept.nbytes
            is_cut = kept.num_rows < batch.num_rows
            if is_cut:
                break
        frame = pl.DataFrame(pa.Table.from_batches(batches, reader.schema))
    if is_cut and frame.is_empty() and max_rows > 0:
        raise QueryError(f"one row is larger than {max_bytes:,} bytes, the limit of an answer: select less of it")
    return frame, is_cut


def _cut(batch: pa.RecordBatch, max_bytes: int) -> pa.RecordBatch:
    """Give the first rows of a batch, as many as are no larger together."""
    if batch.nbytes <= max_bytes:
        return batch
    n_rows = bisect_right(range(1, batch.num_rows + 1), max_bytes, key=lambda n: batch.slice(0, n).nbytes)
    return batch.slice(0, n_rows)


def _ask(
    cursor: duckdb.DuckDBPyConnection,
    sql: str,
    parameters: Parameters,
    before: Sequence[str],
    checked: MutableMapping[str, str],
) -> duckdb.DuckDBPyRelation:
    for statement in ("USE warehouse", *before):
        cursor.execute(statement)
    read = checked.get(sql) or _require_read(cursor, sql)
    if len(checked) >= _MOST_CHECKED:
        checked.clear()
    checked[sql] = read
    return cursor.sql(read, params=parameters)


@contextmanager
def _explained() -> Iterator[None]:
    """Say in words what DuckDB, Arrow and Polars raise."""
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as e:
        # A part that is gone is looked for as a folder, which is then outside the box.
        is_gone = isinstance(e, duckdb.IOException) or ".parquet/**/" in str(e)
        raise (StaleCatalogue(describe(e) + _STALE) if is_gone else QueryError(describe(e))) from e
    except pl.exceptions.DuplicateError as e:
        raise QueryError(f"two columns have one name: give one another with AS ({describe(e)})") from e
    except pl.exceptions.PolarsError as e:
        # Polars goes on with hints on settings of its own, which nobody has here.
        reason = describe(e).partition(" Hint: ")[0]
        which = "an INTERVAL" if "interval" in reason else "a column's type"
        raise QueryError(f"{which} has no place in a table: CAST it to VARCHAR ({reason})") from e


def _require_read(cursor: duckdb.DuckDBPyConnection, sql: str) -> str:
    """Give the one statement of a text, if it is a read: the text that was checked is the one to run."""
    statements = cursor.extract_statements(sql)
    if len(statements) != 1:
        raise QueryError(f"{len(statements)} statements: give one")
    statement = statements[0].query.strip()
    # No comment is skipped here: where comments nest, one that is skipped may end elsewhere than DuckDB sees it end.
    prefix = _EXPLAIN.match(statement)
    explained = statement[prefix.end() :] if prefix else statement
    ((serialized,),) = cursor.execute("SELECT json_serialize_sql(CAST(? AS VARCHAR))", [explained]).fetchall()
    try:
        tree = orjson.loads(serialized)
    except orjson.JSONDecodeError as e:
        raise QueryError("the query is nested too deeply") from e
    if tree["error"]:
        raise QueryError(
            f"{statement.split()[0].upper()} is refused: only reads are allowed here{_advise(tree, statement)}"
        )
    for node in _walk(tree):
        kind, function = str(node.get("type", "")), str(node.get("function_name", "")).lower()
        if kind.endswith("_NODE") and kind not in _READING_NODES:
            raise QueryError(f"{kind.split('_')[0]} inside a query is refused: only reads are allowed here")
        if function in _REFUSED_FUNCTIONS:
            raise QueryError(f"{function}() is refused: only reads are allowed here, as plain SQL")
    return statement


def _advise(tree: Mapping[str, Any], statement: str) -> str:
    if re.search(r"\bPIVOT", statement, re.IGNORECASE):
        return "; a PIVOT needs its columns named, as PIVOT … ON column IN (…)"
    if re.match("EXPLAIN", statement, re.IGNORECASE):
        return "; EXPLAIN [ANALYZE] takes a SELECT, with no comment between"
    return "" if tree.get("error_type") == "not implemented" else f" ({tree.get('error_message')})"


def _walk(tree: object) -> Iterator[Mapping[str, Any]]:
    """Give every object of a JSON tree, without recursion: a query may be nested deeply."""
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
