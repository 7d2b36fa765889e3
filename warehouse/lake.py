"""A lake: a folder of Parquet parts, and the rule by which a shard's parts become part of it.

A shard is a run of units of one layer. Its parts have names that depend on nothing but the shard; each is written to
a temporary file and then moved into place, and the part of `files` is moved last: that part is the commit. A shard
without it was never built, whatever else lies there. No lock and no server is needed. On an object store the
temporary file is this machine's, and the move is one put, which is seen whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from warehouse.datasets import Dataset, builtin_datasets, parse_registration
from warehouse.errors import InvalidRegistration, LakeError
from warehouse.parts import PARQUET_OPTIONS, Commit, Shard, split_records
from warehouse.remote import cache_folder, open_filesystem, store_errors
from warehouse.schema import TABLES
from warehouse.temporary import name_temporary, sweep_temporary

CATALOGUE_NAME = "warehouse.duckdb"
FORMAT_VERSION = 1
_COMMIT_KEY = b"warehouse.commit"
_CONCURRENCY = 32
"""Requests to a store that are under way at once while commits are read."""
_BATCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.parquet")


class Lake:
    """The paths, parts and commits of one lake."""

    def __init__(self, url: str | os.PathLike[str]) -> None:
        """Point at a lake, which need not exist yet.

        Args:
            url: a folder, or a URL of any filesystem that fsspec knows.

        Raises:
            LakeError: a URL that no installed filesystem reads, or that holds a secret.
        """
        self.url = os.fspath(url)
        self.fs, self.root = open_filesystem(self.url)
        self.is_local = isinstance(self.fs, LocalFileSystem)
        self._temporary = (
            (Path(self.root, ".tmp"), "") if self.is_local else (Path(tempfile.gettempdir()), "warehouse-")
        )
        self.prefix = "" if self.is_local else f"{self.url.partition('://')[0]}://"
        if named := re.search(r"[^/]*=[^/]*", self.root):
            raise LakeError(
                f"no lake can be at {self.url}: readers of partitioned Parquet would take {named[0]!r} for a column"
            )

    def __reduce__(self) -> tuple[type[Lake], tuple[str]]:
        return (Lake, (self.url,))

    @property
    def home(self) -> Path:
        """The folder on this machine that holds the catalogue: the lake itself, or the cache folder of a remote one."""
        return Path(self.root) if self.is_local else cache_folder(self.fs, self.prefix + self.root)

    @property
    def catalogue_path(self) -> Path:
        """Where the catalogue's DuckDB file lies."""
        return self.home / CATALOGUE_NAME

    def create(self) -> None:
        """Make the lake's folder, see that it can be written, and remove temporary files that killed writers left.

        Raises:
            LakeError: the folder, bucket or container cannot be made or written.
        """
        try:
            if self.is_local:
                Path(self.root, ".tmp").mkdir(parents=True, exist_ok=True)
            probe = self.temporary_path()
            probe.touch()
            probe.unlink()
            sweep_temporary(*self._temporary)
        except OSError as e:
            raise LakeError(f"cannot write to the lake {self.url}: {e.strerror or e}") from e
        if not self.is_local:
            with self._errors("write to the lake"):
                path = f"{self.root}/probe-{secrets.token_hex(4)}"
                self.fs.pipe_file(path, b"whether this lake can be written")
                self.fs.rm_file(path)

    def require(self) -> None:
        """Check that the lake is there.

        Raises:
            LakeError: there is no lake at this place, with the command that makes one.
        """
        names: set[str] = set()
        with self._errors("read the lake"), suppress(FileNotFoundError, NotADirectoryError):
            names = {path.rstrip("/").rpartition("/")[2] for path in self.fs.ls(self.root, detail=False)}
        if not names & {"files", "raw", "datasets", "answers"}:
            raise LakeError(
                f"no lake at {self.url}: build one with 'warehouse build DATASET --lake {self.url}', "
                "or say where it is with --lake or WAREHOUSE_LAKE"
            )

    # datasets ------------------------------------------------------------------------------------------------------

    def datasets(self) -> Mapping[str, Dataset]:
        """Give every dataset that can be in this lake: the built-in ones and those registered in it."""
        known = dict(builtin_datasets())
        for path in sorted(self._find("datasets")):
            if not path.endswith(".toml"):
                continue
            with self._errors("read the lake"):
                text = self.fs.cat_file(path).decode("utf-8")
            known |= {d.key: d for d in parse_registration(text, path)}
        return known

    def register(self, text: str, origin: str) -> tuple[Dataset, ...]:
        """Register the datasets of a TOML text in this lake.

        Raises:
            InvalidRegistration: the text is wrong, or names a dataset that is known with other facts.
        """
        datasets = parse_registration(text, origin)
        known = dict(self.datasets())
        for dataset in datasets:
            if known.setdefault(dataset.key, dataset) != dataset:
                raise InvalidRegistration(
                    f"{origin}: {dataset.key} is known already, with other facts: name it otherwise"
                )
        keys = "+".join(f"{d.model}.{d.component}" for d in datasets)
        name = f"{keys[:100]}-{hashlib.sha256(repr([d.key for d in datasets]).encode()).hexdigest()[:8]}"
        self.create()
        self._put(text.encode("utf-8"), f"{self.root}/datasets/{name}.toml")
        return datasets

    # parts ---------------------------------------------------------------------------------------------------------

    def part_path(self, table: str, shard: Shard) -> str:
        """Give the path of one table's part for a shard, whether it is there or not."""
        return f"{self.root}/{table}/{shard.part_name}"

    def shards(self, table: str = "files") -> list[Shard]:
        """List the shards that have a part of a table; those of `files` are the committed ones."""
        return sorted(self.marks(table))

    def marks(self, table: str = "files") -> dict[Shard, str]:
        """List the shards that have a part of a table, each with its part's mark, in one listing of the table.

        Returns:
            The mark changes when a part is written again: the store's ETag (or time) and the size in bytes.
        """
        start = len(f"{self.root}/{table}/")
        marks = {}
        for path, found in self._find(table).items():
            if shard := Shard.of_part(path[start:]):
                marks[shard] = _mark(found)
        return marks

    def parts(self, table: str) -> list[str]:
        """List the paths of a table's committed parts."""
        committed = set(self.shards())
        return [self.part_path(table, shard) for shard in self.shards(table) if shard in committed]

    def write_part(self, table: str, shard: Shard) -> PartWriter:
        """Open a writer for one table's part."""
        return PartWriter(self, table, shard)

    def iterate_part(self, table: str, shard: Shard) -> Iterator[pa.Table]:
        """Read one part a row group at a time; a part without rows is not there, and gives none."""
        with self._fetched(self.part_path(table, shard)) as path:
            if path is None:
                return
            with _open_native(path) as f:
                part = pq.ParquetFile(f)
                for group in range(part.num_row_groups):
                    yield part.read_row_group(group)

    def read_commit(self, shard: Shard, table: str = "files") -> Commit | None:
        """Read what a shard's commit says, or None where the shard is not committed.

        Args:
            shard: which.
            table: `files`, or `raw` for the commit of an extract without a flatten. A part that is damaged, or of
                another version, is no commit.
        """
        with self._errors("read the lake"):
            try:
                stream = self._open_commit(self.part_path(table, shard), table)
            except FileNotFoundError:
                return None
            with stream:
                return _parse_commit(stream)

    def read_commits(self, shards: Iterable[Shard], table: str = "files") -> dict[Shard, Commit]:
        """Read the commits of many shards, many at a time from a store; those that are not committed are left out."""
        shards = list(shards)
        with ThreadPoolExecutor(1 if self.is_local else _CONCURRENCY) as pool:
            commits = pool.map(lambda shard: self.read_commit(shard, table), shards)
            return {shard: commit for shard, commit in zip(shards, commits, strict=True) if commit is not None}

    def remove_shard(self, shard: Shard) -> None:
        """Take a shard out of the lake before its parts are replaced: its commit first, then the others.

        A reader whose catalogue names these parts gets an error until the new ones are there, and never a mixture.
        """
        for table in ("files", *(table for table in TABLES if table != "files")):
            self._remove(self.part_path(table, shard))

    # batches -------------------------------------------------------------------------------------------------------

    def batches(self, table: str) -> dict[str, str]:
        """List the batches of a table that no shard has, each path with its part's mark: a batch is its own commit."""
        start = len(f"{self.root}/{table}/")
        return {path: _mark(found) for path, found in self._find(table).items() if _BATCH.fullmatch(path[start:])}

    def write_batch(self, table: str, name: str, rows: pa.Table) -> None:
        """Write a batch whole, in place of one of the same name."""
        temporary = self.temporary_path()
        try:
            pq.write_table(rows, temporary, **PARQUET_OPTIONS)
            self._move(temporary, f"{self.root}/{table}/{name}.parquet")
        finally:
            temporary.unlink(missing_ok=True)

    def iterate_batch(self, path: str, columns: list[str]) -> Iterator[pa.Table]:
        """Read some columns of a batch a row group at a time; one that is no longer there gives none."""
        with self._fetched(path) as copy:
            if copy is None:
                return
            with _open_native(copy) as f:
                part = pq.ParquetFile(f)
                for group in range(part.num_row_groups):
                    yield part.read_row_group(group, columns=columns)

    # writing -------------------------------------------------------------------------------------------------------

    def _errors(self, doing: str) -> AbstractContextManager[None]:
        """Say what a store's filesystem raises in one line; a disk's errors are their callers' to explain."""
        return nullcontext() if self.is_local else store_errors(doing, self.url)

    def _find(self, folder: str) -> dict[str, dict[str, Any]]:
        """List every file below a folder with what the filesystem says of it: on a store, a request a thousand."""
        with self._errors("list the lake"):
            found: dict[str, dict[str, Any]] = self.fs.find(f"{self.root}/{folder}", detail=True)
            return found

    def _open_commit(self, path: str, table: str) -> pa.NativeFile | BinaryIO:
        if self.is_local:
            return _open_native(Path(path))
        if table == "files":  # small, so one request
            return pa.BufferReader(self.fs.cat_file(path))
        stream: BinaryIO = self.fs.open(path, "rb", cache_type="readahead", block_size=2**18)
        return stream

    @contextmanager
    def _fetched(self, path: str) -> Iterator[Path | None]:
        """Give a part as a file of this machine, for the time of the context; None where it is not there."""
        if self.is_local:
            yield Path(path) if Path(path).exists() else None
            return
        copy = self.temporary_path()
        try:
            is_there = True
            with self._errors("read the lake"):
                try:
                    self.fs.get_file(path, str(copy))
                except FileNotFoundError:
                    is_there = False
            yield copy if is_there else None
        finally:
            copy.unlink(missing_ok=True)

    def temporary_path(self) -> Path:
        """Name a new file of this machine, from which a whole one can be put into its place."""
        return name_temporary(*self._temporary)

    def _move(self, temporary: Path, path: str) -> None:
        if self.is_local:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(path)
            return
        with self._errors("write to the lake"):
            self.fs.put_file(str(temporary), path)

    def _remove(self, path: str) -> None:
        with self._errors("write to the lake"), suppress(FileNotFoundError):  # it is not there, or no longer
            self.fs.rm_file(path)

    def _put(self, data: bytes, path: str) -> None:
        temporary = self.temporary_path()
        try:
            temporary.write_bytes(data)
            self._move(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _mark(found: Mapping[str, Any]) -> str:
    version = next((found[key] for key in ("ETag", "etag", "mtime", "created") if found.get(key)), "")
    return f"{str(version).strip(chr(34))}-{found['size']}"


def _open_native(path: Path) -> pa.NativeFile:
    """Open a file for Arrow: of a Python file, the threads that read ahead would outlive the interpreter."""
    try:
        return pa.OSFile(str(path))
    except OSError as e:  # whose words name the file at length
        if e.errno is None:
            raise
        raise OSError(e.errno, os.strerror(e.errno), str(path)) from e


def _parse_commit(stream: pa.NativeFile | BinaryIO) -> Commit | None:
    try:
        part = pq.ParquetFile(stream, pre_buffer=False)
        facts = json.loads((part.metadata.metadata or {}).get(_COMMIT_KEY, b"{}"))
        if facts.get("format") != FORMAT_VERSION:
            return None
        columns = part.read(columns=["unit", "status", "sha256", "etag"]).to_pydict()
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return None
    return Commit(facts["source"], facts["path"], *map(tuple, columns.values()))


class PartWriter:
    """Writes one part a row group at a time to a temporary file, and puts that in its place when it is whole.

    Used as a context manager: leaving it without an exception moves the part; with one, nothing is left. A part
    without rows is not written, and one of an earlier build is then removed.
    """

    def __init__(self, lake: Lake, table: str, shard: Shard) -> None:
        self._lake = lake
        self._table = table
        self._path = lake.part_path(table, shard)
        self._temporary = lake.temporary_path()
        self._writer: pq.ParquetWriter | None = None
        self.commit_facts: dict[str, object] | None = None

    def write(self, rows: pa.Table) -> None:
        """Append rows as one row group, and records as several that are small enough to read one unit from."""
        if rows.num_rows == 0:
            return
        if self._writer is None:
            self._stream = self._temporary.open("xb")  # noqa: SIM115  (closed by __exit__)
            self._writer = pq.ParquetWriter(self._stream, rows.schema, **PARQUET_OPTIONS)
            if self.commit_facts is not None:
                facts = {"format": FORMAT_VERSION, **self.commit_facts}
                self._writer.add_key_value_metadata({_COMMIT_KEY: json.dumps(facts, sort_keys=True)})
        for group in split_records(rows) if self._table == "records" else (rows,):
            self._writer.write_table(group, row_group_size=group.num_rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is None:
            if kind is None:
                self._lake._remove(self._path)
            return
        try:
            with self._stream:
                self._writer.close()
            if kind is None:
                self._lake._move(self._temporary, self._path)
        finally:
            self._temporary.unlink(missing_ok=True)
