"""The catalogue: one DuckDB file of views and macros over a lake's committed Parquet, and of tables to search it by.

It is a cache, made from the files of `sql/` and the lake alone: built beside and moved into place, so that who has
the old one open keeps it. That of a remote lake is kept on this machine. Every connection to DuckDB is made here.
"""

from __future__ import annotations

import functools
import hashlib
import re
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from importlib import resources
from pathlib import Path
from string import Template
from typing import Literal, TypeAlias

import duckdb
import pyarrow as pa

from warehouse import contexts, explanation_search, index, profiles, selectivity
from warehouse.contexts import update_contexts
from warehouse.errors import LakeError
from warehouse.explanation_search import update_explanations
from warehouse.index import IndexPlan, keep_tables, plan_index, update_index, wanted_shards
from warehouse.lake import Lake
from warehouse.parts import Shard
from warehouse.profiles import update_profiles
from warehouse.remote_parts import RemoteParts
from warehouse.schema import ARROW_TYPES, BATCH_TABLES, COLUMNS, PARTITIONS, TABLES
from warehouse.selectivity import update_selectivity
from warehouse.temporary import name_temporary, sweep_temporary

Folder: TypeAlias = Literal["tables", "views", "macros", "checks"]
KEPT_TABLES = (
    *index.TABLES, *contexts.TABLES, *selectivity.TABLES, *profiles.TABLES, *explanation_search.TABLES
)  # fmt: skip
"""The tables behind searches, which the next catalogue takes over and brings up to date."""
STORAGE_VERSION = "v1.4.0"
"""The file's format, for the clients that are built on a DuckDB older than ours."""
_FROM = re.compile(r"^-- From: (.*)$", re.MULTILINE)
_TRACEBACK = re.compile(r"Traceback \(most recent call last\):\n(?: .*\n)*[\w.]+: ")
_KIND = re.compile(r"(?:Binder|Catalog|Conversion|Invalid Input|Mismatch Type|Out of Range|Parser|Syntax) Error: ")
"""What DuckDB calls errors that a statement itself has: their messages say all."""
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
        root: absolute path or URL of the lake, which the views hold.
        definitions: SHA-256 of the SQL that made it.
        commits: SHA-256 of the list of shards and batches that were committed.
    """

    root: str
    definitions: str
    commits: str


def read_sql(folder: Folder) -> dict[str, str]:
    """Give the SQL of one folder by object name: from the wheel's `warehouse/sql`, or `sql/` of a checkout."""
    packaged = Path(str(resources.files("warehouse"))) / "sql"
    sql = packaged if packaged.is_dir() else packaged.parent.parent / "sql"
    return {path.stem: path.read_text("utf-8") for path in sorted((sql / folder).glob("*.sql"))}


def quote(value: str) -> str:
    """Write a text as a SQL literal."""
    return "'" + value.replace("'", "''") + "'"


def match_only(path: str) -> str:
    """Write a path as the pattern that matches it alone: DuckDB takes every path of read_parquet for a pattern."""
    return re.sub(r"[*?[]", r"[\g<0>]", path)


def describe(error: Exception) -> str:
    """Give a foreign error's message on one line, without DuckDB's picture of the place in the statement.

    Nor with its word for the kind of error, where the message says as much: a permission, or the memory, stays. Of an
    error in what reads a remote lake DuckDB gives the traceback too.
    """
    message = " ".join(_TRACEBACK.sub("", re.split(r"\n\s*LINE \d+:", str(error))[0]).split())
    kind = _KIND.match(message)
    return message[kind.end() :] if kind else message


