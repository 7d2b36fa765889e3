"""Sources on real servers: moto's S3, Azurite by its own protocol and as plain HTTP, without a key, and nginx."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.servers import ServerMissing, serve_nginx
from tests.builds import HASTY, LAYER_0, XL, Mirror, Rows, build, file_of, file_rows, read_lake
from tests.stores import Store, anonymous_connection, publish, run_azurite, run_moto
from warehouse.errors import SourceError
from warehouse.lake import Lake
from warehouse.source import Source


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, xl_mirror: Mirror) -> Path:
    """The XL mirror without one unit, and with one that is a web page."""
    tree = Path(shutil.copytree(xl_mirror.root, tmp_path_factory.mktemp("tree") / "tree"))
    file_of(tree, 6).unlink()
    file_of(tree, 7).write_bytes(b"<html>Sign in</html>")
    return tree


@pytest.fixture(scope="module")
def s3(tree: Path) -> Iterator[Store]:
    with run_moto() as store, store.reachable():
        store.make_bucket("mirror")
        store.filesystem().put(str(tree / "data"), "mirror/root/data", recursive=True)
        yield store


@pytest.fixture(scope="module")
def azurite(tree: Path) -> Iterator[Store]:
    with run_azurite() as store:
        publish(store, "mirror", tree)
        yield store


@pytest.fixture
def nginx(tree: Path) -> Iterator[str]:
    with ExitStack() as stack:
        try:
            url = stack.enter_context(serve_nginx(tree))
        except ServerMissing as e:
            say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
            say(str(e))
        yield url


def content(lake: Lake) -> dict[str, Rows]:
    """Read a lake, but for what depends on the source."""
    parts = read_lake(lake)
    for rows in parts.values():
        for row in rows:
            row.pop("etag", None)
            row.pop("uri", None)
    return parts


def check_source(url: str, tree: Path, tmp_path: Path) -> Lake:
    """See that a lake from this source is the one from the folder, says where from, and can be refreshed."""
    lake, local = Lake(tmp_path / "lake"), Lake(tmp_path / "local")
    (summary,) = build(lake, url, selection=LAYER_0)
    assert (summary.ok, summary.absent, summary.rejected, summary.failed) == (6, 1, 1, 0)
    build(local, tree, selection=LAYER_0)
    assert content(lake) == content(local)
    rows = file_rows(lake)
    assert all(rows[unit]["etag"] for unit in range(6))
    assert rows[0]["uri"].endswith(f"/{XL.paths[0].format(layer=0, unit=0)}")
    (again,) = build(lake, url, selection=LAYER_0, is_refresh=True)
    assert (again.unchanged, again.ok, again.bytes_in) == (8, 0, 0)
    return lake


def test_s3(s3: Store, tree: Path, tmp_path: Path) -> None:
    lake = check_source("s3://mirror/root", tree, tmp_path)
    assert file_rows(lake)[0]["uri"].startswith("s3://mirror/root/data/")
    assert not any(s3.secret.encode() in path.read_bytes() for path in Path(lake.root).rglob("*.parquet"))


def test_a_bucket_that_is_not_there_is_all_absent_and_a_store_that_is_not_there_is_an_error(
    s3: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    Source("s3://mirror/elsewhere", HASTY).require(XL, 0, 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with s3.reachable():
        os.environ["AWS_ENDPOINT_URL"] = "http://127.0.0.1:1"
        with pytest.raises(SourceError, match=r"^s3://mirror cannot be read: "):
            Source("s3://mirror", HASTY).require(XL, 0, 0)


def test_azure_with_a_key(azurite: Store, tree: Path, tmp_path: Path) -> None:
    with azurite.reachable():
        lake = check_source("az://mirror", tree, tmp_path)
    assert not any(azurite.secret.encode() in path.read_bytes() for path in Path(lake.root).rglob("*.parquet"))


def test_azure_without_a_key(azurite: Store, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with azurite.reachable():
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", anonymous_connection(azurite.endpoint))
        check_source("az://mirror", tree, tmp_path)


def test_azure_as_plain_http(azurite: Store, tree: Path, tmp_path: Path) -> None:
    check_source(f"{azurite.endpoint}/mirror", tree, tmp_path)


def test_azure_without_an_account_is_the_public_container_over_https(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AZURE_STORAGE_")]:
        monkeypatch.delenv(name)
    source = Source("az://openaipublic/neuron-explainer")
    assert source.url == "https://openaipublic.blob.core.windows.net/neuron-explainer"


def test_nginx(nginx: str, tree: Path, tmp_path: Path) -> None:
    check_source(nginx, tree, tmp_path)
