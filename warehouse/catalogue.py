"""The catalogue: one DuckDB file of views and macros over a lake's committed Parquet parts.

It is a cache, made from the files of `sql/` and the lake alone: built beside and moved into place, so that who has
the old one open keeps it. Every connection to DuckDB is made here.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from importlib import resources
from pathlib import Path
from string import Template
from typing import Literal, TypeAlias

import duckdb
import pyarrow as pa

from warehouse.errors import LakeError
from warehouse.lake import Lake
from warehouse.parts import Shard
from warehouse.schema import ARROW_TYPES, COLUMNS, PARTITIONS, TABLES

Folder: TypeAlias = Literal["tables", "views", "macros", "checks"]
_FROM = re.compile(r"^-- From: (.*)$", re.MULTILINE)
_ALONE = {
    "allow_community_extensions": False,
    "allow_persistent_secrets": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}


@dataclass(frozen=True, slots=True)
class Origin:
    """What a catalogue was made from.

    Attributes:
        root: absolute path of the lake, which the views hold.
        definitions: SHA-256 of the SQL that made it.
        commits: SHA-256 of the list of shards that were committed.
    """

    root: str
    definitions: str
    commits: str


def read_sql(folder: Folder) -> dict[str, str]:
    """Give the SQL of one folder by object name: from the wheel's `warehouse/sql`, or `sql/` of a checkout."""
    packaged = Path(str(resources.files("warehouse"))) / "sql"
    sql = packaged if packaged.is_dir() else packaged.parent.parent / "sql"
    return {path.stem: path.read_text("utf-8") for path in sorted((sql / folder).glob("*.sql"))}


def require_local(lake: Lake) -> None:
    """Check that the lake is there, and where DuckDB can read it without an extension.

    Raises:
        LakeError: there is no lake, or it is not on a local disk.
    """
    lake.require()
    if not lake.is_local:
        raise LakeError(
            f"the catalogue of {lake.url} needs the Parquet on a disk: copy it to a folder, and give that with --lake"
        )


def quote(value: str) -> str:
    """Write a text as a SQL literal."""
    return "'" + value.replace("'", "''") + "'"


def match_only(path: str) -> str:
    """Write a path as the pattern that matches it alone: DuckDB takes every path of read_parquet for a pattern."""
    return re.sub(r"[*?[]", r"[\g<0>]", path)


def describe(error: Exception) -> str:
    """Give a foreign error's message on one line, without DuckDB's picture of the place in the statement."""
    return " ".join(re.split(r"\n\s*LINE \d+:", str(error))[0].split())


def connect(lake: Lake, catalogue: str | Path = ":memory:", **settings: bool) -> duckdb.DuckDBPyConnection:
    """Open a connection that loads no extension, and spills to the lake's own folder what memory does not hold.

    Args:
        lake: whose `.tmp/` to spill to.
        catalogue: a DuckDB file, or ":memory:" for a database of its own.
        settings: further settings of DuckDB.
    """
    spill = f"{lake.root}/.tmp/spill-{socket.gethostname()}"
    return duckdb.connect(str(catalogue), config={**_ALONE, "temp_directory": spill, **settings})


def build_catalogue(lake: Lake) -> Path:
    """Build the catalogue of what is committed now, and move it into place.

    Returns:
        The path of the DuckDB file.

    Raises:
        LakeError: there is no lake, it is not on a local disk, cannot be written, or a part of it cannot be read.
    """
    require_local(lake)
    lake.create()
    temporary = Path(lake.temporary_path())
    try:
        with connect(lake, temporary) as connection:
            define(connection, lake)
        os.replace(temporary, lake.catalogue_path)  # noqa: PTH105  (atomic on every platform)
    except (duckdb.Error, OSError) as e:
        raise LakeError(f"cannot build the catalogue of {lake.url}: {describe(e)}") from e
    finally:
        temporary.unlink(missing_ok=True)
        temporary.with_name(f"{temporary.name}.wal").unlink(missing_ok=True)
    return lake.catalogue_path


def ensure_catalogue(lake: Lake) -> Path:
    """Give the catalogue's path, after building it where it is missing, made by other SQL, or the lake was moved.

    One that only lags behind the newest commits is taken as it is: see `is_current`.

    Raises:
        LakeError: there is no lake, or the catalogue cannot be built.
    """
    require_local(lake)
    origin = read_origin(lake)
    if origin is None or origin.root != lake.root or origin.definitions != _hash_definitions():
        try:
            return build_catalogue(lake)
        except LakeError as e:
            why = "is missing or unreadable" if origin is None else "is of another place or version of the lake"
            raise LakeError(
                f"{lake.catalogue_path} {why}, and {e}: run 'warehouse catalogue --lake {lake.url}' as its owner"
            ) from e
    return lake.catalogue_path