def connect(
    lake: Lake, catalogue: str | Path = ":memory:", parts: RemoteParts | None = None, **settings: bool | str
) -> duckdb.DuckDBPyConnection:
    """Open a connection that loads no extension, and spills beside the catalogue what memory does not hold.

    Args:
        lake: whose catalogue.
        catalogue: a DuckDB file, or ":memory:" for a database of its own.
        parts: what reads the parts of a remote lake, where they are to be read.
        settings: further settings of DuckDB.
    """
    spill = f"{lake.home}/.tmp/spill-{socket.gethostname()}"
    connection = duckdb.connect(str(catalogue), config={**_ALONE, "temp_directory": spill, **settings})
    if parts is not None:
        connection.register_filesystem(parts)
    return connection


def build_catalogue(lake: Lake) -> Path:
    """Build the catalogue of what is committed now, and move it into place.

    Returns:
        The path of the DuckDB file.

    Raises:
        LakeError: there is no lake, the catalogue cannot be written, or a part cannot be read.
    """
    lake.require()
    temporary = name_temporary(lake.home / ".tmp")
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        sweep_temporary(temporary.parent)
        parts = None if lake.is_local else RemoteParts(lake)
        plan = _plan_index(lake)
        if plan.run:
            shutil.copyfile(lake.catalogue_path, temporary)
        with connect(lake, temporary, parts, storage_compatibility_version=STORAGE_VERSION) as connection:
            connection.begin()  # some 350 definitions, which would else be written to the disk each by itself
            keep_tables(connection, KEPT_TABLES)
            define(connection, lake)
            connection.commit()
            update_index(connection, plan)
            update_contexts(connection, lake, plan)
            update_selectivity(connection, plan)
            update_profiles(connection, plan)
            update_explanations(connection, lake)
        temporary.replace(lake.catalogue_path)
        if parts is not None:
            parts.discard_old()
    except (duckdb.Error, OSError) as e:
        raise LakeError(f"cannot build the catalogue of {lake.url}: {describe(e)}") from e
    finally:
        temporary.unlink(missing_ok=True)
        temporary.with_name(f"{temporary.name}.wal").unlink(missing_ok=True)
    return lake.catalogue_path


def _plan_index(lake: Lake) -> IndexPlan:
    """Plan the token index from that of the catalogue in place, which only the same SQL can have made."""
    origin = read_origin(lake)
    is_of_this_version = origin is not None and origin.definitions == _hash_definitions()
    with connect(lake) as connection:
        return plan_index(connection, lake.catalogue_path if is_of_this_version else None, lake, wanted_shards(lake))


def attach_catalogue(connection: duckdb.DuckDBPyConnection, lake: Lake) -> None:
    """Attach the catalogue as `warehouse`; where it is missing, of other SQL or another place, build it first.

    One that only lags behind the newest commits is taken as it is (see `is_current`), but for a remote lake: that is
    built on other machines, which have no hand in this one's catalogue.

    Raises:
        LakeError: there is no lake, or the catalogue cannot be built.
    """
    lake.require()
    origin = _attach(connection, lake)
    is_usable = origin is not None and (origin.root, origin.definitions) == (_root(lake), _hash_definitions())
    if is_usable and (lake.is_local or is_current(lake)):
        return
    connection.execute("DETACH DATABASE IF EXISTS warehouse")
    try:
        build_catalogue(lake)
    except LakeError as e:
        why = "is missing or unreadable" if origin is None else "is of another place or version of the lake"
        raise LakeError(
            f"{lake.catalogue_path} {why}, and {e}: run 'warehouse catalogue --lake {lake.url}' as its owner"
        ) from e
    if _attach(connection, lake) is None:
        raise LakeError(f"{lake.catalogue_path} was built, and cannot be read")


def is_current(lake: Lake) -> bool:
    """Say whether the catalogue was built from all that is committed now."""
    origin = read_origin(lake)
    if origin is None:
        return False
    commits = _hash_commits(lake, lake.marks(), _list_batches(lake))
    return origin == Origin(_root(lake), _hash_definitions(), commits)


def read_origin(lake: Lake) -> Origin | None:
    """Read what the lake's catalogue was made from, or give None where there is no readable one."""
    with connect(lake) as connection:
        return _attach(connection, lake)


