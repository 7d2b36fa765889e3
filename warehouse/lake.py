"""A lake: a folder of Parquet parts, and the rule by which a shard's parts become part of it.

A shard is a run of units of one layer. Its parts have names that depend on nothing but the shard; each is written
under `.tmp/` and then moved into place, and the part of `files` is moved last: that part is the commit. A shard
without it was never built, whatever else lies there. No lock and no server is needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.datasets import Dataset, builtin_datasets, parse_registration
from warehouse.errors import InvalidRegistration, LakeError
from warehouse.parts import PARQUET_OPTIONS, Commit, Shard
from warehouse.schema import TABLES

CATALOGUE_NAME = "warehouse.duckdb"
FORMAT_VERSION = 1
_COMMIT_KEY = b"warehouse.commit"
_STALE_SECONDS = 24 * 3600
_TEMPORARY = re.compile(r"(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]+\.tmp")  # and what DuckDB writes beside one
_PART = re.compile(r"model=([^/]+)/component=([^/]+)/layer=(\d+)/units-(\d+)-(\d+)\.parquet$")


class Lake:
    """The paths, parts and commits of one lake."""

    def __init__(self, url: str | os.PathLike[str]) -> None:
        """Point at a lake, which need not exist yet.

        Args:
            url: a folder, or a URL of any filesystem that fsspec knows.

        Raises:
            LakeError: a URL that no installed filesystem reads.
        """
        try:
            self.fs, self.root = fsspec.core.url_to_fs(os.fspath(url))
        except (ValueError, ImportError) as e:
            raise LakeError(f"no lake can be at {os.fspath(url)}: {e}") from e
        self.root = self.root.rstrip("/")
        self.url = os.fspath(url)
        self.is_local = isinstance(self.fs, fsspec.implementations.local.LocalFileSystem)
        if named := re.search(r"[^/]*=[^/]*", self.root):
            raise LakeError(
                f"no lake can be at {self.url}: readers of partitioned Parquet would take {named[0]!r} for a column"
            )

    def __reduce__(self) -> tuple[type[Lake], tuple[str]]:
        return (Lake, (self.url,))

    @property
    def catalogue_path(self) -> Path:
        """Where the catalogue's DuckDB file lies."""
        return Path(self.root) / CATALOGUE_NAME

    def create(self) -> None:
        """Make the lake's folder, and remove what killed writers left under `.tmp/`.

        Raises:
            LakeError: the folder cannot be made or written.
        """
        try:
            self.fs.makedirs(f"{self.root}/.tmp", exist_ok=True)
            if self.is_local:
                probe = Path(self.temporary_path())
                probe.touch()
                probe.unlink()
                self._sweep()
        except OSError as e:
            raise LakeError(f"cannot write to the lake {self.url}: {e.strerror or e}") from e

    def require(self) -> None:
        """Check that the lake is there.

        Raises:
            LakeError: there is no lake at this place, with the command that makes one.
        """
        if not any(self.fs.exists(f"{self.root}/{name}") for name in ("files", "raw", "datasets")):
            raise LakeError(
                f"no lake at {self.url}: build one with 'warehouse build DATASET --lake {self.url}', "
                "or say where it is with --lake or WAREHOUSE_LAKE"
            )

    # datasets ------------------------------------------------------------------------------------------------------

    def datasets(self) -> Mapping[str, Dataset]:
        """Give every dataset that can be in this lake: the built-in ones and those registered in it."""
        known = dict(builtin_datasets())
        for path in self._glob("datasets/*.toml"):
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
        self.fs.makedirs(f"{self.root}/datasets", exist_ok=True)
        self._put(text.encode("utf-8"), f"{self.root}/datasets/{name}.toml")
        return datasets

    # parts ---------------------------------------------------------------------------------------------------------

    def part_path(self, table: str, shard: Shard) -> str:
        """Give the path of one table's part for a shard, whether it is there or not."""
        return f"{self.root}/{table}/{shard.part_name}"

    def shards(self, table: str = "files") -> list[Shard]:
        """List the shards that have a part of a table; those of `files` are the committed ones."""
        shards = []
        for path in self._glob(f"{table}/model=*/component=*/layer=*/units-*.parquet"):
            if match := _PART.search(path):
                model, component, layer, first, last = match.groups()
                shards.append(Shard(model, component, int(layer), int(first), int(last)))
        return sorted(shards)

    def parts(self, table: str) -> list[str]:
        """List the paths of a table's committed parts."""
        committed = set(self.shards())
        return [self.part_path(table, shard) for shard in self.shards(table) if shard in committed]

    def write_part(self, table: str, shard: Shard) -> PartWriter:
        """Open a writer for one table's part."""
        return PartWriter(self, table, shard)

    def iterate_part(self, table: str, shard: Shard) -> Iterator[pa.Table]:
        """Read one part a row group at a time; a part without rows is not there, and gives none."""
        if not self.fs.exists(self.part_path(table, shard)):
            return
        with self.fs.open(self.part_path(table, shard), "rb") as f:
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
        path = self.part_path(table, shard)
        if not self.fs.exists(path):
            return None
        with self.fs.open(path, "rb") as f:
            try:
                part = pq.ParquetFile(f)
                facts = json.loads((part.metadata.metadata or {}).get(_COMMIT_KEY, b"{}"))
                if facts.get("format") != FORMAT_VERSION:
                    return None
                columns = part.read(columns=["unit", "status", "sha256", "etag"]).to_pydict()
            except (pa.ArrowException, OSError, ValueError, KeyError):
                return None
        return Commit(facts["source"], facts["path"], *map(tuple, columns.values()))

    def remove_shard(self, shard: Shard) -> None:
        """Take a shard out of the lake before its parts are replaced: its commit first, then the others.

        A reader whose catalogue names these parts gets an error until the new ones are there, and never a mixture.
        """
        for table in ("files", *(table for table in TABLES if table != "files")):
            self._remove(self.part_path(table, shard))

    # writing -------------------------------------------------------------------------------------------------------

    def _glob(self, pattern: str) -> list[str]:
        """List the paths under the root that match, whatever characters the root's own name has."""
        root = re.sub(r"[*?[]", r"[\g<0>]", self.root)
        return sorted(self.fs.glob(f"{root}/{pattern}"))

    def temporary_path(self) -> str:
        """Name a new file under `.tmp/`, from which a whole one can be moved into place."""
        return f"{self.root}/.tmp/{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"

    def _move(self, temporary: str, path: str) -> None:
        self.fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        if self.is_local:
            os.replace(temporary, path)  # noqa: PTH105  (both are the filesystem's own strings)
        else:
            self.fs.mv(temporary, path)

    def _remove(self, path: str) -> None:
        with suppress(FileNotFoundError):  # another writer may have been faster
            if self.fs.exists(path):
                self.fs.rm_file(path)

    def _put(self, data: bytes, path: str) -> None:
        temporary = self.temporary_path()
        with self.fs.open(temporary, "wb") as f:
            f.write(data)
        self._move(temporary, path)

    def _sweep(self) -> None:
        host = socket.gethostname()
        for path in Path(self.root, ".tmp").iterdir():
            written_by = _TEMPORARY.match(path.name)
            if written_by is None:
                continue
            is_here = written_by["host"] == host and Path("/proc").exists()
            is_dead = is_here and not Path("/proc", written_by["pid"]).exists()
            with suppress(FileNotFoundError):  # a live writer has just moved it into place
                if is_dead or path.stat().st_mtime < time.time() - _STALE_SECONDS:
                    path.unlink()


class PartWriter:
    """Writes one part a row group at a time, and puts it in its place when it is whole.

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
        """Append rows as one row group."""
        if rows.num_rows == 0:
            return
        if self._writer is None:
            self._stream = self._lake.fs.open(self._temporary, "wb")
            self._writer = pq.ParquetWriter(self._stream, rows.schema, **PARQUET_OPTIONS)
            if self.commit_facts is not None:
                facts = {"format": FORMAT_VERSION, **self.commit_facts}
                self._writer.add_key_value_metadata({_COMMIT_KEY: json.dumps(facts, sort_keys=True)})
        self._writer.write_table(rows, row_group_size=rows.num_rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is None:
            if kind is None:
                self._lake._remove(self._path)
            return
        is_moved = False
        try:
            with self._stream:
                self._writer.close()
            if kind is None:
                self._lake._move(self._temporary, self._path)
                is_moved = True
        finally:
            if not is_moved:
                self._lake.fs.rm_file(self._temporary)
