"""Where files come from: any folder or URL that fsspec can read and that holds the bucket's tree."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from warehouse.datasets import Dataset
from warehouse.errors import SourceError
from warehouse.records import LIMITS

_BATCH = 64
_PROBES = 3


@dataclass(frozen=True, slots=True)
class Fetched:
    """One file as it came, or did not come.

    Attributes:
        unit: whose file.
        status: ok with data, absent (the source has no such file), rejected (too large to read) or failed.
        uri: where it was looked for.
        data: the bytes as stored.
        etag: the source's mark of this version; of a local file its modification time and size.
        error: why it was rejected or failed.
        fetched_at: when.
    """

    unit: int
    status: Literal["ok", "absent", "rejected", "failed"]
    uri: str
    fetched_at: datetime
    data: bytes | None = None
    etag: str | None = None
    error: str | None = None


class Source:
    """A root under which datasets' path templates are looked up."""

    def __init__(self, url: str | os.PathLike[str]) -> None:
        """Open a source.

        Args:
            url: a folder, or a URL of any filesystem that fsspec knows.

        Raises:
            SourceError: no such folder, or a URL that no installed filesystem reads.
        """
        try:
            self._fs, self._root = fsspec.core.url_to_fs(os.fspath(url))
        except (ValueError, ImportError) as e:
            raise SourceError(f"cannot read from {os.fspath(url)}: {e}") from e
        self._root = self._root.rstrip("/")
        self.location = os.fspath(url)
        self.is_local = isinstance(self._fs, LocalFileSystem)
        if self.is_local and not Path(self._root).is_dir():
            raise SourceError(f"no folder {self._root} to build from")
        self.url = _without_secrets(self._fs.unstrip_protocol(self._root))

    def resolve(self, dataset: Dataset, layer: int, units: Sequence[int]) -> str:
        """Find which of a dataset's path templates this source uses for some units of a layer.

        Returns:
            The first template that any of a few units answers to; "" where none does.
        """
        for template in dataset.paths:
            if self.is_local:
                if any((self._local(template, layer, unit)).is_file() for unit in units):
                    return template
            elif any(self._fs.exists(self._path(template, layer, unit)) for unit in _spread(units)):
                return template
        return ""

    def fetch(self, template: str, layer: int, units: Sequence[int]) -> Iterator[Fetched]:
        """Read the files of some units, in order.

        Args:
            template: one of the dataset's paths.
            layer: the units' layer.
            units: which.

        Yields:
            One result for each unit; a file that cannot be had is a result too.
        """
        if self.is_local:
            for unit in units:
                yield self._read_local(template, layer, unit)
            return
        for first in range(0, len(units), _BATCH):
            batch = units[first : first + _BATCH]
            paths = [self._path(template, layer, unit) for unit in batch]
            contents = self._fs.cat(paths, on_error="return", batch_size=_BATCH)
            now = datetime.now(UTC)
            for unit, path in zip(batch, paths, strict=True):
                content, uri = contents[path], self._uri(template, layer, unit)
                if isinstance(content, bytes):
                    yield Fetched(unit, "ok", uri, now, data=content)
                elif isinstance(content, FileNotFoundError):
                    yield Fetched(unit, "absent", uri, now)
                else:
                    yield Fetched(unit, "failed", uri, now, error=f"{type(content).__name__}: {content}"[:500])

    def current_mark(self, template: str, layer: int, unit: int) -> str | None:
        """Give a local file's mark as it is now, None where there is no file."""
        try:
            return _mark(self._local(template, layer, unit).stat())
        except OSError:
            return None

    def _read_local(self, template: str, layer: int, unit: int) -> Fetched:
        path, uri, now = self._local(template, layer, unit), self._uri(template, layer, unit), datetime.now(UTC)
        try:
            with path.open("rb") as f:
                status = os.fstat(f.fileno())
                if status.st_size > LIMITS.file_bytes:
                    reason = f"{status.st_size:,} bytes: at most {LIMITS.file_bytes:,} are read of a file"
                    return Fetched(unit, "rejected", uri, now, etag=_mark(status), error=reason)
                return Fetched(unit, "ok", uri, now, data=f.read(), etag=_mark(status))
        except (FileNotFoundError, NotADirectoryError):
            return Fetched(unit, "absent", uri, now)
        except OSError as e:
            return Fetched(unit, "failed", uri, now, error=f"{type(e).__name__}: {e.strerror or e}")

    def _path(self, template: str, layer: int, unit: int) -> str:
        return f"{self._root}/{template.format(layer=layer, unit=unit)}"

    def _local(self, template: str, layer: int, unit: int) -> Path:
        return Path(self._path(template, layer, unit))

    def _uri(self, template: str, layer: int, unit: int) -> str:
        return f"{self.url}/{template.format(layer=layer, unit=unit)}"


def _spread(units: Sequence[int]) -> list[int]:
    """Choose a few units from the whole range, so that a probe does not hang on one absentee."""
    return [units[k * (len(units) - 1) // max(_PROBES - 1, 1)] for k in range(min(_PROBES, len(units)))]


def _mark(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"


def _without_secrets(url: str) -> str:
    """Drop user, password and query of a URL: an access token may stand in any of them."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rsplit("@", 1)[-1], parts.path, "", "")).rstrip("/")
