"""One lake of all datasets and their siblings, and a real server of it that most tests ask."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
import uvicorn

from tests.builds import Mirror, build
from warehouse.catalogue import build_catalogue
from warehouse.datasets import builtin_datasets
from warehouse.lake import Lake
from warehouse.mirror import make_mirror
from warehouse.server.app import create_app
from warehouse.server.settings import ServeSettings, SqlLimits

KEPT_RAW = ("gpt2-xl/explanations", "gpt2-small/mlp_post_act_ae_v1")
"""Datasets of the served lake whose files' bytes are kept."""
LIMITS = SqlLimits(
    n_workers=2, n_waiting=2, waiting_seconds=60, seconds=1.5, rows=500, answer_bytes=2**21, memory_megabytes=128
)


@dataclass(frozen=True)
class Served:
    """A server under test.

    Attributes:
        url: where it listens, without a slash at the end.
        client: asks it, without compression unless a test says so.
        lake: what it serves; do not write to it.
    """

    url: str
    client: httpx.Client
    lake: Lake


@contextmanager
def serving(settings: ServeSettings) -> Iterator[Served]:
    """Serve in a thread for the time of the context."""
    server = uvicorn.Server(uvicorn.Config(create_app(settings), port=0, http="h11", log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline, "the server did not start"
        time.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    with httpx.Client(base_url=url, headers={"Accept-Encoding": "identity"}, timeout=30) as client:
        yield Served(url, client, Lake(settings.lake))
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def sibling_mirror(tmp_path_factory: pytest.TempPathFactory, nine_mirror: Mirror) -> Mirror:
    """The siblings' files about the units of `nine_mirror`, all good; do not write to it."""
    siblings = tuple(d for d in builtin_datasets().values() if d.holds != "activations")
    spec = replace(nine_mirror.spec, datasets=siblings, absent=frozenset(), bad={})
    root = tmp_path_factory.mktemp("sibling_mirror")
    return Mirror(root, spec, make_mirror(root, spec, seed=2))


@pytest.fixture(scope="session")
def served_lake(
    tmp_path_factory: pytest.TempPathFactory, built_lake: Lake, nine_mirror: Mirror, sibling_mirror: Mirror
) -> Lake:
    """The lake of `nine_mirror` and `sibling_mirror`, some of its files kept; do not write to it."""
    lake = Lake(shutil.copytree(built_lake.root, tmp_path_factory.mktemp("served") / "lake"))
    for dataset in sibling_mirror.spec.datasets:
        kept = dataset.key in KEPT_RAW
        build(lake, sibling_mirror.root, [dataset.key], sibling_mirror.selection, keep_raw=kept)
    build(lake, nine_mirror.root, [KEPT_RAW[1]], nine_mirror.selection, force=True, keep_raw=True)
    build_catalogue(lake)
    return lake


@pytest.fixture(scope="session")
def served(served_lake: Lake) -> Iterator[Served]:
    """A server of `served_lake` with small limits on SQL, as the command starts it on the loopback."""
    with serving(ServeSettings(served_lake.root, sql=LIMITS)) as served:
        yield served


@pytest.fixture
def own_tree(tmp_path: Path, xl_mirror: Mirror) -> Path:
    """A copy of the XL mirror from which a test builds a lake of its own."""
    return Path(shutil.copytree(xl_mirror.root, tmp_path / "tree"))
