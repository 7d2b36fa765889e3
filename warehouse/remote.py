"""Lakes on object stores: which filesystem, where this machine keeps what it needs of one, and errors said once.

The plugins of fsspec find credentials in their usual environment; none is taken from a URL, written or printed.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from warehouse.errors import LakeError

CACHE_VARIABLE = "WAREHOUSE_CACHE"
EXTRAS = {"s3": "s3", "s3a": "s3", "az": "azure", "abfs": "azure", "abfss": "azure", "gs": "gcs", "gcs": "gcs"}
"""The extra of this package that brings the plugin of a URL's scheme."""
_FOREIGN = {
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "azure.core.exceptions": ("AzureError",),
    "aiohttp": ("ClientError",),
    "gcsfs.retry": ("HttpError",),
    "google.auth.exceptions": ("GoogleAuthError",),
}
_SILENT = {"ConnectionError", "HTTPClientError", "ServiceRequestError", "ServiceResponseError", "ClientConnectionError"}
_SECRET = re.compile(r"(?i)\b([\w-]*(?:sig|signature|accountkey|secret|token|password))=[^&;\s'\"]+")
_CHECK = "check the credentials in the environment (AWS_…, AZURE_STORAGE_…, GOOGLE_…)"


def open_filesystem(url: str) -> tuple[Any, str]:
    """Find the filesystem of a lake.

    Listings are never cached: what another machine commits must be seen.

    Args:
        url: a folder, or a URL as s3://bucket/prefix, az://container/prefix or gs://bucket/prefix.

    Returns:
        The filesystem and the lake's path on it, without a slash at its end.

    Raises:
        LakeError: no installed filesystem reads the URL, it holds a secret, or nothing can be written there.
    """
    scheme, mark, _ = url.partition("://")
    if mark and scheme not in ("file", "local"):
        _refuse_secrets(url)
        if scheme in ("http", "https"):
            raise LakeError(f"no lake can be at {url}: it could not be listed or written; see docs/object-stores.md")
    try:
        fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as e:
        extra = EXTRAS.get(scheme)
        advice = f"pip install 'activation-warehouse[{extra}]'" if extra else str(e)
        raise LakeError(f"no lake can be at {url}: the plugin for {scheme}:// is missing: {advice}") from e
    except foreign_errors(ValueError) as e:
        raise LakeError(f"no lake can be at {url}: {explain(e)}") from e
    if not isinstance(fs, LocalFileSystem) and not root.strip("/"):
        raise LakeError(f"no lake can be at {url}: name a bucket or container, and a prefix in it")
    return fs, root.rstrip("/")


def _refuse_secrets(url: str) -> None:
    """Keep credentials out of URLs, which are printed, and stored in catalogues and flow runs."""
    place = urlsplit(url)
    is_account = place.scheme in ("abfs", "abfss", "az") and ":" not in place.netloc.rpartition("@")[0]
    if ("@" in place.netloc and not is_account) or "?" in url:
        bare = f"{place.scheme}://{place.netloc.rpartition('@')[2]}{place.path}"
        raise LakeError(
            f"no lake can be at a URL with a user, a key or a query in it: give {bare}, and the credentials in the "
            "environment (AWS_…, AZURE_STORAGE_…, GOOGLE_…)"
        )


def foreign_errors(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """Give the exceptions by which the filesystems that are loaded say that they failed."""
    loaded = [(sys.modules[name], names) for name, names in _FOREIGN.items() if name in sys.modules]
    return (OSError, *more, *(getattr(module, name) for module, names in loaded for name in names))


def explain(error: Exception) -> str:
    """Say on one line why a store failed, and what to do where that is known; without credentials."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    said = _SECRET.sub(r"\1=…", " ".join(said.partition("\n")[0].split()))[:300]
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, FileNotFoundError) or "ResourceNotFoundError" in kinds:
        return f"there is no such bucket or container ({said}): make it first, or mend the URL"
    is_refused = isinstance(error, PermissionError) or getattr(error, "status_code", None) in (401, 403)
    if is_refused or any(re.search("Credential|Authentication", kind) for kind in kinds):
        return f"the store refuses ({said}): {_CHECK}"
    if isinstance(error, ConnectionError | TimeoutError) or kinds & _SILENT:
        return f"the store does not answer ({said}): check the network and the endpoint, and run it again"
    return said


@contextmanager
def store_errors(doing: str, url: str) -> Iterator[None]:
    """Turn what a store's filesystem raises into one clear line.

    Raises:
        LakeError: in place of any foreign exception.
    """
    try:
        yield
    except foreign_errors() as e:
        raise LakeError(f"cannot {doing} {url}: {explain(e)}") from e


def cache_folder(fs: Any, url: str) -> Path:
    """Name the folder of this machine that keeps the catalogue of a remote lake, and copies of its small parts.

    Two accounts or endpoints may have buckets of one name, so what tells them apart is in the folder's name too.

    Args:
        fs: the lake's filesystem.
        url: the lake, spelt in one way.
    """
    given = os.environ.get(CACHE_VARIABLE)
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(given).expanduser() if given else Path(base).expanduser() / "activation-warehouse"
    account = str(getattr(getattr(fs, "service_client", None), "url", "")).partition("?")[0]
    endpoints = [os.environ.get(name) for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST")]
    return folder / hashlib.sha256(repr((url, account, endpoints)).encode()).hexdigest()[:16]
