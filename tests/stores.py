"""Real object stores for tests: moto's server for S3, and Azurite, Microsoft's own emulator of Blob Storage."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest
from azure.storage.blob import ContainerClient

SECRET_KEY = "the-secret-key-of-these-tests"
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's own account, as Microsoft documents it."""
_AZURITE = Path(__file__).parent / "servers" / "node_modules" / ".bin" / "azurite-blob"
_START_SECONDS = 60


@dataclass(frozen=True)
class Store:
    """An object store that runs.

    Attributes:
        scheme: of its URLs.
        endpoint: where it answers, without a slash at the end.
        environment: what says so to the libraries, and who asks.
        secret: the part of the environment that nothing may print or keep.
    """

    scheme: str
    endpoint: str
    environment: Mapping[str, str]
    secret: str

    @contextmanager
    def reachable(self) -> Iterator[None]:
        """Put its environment in place for this process and those it starts."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            _forget_filesystems(self.scheme)
            yield
        _forget_filesystems(self.scheme)

    def filesystem(self) -> Any:
        """Give a filesystem of its own, which shares nothing with what is tested."""
        return fsspec.filesystem(self.scheme, skip_instance_cache=True, use_listings_cache=False)

    def make_bucket(self, name: str) -> str:
        """Make a bucket or container, and give its URL."""
        self.filesystem().mkdir(name)
        return f"{self.scheme}://{name}"

    def keys(self, bucket: str) -> set[str]:
        """List every object of a bucket, a thousand at most, as the store has them: markers of folders too."""
        if self.scheme == "s3":
            listed = self.filesystem().call_s3("list_objects_v2", Bucket=bucket)
            return {found["Key"] for found in listed.get("Contents", [])}
        with _container(self, bucket) as client:
            return set(client.list_blob_names())


@contextmanager
def run_moto() -> Iterator[Store]:
    """Run moto's S3."""
    port = _free_port()
    endpoint = f"http://127.0.0.1:{port}"
    with _running([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], endpoint):
        environment = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        yield Store("s3", endpoint, environment, SECRET_KEY)


@contextmanager
def run_azurite() -> Iterator[Store]:
    """Run Azurite; skip the test where it is not installed, but on CI fail."""
    if not _AZURITE.exists():
        say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        say("Azurite is not installed: npm ci --prefix tests/servers")
    port = _free_port()
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    options = ["--silent", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
    with _running([str(_AZURITE), *options, "--blobHost", "127.0.0.1", "--blobPort", str(port)], endpoint):
        connection = f"{anonymous_connection(endpoint)}AccountKey={ACCOUNT_KEY};"
        yield Store("az", endpoint, {"AZURE_STORAGE_CONNECTION_STRING": connection}, ACCOUNT_KEY)


def anonymous_connection(endpoint: str) -> str:
    """Give the connection string of Azurite for someone without a key, who can read public containers."""
    return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};BlobEndpoint={endpoint};"


def publish(azurite: Store, container: str, folder: Path) -> str:
    """Make a container whose blobs anyone may read but nobody may list, as the real bucket is, and fill it.

    Args:
        azurite: where.
        container: its name, which must be new.
        folder: the files, each of which becomes a blob named by its path.

    Returns:
        The container's plain http URL; with `anonymous_connection` it is also az://{container}.
    """
    with _container(azurite, container) as client:
        client.create_container(public_access="blob")
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                client.upload_blob(path.relative_to(folder).as_posix(), path.read_bytes())
    return f"{azurite.endpoint}/{container}"


def _container(azurite: Store, name: str) -> ContainerClient:
    return ContainerClient.from_connection_string(azurite.environment["AZURE_STORAGE_CONNECTION_STRING"], name)


def _forget_filesystems(scheme: str) -> None:
    """Make fsspec look at the environment again: it shares one filesystem in a process."""
    fsspec.get_filesystem_class(scheme).clear_instance_cache()


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def _running(command: list[str], url: str) -> Iterator[None]:
    """Run a server from a folder of its own until it answers, and end it afterwards."""
    folder = tempfile.mkdtemp(prefix="warehouse-tests-server-")
    log = Path(folder, "log")
    with log.open("wb") as out:
        server = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(url):
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{command} did not start: {log.read_text(errors='replace')}")
            time.sleep(0.1)
        yield
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True  # it refuses, so it is there
    except OSError:
        return False
    return True
