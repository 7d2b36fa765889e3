"""Where files come from: any folder or URL that fsspec can read and that holds the bucket's tree."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import fsspec
from fsspec.implementations.local import LocalFileSystem

from warehouse.clients import Answer, Reserve, TransientError, client_for, open_session
from warehouse.datasets import Dataset
from warehouse.errors import SourceError
from warehouse.fetch import Fetcher, in_order
from warehouse.options import FetchOptions
from warehouse.records import LIMITS
from warehouse.remote import EXTRAS

_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"]+", re.IGNORECASE)
_AZURE_ACCOUNTS = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_CONNECTION_STRING")


@dataclass(frozen=True, slots=True)
class Fetched:
    """One file as it came, or did not come.

    Attributes:
        unit: whose file.
        status: ok with data, absent (the source has no such file), unchanged (the version that was known is still
            there), rejected (too large to read) or failed.
        uri: where it was looked for.
        data: the bytes as stored.
        etag: the source's mark of this version; of a local file its modification time and size.
        error: why it was rejected or failed.
        fetched_at: when.
    """

    unit: int
    status: Literal["ok", "absent", "unchanged", "rejected", "failed"]
    uri: str
    fetched_at: datetime
    data: bytes | None = None
    etag: str | None = None
    error: str | None = None


class Source:
    """A root under which datasets' path templates are looked up.

    Attributes:
        location: the URL as it was given, secrets and all.
        url: the URL as it may be shown and kept.
        is_local: whether it is a folder.
        is_down: whether it was found to answer nobody.
        path: the template under which a file was found last; "" before any was.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        options: FetchOptions = FetchOptions(),  # noqa: B008  (frozen)
        path: str = "",
    ) -> None:
        """Open a source.

        Args:
            url: a folder, or a URL of any filesystem that fsspec knows.
            options: how to ask for files.
            path: the template to look under first.

        Raises:
            SourceError: no such folder, or a URL that no installed filesystem reads.
        """
        self.location = os.fspath(url)
        self.path = path
        self._options = options
        self._fs, root = _open_filesystem(self.location)
        self.is_local = isinstance(self._fs, LocalFileSystem)
        if self.is_local and not Path(root).is_dir():
            raise SourceError(f"no folder {root} to build from")
        # The query of a URL, as a signature, belongs at the end of each file's URL.
        root, mark, query = (root, "", "") if self.is_local else root.partition("?")
        self._root, self._query = root.rstrip("/"), mark + query
        self.url = self._fs.unstrip_protocol(self._root)
        if not self.is_local:
            self.url = without_secrets(self.url)
            client = client_for(self._fs, options.timeout_seconds)
            self._fetcher = Fetcher(client, options, canary=f"{self._root}/nothing-is-here{self._query}")

    @property
    def is_down(self) -> bool:
        """Whether the source was found to answer nobody."""
        return not self.is_local and self._fetcher.is_down

    def require(self, dataset: Dataset, layer: int, unit: int) -> None:
        """Check that the source answers, whatever it says of a file.

        Raises:
            SourceError: it cannot be reached, or is not allowed to be read.
        """
        hasty = replace(self._options, attempts=min(3, self._options.attempts), patience_seconds=0)
        (found,) = Source(self.location, hasty).fetch(dataset, layer, [unit])
        if found.status == "failed":
            raise SourceError(f"{self.url} cannot be read: {found.error}")

    def fetch(
        self, dataset: Dataset, layer: int, units: Sequence[int], known: Mapping[str, str] | None = None
    ) -> Iterator[Fetched]:
        """Read the files of some units, in order, under whichever of the dataset's paths each is.

        A file is looked for first where the last one was found. It is absent where every path says so, and failed
        where one does not say.

        Args:
            dataset: whose units.
            layer: the units' layer.
            units: which.
            known: the etags of versions that are not wanted again, by uri.

        Yields:
            One result for each unit; a file that cannot be had is a result too.
        """
        if self.is_local:
            for unit in units:
                yield self._read_any(dataset, layer, unit)
            return

        async def work(index: int, reserve: Reserve) -> Fetched:
            return await self._ask_any(dataset, layer, units[index], known or {}, reserve)

        loop = getattr(self._fs, "loop", None) or fsspec.asyn.get_loop()
        yield from in_order(loop, work, len(units), self._options.concurrency)

    def current_mark(self, dataset: Dataset, layer: int, unit: int, path: str = "") -> str | None:
        """Give a local file's mark as it is now, looked for under `path` first; None where there is no file."""
        for template in (path, *dataset.paths) if path else dataset.paths:
            try:
                return _mark(self._local(template, layer, unit).stat())
            except OSError:
                continue
        return None

    def _templates(self, dataset: Dataset) -> list[str]:
        """List a dataset's paths, the one that answered last before the others."""
        return sorted(dataset.paths, key=lambda template: template != self.path)

    async def _ask_any(
        self, dataset: Dataset, layer: int, unit: int, known: Mapping[str, str], reserve: Reserve
    ) -> Fetched:
        failure: Fetched | None = None
        for template in self._templates(dataset):
            uri = self._uri(template, layer, unit)
            try:
                answer = await self._fetcher.get(self._path(template, layer, unit), known.get(uri), reserve)
            except TransientError as e:
                answer = Answer("refused", error=str(e))
            now = datetime.now(UTC)
            if answer.status in ("ok", "unchanged", "rejected"):
                self.path = template
                return Fetched(unit, answer.status, uri, now, answer.data, answer.etag, answer.error)
            if answer.status == "refused" and failure is None:
                failure = Fetched(unit, "failed", uri, now, error=_clean(answer.error or ""))
        return failure or Fetched(unit, "absent", self._uri(dataset.paths[0], layer, unit), datetime.now(UTC))

    def _read_any(self, dataset: Dataset, layer: int, unit: int) -> Fetched:
        failure: Fetched | None = None
        for template in self._templates(dataset):
            found = self._read_local(template, layer, unit)
            if found.status in ("ok", "rejected"):
                self.path = template
                return found
            if found.status == "failed":
                failure = failure or found
        return failure or Fetched(unit, "absent", self._uri(dataset.paths[0], layer, unit), datetime.now(UTC))

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


