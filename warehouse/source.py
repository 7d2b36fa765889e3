"""Where files come from: any folder or URL that fsspec can read and that holds the bucket's tree."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import fsspec
from fsspec.implementations.local import LocalFileSystem

from warehouse.datasets import Dataset
from warehouse.errors import SourceError
from warehouse.records import LIMITS

_BATCH = 64
_PROBES = 3
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"]+", re.IGNORECASE)


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
            self._fs, root = fsspec.core.url_to_fs(os.fspath(url))
        except (ValueError, ImportError) as e:
            raise SourceError(f"cannot read from {_without_secrets(os.fspath(url))}: {e}") from e
        self.location = os.fspath(url)
        self.is_local = isinstance(self._fs, LocalFileSystem)
        if self.is_local and not Path(root).is_dir():
            raise SourceError(f"no folder {root} to build from")
        # The query of a URL, as a signature, belongs at the end of each file's URL.
        root, mark, query = (root, "", "") if self.is_local else root.partition("?")
        self._root, self._query = root.rstrip("/"), mark + query
        self.url = self._fs.unstrip_protocol(self._root)
        if not self.is_local:
            self.url = _without_secrets(self.url)

    def resolve(self, dataset: Dataset, layer: int, units: Sequence[int]) -> str:
        """Find which of a dataset's path templates this source uses for some units of a layer.

        Returns:
            The first template under which there is any of these files; else the first that could not be looked up, so
            that fetching its files says why; "" where the source has none of them.
        """
        # A few units tell almost always. Where they are absent under every template, the others are asked.
        for asked in (units,) if self.is_local else (_spread(units), units):
            doubtful = ""
            for template in dataset.paths:
                answers = self._probe(template, layer, asked)
                if True in answers:
                    return template
                if None in answers:
                    doubtful = doubtful or template
            if doubtful:
                return doubtful
        return ""

    def _probe(self, template: str, layer: int, units: Sequence[int]) -> set[bool | None]:
        """Say whether there are files of some units: True of one that is there, None where that cannot be known."""
        if self.is_local:
            return {_is_file(self._local(template, layer, unit)) for unit in units}
        paths = [self._path(template, layer, unit) for unit in units]
        first_bytes = self._fs.cat_ranges(paths, 0, 1, on_error="return")
        return {isinstance(b, bytes) or (False if isinstance(b, FileNotFoundError) else None) for b in first_bytes}

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
            # Unlike `cat`, this takes no character of a path for a pattern.
            contents = self._fs.cat_ranges(paths, None, None, on_error="return")
            now = datetime.now(UTC)
            for unit, content in zip(batch, contents, strict=True):
                uri = self._uri(template, layer, unit)
                if isinstance(content, bytes):
                    yield Fetched(unit, "ok", uri, now, data=content)
                elif isinstance(content, FileNotFoundError):
                    yield Fetched(unit, "absent", uri, now)
                else:
                    reason = f"{type(content).__name__}: {_URL.sub(lambda url: _without_secrets(url[0]), str(content))}"
                    yield Fetched(unit, "failed", uri, now, error=reason[:500])

    def fetch_any(self, dataset: Dataset, template: str, layer: int, units: Sequence[int]) -> Iterator[Fetched]:
        """Read the files of some units, in order, under whichever of the dataset's paths each is.

        Args:
            dataset: whose units.
            template: the path that most are under, from `resolve`; "" where there are none.
            layer: the units' layer.
            units: which.

        Yields:
            One result for each unit, as `fetch`; one is absent where no path has it.
        """
        others = [path for path in dataset.paths if path != template] if template else []
        n = 1 if self.is_local else _BATCH
        for first in range(0, len(units), n):
            batch = units[first : first + n]
            results = {f.unit: f for f in self.fetch(template or dataset.paths[0], layer, batch)}
            for other in others:
                absent = [unit for unit in batch if results[unit].status == "absent"]
                if not absent:
                    break
                results |= {f.unit: f for f in self.fetch(other, layer, absent) if f.status != "absent"}
            yield from (results[unit] for unit in batch)

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
        return f"{self._root}/{template.format(layer=layer, unit=unit)}{self._query}"

    def _local(self, template: str, layer: int, unit: int) -> Path:
        return Path(self._path(template, layer, unit))

    def _uri(self, template: str, layer: int, unit: int) -> str:
        return f"{self.url}/{template.format(layer=layer, unit=unit)}"


def _spread(units: Sequence[int]) -> list[int]:
    """Choose a few units from the whole range, so that a probe does not hang on one absentee."""
    return [units[k * (len(units) - 1) // max(_PROBES - 1, 1)] for k in range(min(_PROBES, len(units)))]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _mark(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"


def _without_secrets(url: str) -> str:
    """Drop user, password and query of a URL: an access token may stand in any of them."""
    scheme, separator, rest = url.partition("?")[0].rpartition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}".rstrip("/")
