"""What DuckDB sees of a remote lake: its parts, by their URLs, to read.

DuckDB would need an extension for s3:// or az://, so it asks this filesystem. Parts of every table but `records` are
fetched whole, once, and kept beside the catalogue under a name that holds their mark: they are small and asked for
again and again. `records` is most of a lake, so of it only the ranges are fetched that a query needs.
"""

from __future__ import annotations

import hashlib
import threading
from datetime import UTC, datetime
from io import SEEK_CUR, SEEK_END, SEEK_SET, RawIOBase
from pathlib import Path
from typing import Any

from fsspec.spec import AbstractFileSystem

from warehouse.errors import LakeError
from warehouse.lake import Lake
from warehouse.remote import explain, foreign_errors
from warehouse.schema import BATCH_TABLES, TABLES
from warehouse.temporary import name_temporary

_RANGED = "records"


class RemoteParts(AbstractFileSystem):  # type: ignore[misc]
    """A read-only filesystem that holds a remote lake's parts as they are when a table is first asked for.

    Attributes:
        is_changed: whether a part was found to be written again since then; this filesystem is then of no more use.
    """

    cachable = False

    def __init__(self, lake: Lake) -> None:
        super().__init__()
        self.protocol = lake.prefix.removesuffix("://")
        self._lake = lake
        self._folder = lake.home / "parts"
        self._marks: dict[str, dict[str, str]] = {}
        self._ranged: set[str] = set()
        self.is_changed = False
        self._lock = threading.Lock()
        self._fetching: dict[str, threading.Lock] = {}

    # what DuckDB asks ----------------------------------------------------------------------------------------------

    def glob(self, path: str, **_: object) -> list[str]:
        """Give the one part that a pattern of `match_only` names: no request is made."""
        return [path.replace("[*]", "*").replace("[?]", "?").replace("[[]", "[")]

    def exists(self, path: str, **_: object) -> bool:
        """Say whether the lake has this part."""
        try:
            self._require_mark(path)
        except FileNotFoundError:
            return False
        return True

    def isfile(self, path: str) -> bool:
        """Say whether the lake has this part."""
        return self.exists(path)

    def info(self, path: str, **_: object) -> dict[str, Any]:
        """Give a part's size in bytes."""
        return {"name": path, "size": _size(self._require_mark(path)), "type": "file"}

    def modified(self, path: str) -> datetime:
        """Give one time for all: a part stays the same for as long as this filesystem is used."""
        return datetime.fromtimestamp(0, UTC)

    def unstrip_protocol(self, name: str) -> str:
        """Leave a part's name as the catalogue has it."""
        return name

    def open(self, path: str, mode: str = "rb", **_: object) -> Any:
        """Open a part for reading.

        Raises:
            PermissionError: to write.
            OSError: it is not there, or cannot be fetched.
        """
        if mode != "rb":
            raise PermissionError(f"{path} is only read here")
        mark = self._require_mark(path)
        if path.startswith(f"{self._lake.prefix}{self._lake.root}/{_RANGED}/"):
            return _RangedFile(self, path, _size(mark))
        return self._fetch(path, mark).open("rb")

    # what the warehouse asks ---------------------------------------------------------------------------------------

    def check_unchanged(self) -> None:
        """See that the parts read by ranges since the last call were the same from beginning to end.

        Raises:
            LakeError: one was written again meanwhile, so what was read may be of both.
        """
        with self._lock:
            ranged, self._ranged = self._ranged, set()
        if ranged:
            now = self._list(_RANGED)
            if any(now.get(path) != self._marks[_RANGED][path] for path in ranged):
                self.is_changed = True
                raise LakeError(f"{self._lake.url} was built again while it was read: ask again")

    def discard_old(self) -> None:
        """Remove the copies of parts that the lake no longer has."""
        for folder in self._folder.glob("*"):
            kept = {self._copy_path(path, mark) for path, mark in self._list(folder.name).items()}
            for copy in folder.rglob("*.parquet"):
                if copy not in kept:
                    copy.unlink(missing_ok=True)

    # how it is found -----------------------------------------------------------------------------------------------

    def _list(self, table: str) -> dict[str, str]:
        if table in BATCH_TABLES:
            return {self._lake.prefix + path: mark for path, mark in self._lake.batches(table).items()}
        marks = self._lake.marks(table)
        return {self._lake.prefix + self._lake.part_path(table, shard): mark for shard, mark in marks.items()}

    def _require_mark(self, path: str) -> str:
        table = path.removeprefix(f"{self._lake.prefix}{self._lake.root}/").partition("/")[0]
        if table not in TABLES and table not in BATCH_TABLES:
            raise FileNotFoundError(f"{path} is no part of {self._lake.url}")
        with self._lock:
            try:
                if table not in self._marks:
                    self._marks[table] = self._list(table)
                return self._marks[table][path]
            except KeyError:
                raise FileNotFoundError(f"{path} is no longer there") from None

    def _copy_path(self, path: str, mark: str) -> Path:
        name = path.removeprefix(f"{self._lake.prefix}{self._lake.root}/").removesuffix(".parquet")
        return self._folder / f"{name}.{hashlib.sha256(mark.encode()).hexdigest()[:16]}.parquet"

    def _fetch(self, path: str, mark: str) -> Path:
        """Give the copy of a part, fetched if this machine has not got it."""
        copy = self._copy_path(path, mark)
        with self._fetching.setdefault(path, threading.Lock()):
            if copy.exists():
                return copy
            copy.parent.mkdir(parents=True, exist_ok=True)
            temporary = name_temporary(copy.parent)
            try:
                try:
                    self._lake.fs.get_file(path.removeprefix(self._lake.prefix), str(temporary))
                except foreign_errors() as e:
                    raise self._explain(path, e) from e
                if temporary.stat().st_size != _size(mark):
                    raise self._say_changed(path)
                temporary.replace(copy)
            finally:
                temporary.unlink(missing_ok=True)
        return copy

    def fetch_range(self, path: str, start: int, end: int) -> bytes:
        """Fetch the bytes of a part from `start` to before `end`."""
        with self._lock:
            self._ranged.add(path)
        try:
            data: bytes = self._lake.fs.cat_file(path.removeprefix(self._lake.prefix), start=start, end=end)
        except foreign_errors() as e:
            raise self._explain(path, e) from e
        if len(data) != end - start:
            raise self._say_changed(path)
        return data

    def _explain(self, path: str, error: Exception) -> OSError:
        if isinstance(error, FileNotFoundError):
            return self._say_changed(path)
        return OSError(f"cannot read {path}: {explain(error)}")

    def _say_changed(self, path: str) -> OSError:
        self.is_changed = True
        return OSError(f"{path} was built again while it was read: ask again")


class _RangedFile(RawIOBase):
    """A part of which each read is one request."""

    def __init__(self, parts: RemoteParts, path: str, size: int) -> None:
        self._parts, self._path, self._size = parts, path, size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        self._at = offset + {SEEK_SET: 0, SEEK_CUR: self._at, SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._at + size, self._size)
        if end <= self._at:
            return b""
        data = self._parts.fetch_range(self._path, self._at, end)
        self._at = end
        return data


def _size(mark: str) -> int:
    return int(mark.rpartition("-")[2])