def _open_filesystem(url: str) -> tuple[Any, str]:
    """Open the filesystem of a URL, and give the root's path in it.

    Raises:
        SourceError: no installed filesystem reads it.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme in ("az", "abfs") and not any(name in os.environ for name in _AZURE_ACCOUNTS):
        # Without an account of the user's, az://ACCOUNT/CONTAINER is public, and public blobs are plain HTTPS.
        account, _, container = rest.partition("/")
        if re.fullmatch("[a-z0-9]{3,24}", account):
            url = f"https://{account}.blob.core.windows.net/{container}"
            scheme = "https"
    how: dict[str, Any] = {"get_client": open_session} if separator and scheme in ("http", "https") else {}
    try:
        fs, root = fsspec.core.url_to_fs(url, **how)
    except ImportError as e:
        extra = f": pip install 'activation-warehouse[{EXTRAS[scheme]}]'" if scheme in EXTRAS else ""
        raise SourceError(f"cannot read from {without_secrets(url)}: {e}{extra}") from e
    except ValueError as e:
        raise SourceError(f"cannot read from {without_secrets(url)}: {e}") from e
    return fs, root


def _clean(reason: str) -> str:
    """Give a foreign error's text on one line, without secrets, and not longer than anybody reads."""
    return _URL.sub(lambda url: without_secrets(url[0]), " ".join(reason.split()))[:500]


def _mark(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"


def without_secrets(url: str) -> str:
    """Drop user, password and query of a URL: an access token may stand in any of them."""
    scheme, separator, rest = url.partition("?")[0].rpartition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}".rstrip("/")
