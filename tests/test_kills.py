"""Builds over HTTP that are killed at random moments, again and again: what is committed is whole at every moment."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.builds import Mirror, Rows, build, leftovers, plan, read_part, register_small
from tests.faults import marked
from tests.web import Web, serve
from warehouse.lake import Lake
from warehouse.mirror import make_mirror
from warehouse.parts import Shard
from warehouse.plan import Selection
from warehouse.shard import ShardJob, build_shard

N_KILLS = 50
N_BUILDS = 6
"""Builds to be killed of one lake, each of which goes on where the last one left it."""
SELECTION = Selection((0, 1), tuple(range(12)))
TABLES = ("files", "records", "units", "token_stats", "raw")

Content: TypeAlias = dict[Shard, dict[str, Rows]]
"""The rows of each committed shard, by table."""


class Nursery:
    """A process that has loaded the warehouse's code, and starts copies of itself to be killed."""

    def __init__(self, warm_up: tuple[ShardJob, ...]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.test_kills"])
        self._here, there = context.Pipe()
        self._process = context.Process(target=_nurse, args=(warm_up, there), daemon=True)
        self._process.start()
        assert self._here.recv() == "ready"

    def build_and_kill(self, jobs: tuple[ShardJob, ...], seconds: float) -> int:
        """Build shards in a new process, kill it after so long, and give the signal that ended it, 0 for none."""
        self._here.send((jobs, seconds))
        return int(self._here.recv())

    def close(self) -> None:
        """End the process."""
        self._here.send(None)
        self._process.join()


def _nurse(warm_up: tuple[ShardJob, ...], there: Connection) -> None:
    for job in warm_up:
        build_shard(job)  # from a folder: fetching would start a thread, which a fork does not copy
    there.send("ready")
    while (order := there.recv()) is not None:
        jobs, seconds = order
        child = os.fork()
        if child == 0:
            for job in jobs:
                build_shard(job)
            os._exit(0)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)  # until it is waited for, its number is its own
        there.send(os.WTERMSIG(os.waitpid(child, 0)[1]))


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory, xl_mirror: Mirror) -> tuple[Path, Path]:
    """Two versions of the same files."""
    roots = (tmp_path_factory.mktemp("old"), tmp_path_factory.mktemp("new"))
    assert SELECTION.layers is not None
    assert SELECTION.units is not None
    spec = replace(
        xl_mirror.spec, layers=SELECTION.layers, units=SELECTION.units, path="acts/{layer}/{unit}.json", n_excerpts=50
    )
    for seed, root in enumerate(roots):
        make_mirror(root, spec, seed=seed)
    return roots


@pytest.fixture
def web(trees: tuple[Path, Path]) -> Iterator[Web]:
    with serve(trees[0]) as web:
        web.default = marked
        yield web


@pytest.fixture
def nursery(tmp_path: Path, trees: tuple[Path, Path]) -> Iterator[Nursery]:
    lake = make_lake(tmp_path / "warm-up")
    nursery = Nursery(plan(lake, trees[0], ["toy"], SELECTION, keep_raw=True).jobs[:1])
    yield nursery
    nursery.close()


def make_lake(path: Path) -> Lake:
    lake = Lake(path)
    register_small(lake, shard_units=3)
    return lake


def read_committed(lake: Lake) -> Content:
    content = {shard: {table: read_part(lake, table, shard) for table in TABLES} for shard in lake.shards()}
    for rows in (rows for tables in content.values() for rows in tables.values()):
        for row in rows:
            row.pop("fetched_at", None)
    return content


def test_fifty_kills_at_random_moments_each_leave_whole_shards_and_end_in_the_lake_of_an_undisturbed_build(
    tmp_path: Path, trees: tuple[Path, Path], web: Web, nursery: Nursery
) -> None:
    versions = []
    for place, root in enumerate(trees):
        web.root = root
        undisturbed = make_lake(tmp_path / f"undisturbed-{place}")
        started = time.monotonic()
        build(undisturbed, web.url, ["toy"], SELECTION, keep_raw=True)
        duration = time.monotonic() - started
        versions.append(read_committed(undisturbed))
    assert versions[0].keys() == versions[1].keys()
    assert all(versions[0][shard][table] != versions[1][shard][table] for shard in versions[0] for table in TABLES)

    draw = random.Random(3)
    ends: Counter[int] = Counter()
    n_mixed = 0
    while ends[signal.SIGKILL] < N_KILLS:
        lake = make_lake(tmp_path / f"lake-{ends.total()}")
        for place in range(N_BUILDS):
            version = place // 2 % 2  # what the server has changes under the lake, and back
            web.root = trees[version]
            asking = {"is_refresh": place > 0, "keep_raw": True}
            jobs = plan(lake, web.url, ["toy"], SELECTION, **asking).jobs
            end = nursery.build_and_kill(jobs, draw.uniform(0.0, duration))
            ends[end] += 1
            if end != signal.SIGKILL:
                duration *= 0.8  # it was there first
            lake.create()
            assert leftovers(lake) == []
            found = read_committed(lake)
            assert all(rows in (versions[0][shard], versions[1][shard]) for shard, rows in found.items())
            n_mixed += len({rows == versions[0][shard] for shard, rows in found.items()}) == 2
        build(lake, web.url, ["toy"], SELECTION, is_refresh=True, keep_raw=True)
        assert read_committed(lake) == versions[version]
        assert leftovers(lake) == []
        assert plan(lake, web.url, ["toy"], SELECTION, keep_raw=True).jobs == ()
    assert set(ends) <= {signal.SIGKILL, 0}
    assert n_mixed > 0  # some were killed in the middle of their shards