def is_current(lake: Lake) -> bool:
    """Say whether the catalogue was built from all that is committed now."""
    origin = read_origin(lake)
    return origin is not None and origin == Origin(lake.root, _hash_definitions(), _hash_commits(lake.shards()))


def read_origin(lake: Lake) -> Origin | None:
    """Read what the lake's catalogue was made from, or give None where there is no readable one."""
    if not lake.catalogue_path.is_file():
        return None
    try:
        with connect(lake) as connection:
            connection.execute(f"ATTACH {quote(str(lake.catalogue_path))} AS warehouse (READ_ONLY)")
            row = connection.execute("SELECT root, definitions, commits FROM warehouse.catalogue").fetchone()
    except duckdb.Error:
        return None
    return Origin(*row) if row else None


def define(connection: duckdb.DuckDBPyConnection, lake: Lake) -> None:
    """Make every table, view and macro of the catalogue in a database, with a comment on each and on each column.

    Raises:
        duckdb.Error: a part cannot be read.
        LakeError: a view has a column that schema.COLUMNS does not describe.
    """
    commits = lake.shards()
    parts = {table: _committed_parts(lake, table, set(commits)) for table in TABLES}
    connection.register("registry", _registry(lake))
    connection.register("committed", _arrow([(t, path) for t in parts for path in parts[t]], "table_name", "path"))
    origin = (lake.root, _hash_definitions(), _hash_commits(commits), datetime.now(UTC))
    connection.register("origin", _arrow([origin], "root", "definitions", "commits", "built_at"))
    for name, text in _sort_by_need(read_sql("tables") | read_sql("views") | read_sql("macros")):
        connection.execute(Template(text).substitute(parts=_relation(name, parts[name]) if name in parts else ""))
    for name in ("registry", "committed", "origin"):
        connection.unregister(name)
    _comment_columns(connection)


def _committed_parts(lake: Lake, table: str, commits: set[Shard]) -> list[str]:
    """List a table's parts by one list of commits for all tables, so that no shard is in one and not in another."""
    return [lake.part_path(table, shard) for shard in lake.shards(table) if shard in commits]


def _registry(lake: Lake) -> pa.Table:
    rows = [
        (
            d.model,
            d.component,
            d.kind,
            d.per,
            d.n_layers,
            d.units_per_layer,
            "\n".join(f"{note.text} ({note.source})" for note in d.notes),
        )
        for d in lake.datasets().values()
    ]
    return _arrow(rows, "model", "component", "kind", "per", "n_layers", "units_per_layer", "notes")


def _arrow(rows: Sequence[tuple[object, ...]], *names: str) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    schema = pa.schema([(name, ARROW_TYPES[COLUMNS[name].sql_type]) for name in names])
    return pa.table([list(column) for column in columns], schema=schema)


def _relation(table: str, paths: list[str]) -> str:
    """Give the FROM clause of a base view: a list of paths, so that a running build changes no reader's answers."""
    if not paths:
        columns = ", ".join(f"CAST(NULL AS {COLUMNS[c].sql_type}) AS {c}" for c in (*PARTITIONS, *TABLES[table]))
        return f"(SELECT {columns} LIMIT 0)"
    types = ", ".join(f"{name}: {COLUMNS[name].sql_type}" for name in PARTITIONS)
    listed = ", ".join(quote(match_only(path)) for path in paths)
    return f"read_parquet([{listed}], hive_partitioning = true, hive_types = {{{types}}})"


def _sort_by_need(texts: dict[str, str]) -> list[tuple[str, str]]:
    """Put each object after those that its `-- From:` header names."""
    needs = {
        name: set(re.findall(r"\w+", _FROM.findall(text)[0])) & texts.keys() - {name} for name, text in texts.items()
    }
    return [(name, texts[name]) for name in TopologicalSorter(needs).static_order()]


def _comment_columns(connection: duckdb.DuckDBPyConnection) -> None:
    columns = connection.execute("SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal").fetchall()
    for table, column in columns:
        if column not in COLUMNS:
            raise LakeError(f"{table}.{column} has no description: add it to COLUMNS in warehouse/schema.py")
        connection.execute(f'COMMENT ON COLUMN {table}."{column}" IS {quote(COLUMNS[column].description)}')


@functools.cache
def _hash_definitions() -> str:
    texts = read_sql("tables") | read_sql("views") | read_sql("macros")
    described = {name: column.description for name, column in COLUMNS.items()}
    return hashlib.sha256(repr((sorted(texts.items()), described)).encode()).hexdigest()


def _hash_commits(commits: list[Shard]) -> str:
    return hashlib.sha256("\n".join(map(str, commits)).encode()).hexdigest()