def _attach(connection: duckdb.DuckDBPyConnection, lake: Lake) -> Origin | None:
    """Attach the catalogue as it is, and read what it was made from; None where there is no readable one."""
    if not lake.catalogue_path.is_file():
        return None
    try:
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
    commits, batches = lake.marks(), _list_batches(lake)
    parts = {table: _committed_parts(lake, table, commits) for table in TABLES}
    parts |= {table: [lake.prefix + path for path in sorted(batches[table])] for table in BATCH_TABLES}
    connection.register("registry", _registry(lake))
    connection.register("committed", _arrow([(t, path) for t in parts for path in parts[t]], "table_name", "path"))
    origin = (_root(lake), _hash_definitions(), _hash_commits(lake, commits, batches), datetime.now(UTC))
    connection.register("origin", _arrow([origin], "root", "definitions", "commits", "built_at"))
    for name, text in _sort_by_need(read_sql("tables") | read_sql("views") | read_sql("macros")):
        connection.execute(Template(text).substitute(parts=relation(name, parts[name]) if name in parts else ""))
    for name in ("registry", "committed", "origin"):
        connection.unregister(name)
    _comment_columns(connection)


def _committed_parts(lake: Lake, table: str, commits: Mapping[Shard, str]) -> list[str]:
    """List a table's parts by one list of commits for all tables, so that no shard is in one and not in another."""
    return [lake.prefix + lake.part_path(table, shard) for shard in lake.shards(table) if shard in commits]


def _list_batches(lake: Lake) -> dict[str, dict[str, str]]:
    return {table: lake.batches(table) for table in BATCH_TABLES}


def _registry(lake: Lake) -> pa.Table:
    rows = [
        (
            d.model,
            d.component,
            d.kind,
            d.per,
            d.holds,
            d.about_component,
            d.n_layers,
            d.units_per_layer,
            "\n".join(f"{note.text} ({note.source})" for note in d.notes),
        )
        for d in lake.datasets().values()
    ]
    return _arrow(rows, "model", "component", "kind", "per", "holds", "about", "n_layers", "units_per_layer", "notes")


def _arrow(rows: Sequence[tuple[object, ...]], *names: str) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    schema = pa.schema([(name, ARROW_TYPES[COLUMNS[name].sql_type]) for name in names])
    return pa.table([list(column) for column in columns], schema=schema)


def relation(table: str, paths: list[str]) -> str:
    """Give the FROM clause of a base view: a list of paths, so that a running build changes no reader's answers."""
    if not paths:
        names = BATCH_TABLES[table] if table in BATCH_TABLES else (*PARTITIONS, *TABLES[table])
        columns = ", ".join(f"CAST(NULL AS {COLUMNS[c].sql_type}) AS {c}" for c in names)
        return f"(SELECT {columns} LIMIT 0)"
    types = ", ".join(f"{name}: {COLUMNS[name].sql_type}" for name in PARTITIONS)
    listed = ", ".join(quote(match_only(path)) for path in paths)
    if table in BATCH_TABLES:
        return f"read_parquet([{listed}], hive_partitioning = false)"
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
    return hashlib.sha256(repr((STORAGE_VERSION, sorted(texts.items()), described)).encode()).hexdigest()


def _root(lake: Lake) -> str:
    return lake.prefix + lake.root


def _hash_commits(lake: Lake, marks: Mapping[Shard, str], batches: Mapping[str, Mapping[str, str]]) -> str:
    """Hash the lists of committed shards and batches, and which version of each batch.

    On a store also which version of each shard, as nobody else tells this machine.
    """
    commits = [f"{shard}" if lake.is_local else f"{shard} {mark}" for shard, mark in sorted(marks.items())]
    commits += [f"{path} {mark}" for table in BATCH_TABLES for path, mark in sorted(batches[table].items())]
    return hashlib.sha256("\n".join(commits).encode()).hexdigest()
