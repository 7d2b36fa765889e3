"""Shards on real clusters: Dask's scheduler and worker processes, and a Ray instance, on this machine."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from prefect import flow

from flows.runners import Runner, RunnerKind, ShardWork
from flows.shards import TASKS, run_shards
from tests.builds import Mirror, leftovers, plan, read_lake, register_small
from tests.builds import build as build_without_prefect
from tests.flows import workers
from tests.flows.clusters import DaskCluster, free_port, start_dask
from tests.stores import Store, run_moto
from tests.web import Web, serve
from warehouse.errors import LakeError, SourceError, WarehouseError
from warehouse.lake import Lake
from warehouse.mirror import make_mirror
from warehouse.plan import Selection
from warehouse.shard import ShardSummary, build_shard

LAYERS, UNITS = (0, 1, 2), tuple(range(8))
SELECTION = Selection(LAYERS, UNITS)
N_SHARDS = 12


@flow(task_runner=TASKS, validate_parameters=False)
def build_on(runner: Runner, lake: Lake, source: str, work: ShardWork) -> list[ShardSummary]:
    return run_shards(work, plan(lake, source, ["toy"], SELECTION).jobs, runner, is_quiet=True)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory, xl_mirror: Mirror) -> Iterator[Web]:
    """An HTTP server of three layers of eight small units."""
    root = tmp_path_factory.mktemp("toy")
    make_mirror(root, replace(xl_mirror.spec, layers=LAYERS, units=UNITS, path="acts/{layer}/{unit}.json"), seed=7)
    with serve(root) as web:
        yield web


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, web: Web) -> Lake:
    """The lake that one process builds without Prefect; do not write to it."""
    lake = Lake(tmp_path_factory.mktemp("alone") / "lake")
    register_small(lake, shard_units=2)
    build_without_prefect(lake, web.url, ["toy"], SELECTION)
    return lake


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake without shards, that knows the toy model; each is of two units."""
    lake = Lake(tmp_path / "lake")
    register_small(lake, shard_units=2)
    return lake


@pytest.fixture(scope="module")
def moto() -> Iterator[Store]:
    """An S3 store."""
    with run_moto() as store:
        yield store


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory, moto: Store) -> Iterator[DaskCluster]:
    """A scheduler that gives up a shard at which two workers died, and two worker processes that can use the store."""
    allowed = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
    with start_dask(tmp_path_factory.mktemp("dask"), 2, allowed | dict(moto.environment)) as cluster:
        yield cluster


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait seconds, not minutes, for a cluster that is not there."""
    for name in ("TO_CONNECT", "FOR_WORKERS", "BETWEEN_LOOKS"):
        monkeypatch.setattr(f"flows.runners._SECONDS_{name}", 2)


# Dask ----------------------------------------------------------------------------------------------------------------


def test_two_dask_workers_share_the_shards_and_build_what_one_process_builds(
    tmp_path: Path, web: Web, lake: Lake, alone: Lake, dask: DaskCluster
) -> None:
    summaries = build_on(Runner("dask", scheduler=dask.address), lake, web.url, workers.build_in_company)
    assert len({summary.shard for summary in summaries}) == len(summaries) == N_SHARDS
    assert len(workers.signers(tmp_path / "marks")) == 2
    assert read_lake(lake) == read_lake(alone)
    assert leftovers(lake) == []


def test_two_dask_workers_build_on_an_object_store_what_one_process_builds_in_a_folder(
    tmp_path: Path, web: Web, alone: Lake, dask: DaskCluster, moto: Store
) -> None:
    with moto.reachable():
        lake = Lake(moto.make_bucket("lakes") + "/toy")
        register_small(lake, shard_units=2)
        work = partial(workers.build_in_company, marks=tmp_path / "marks")
        build_on(Runner("dask", scheduler=dask.address), lake, web.url, work)
        assert read_lake(lake) == read_lake(alone)
    assert len(workers.signers(tmp_path / "marks")) == 2


def test_a_relative_lake_is_built_here_though_dask_workers_are_at_home_elsewhere(
    tmp_path: Path, web: Web, lake: Lake, alone: Lake, dask: DaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    build_on(Runner("dask", scheduler=dask.address), Lake("lake"), web.url, workers.build_without_prefect_loaded)
    assert read_lake(lake) == read_lake(alone)


def test_a_dask_cluster_of_this_machine_is_started_where_no_scheduler_is_named(
    web: Web, lake: Lake, alone: Lake
) -> None:
    build_on(Runner("dask", workers=2), lake, web.url, workers.build_in_company)
    assert read_lake(lake) == read_lake(alone)


def test_a_shard_whose_dask_worker_is_killed_is_built_by_another(
    tmp_path: Path, web: Web, lake: Lake, alone: Lake, dask: DaskCluster
) -> None:
    build_on(Runner("dask", scheduler=dask.address), lake, web.url, workers.build_and_be_killed_once)
    assert (tmp_path / "killed").exists()
    assert read_lake(lake) == read_lake(alone)


def test_a_shard_at_which_every_dask_worker_dies_is_one_line_and_the_next_build_completes_the_lake(
    web: Web, lake: Lake, alone: Lake, dask: DaskCluster
) -> None:
    with pytest.raises(WarehouseError, match=r"^worker after worker died at toy/mlp/0/[^\n]+ memory[^\n]+ to go on$"):
        build_on(Runner("dask", scheduler=dask.address), lake, web.url, workers.be_killed)
    build_on(Runner("dask", 2, dask.address), lake, web.url, build_shard)
    assert read_lake(lake) == read_lake(alone)


def test_an_error_in_a_dask_worker_reaches_the_caller_as_it_is(web: Web, lake: Lake, dask: DaskCluster) -> None:
    with pytest.raises(LakeError, match=r"^no room for toy/mlp/0/\d-\d$"):
        build_on(Runner("dask", scheduler=dask.address), lake, web.url, workers.refuse)


def test_the_workers_of_a_scheduler_are_counted_and_those_asked_for_are_waited_for(
    dask: DaskCluster, impatient: None
) -> None:
    assert Runner("dask", scheduler=dask.address).counted() == Runner("dask", 2, dask.address)
    assert Runner("dask", 1, dask.address).counted().workers == 1
    with pytest.raises(WarehouseError, match=r"^tcp://[^\n]+ has 2 of the 3 workers waited for: start some with"):
        Runner("dask", 3, dask.address).counted()


def test_workers_that_lack_the_warehouse_are_refused_before_they_do_anything(
    dask: DaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.runners.version", partial(workers.find_version_only_in, os.getpid()))
    with pytest.raises(WarehouseError, match=r"^the warehouse is 1 here and not installed on the worker tcp://"):
        Runner("dask", scheduler=dask.address).counted()


@pytest.mark.parametrize("lost", ["scheduler", "workers"])
def test_a_cluster_that_goes_away_in_the_middle_is_one_line_and_no_hang(
    tmp_path: Path, web: Web, lake: Lake, impatient: None, lost: str
) -> None:
    (tmp_path / "cluster").mkdir()
    with start_dask(tmp_path / "cluster", 1, {}) as cluster:

        def lose() -> None:
            while not (tmp_path / "marks").exists():
                time.sleep(0.05)
            for process in (cluster.scheduler, *cluster.workers) if lost == "scheduler" else cluster.workers:
                process.send_signal(signal.SIGTERM)

        losing = threading.Thread(target=lose)
        losing.start()
        with pytest.raises(WarehouseError, match=r"^(the Dask scheduler went away|no Dask worker is left): [^\n]+$"):
            build_on(Runner("dask", scheduler=cluster.address), lake, web.url, workers.never_end)
        losing.join()


# Ray -----------------------------------------------------------------------------------------------------------------


def test_two_ray_workers_build_what_one_process_builds_though_one_is_killed(
    tmp_path: Path, web: Web, lake: Lake, alone: Lake
) -> None:
    build_on(Runner("ray", workers=2), lake, web.url, workers.build_and_be_killed_once)
    assert (tmp_path / "killed").exists()
    assert read_lake(lake) == read_lake(alone)


def test_an_error_in_a_ray_worker_reaches_the_caller_as_it_is(web: Web, lake: Lake) -> None:
    with pytest.raises(LakeError, match=r"^no room for toy/mlp/0/\d-\d$"):
        build_on(Runner("ray", workers=1), lake, web.url, workers.refuse)


# any runner ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, module", [("dask", "distributed"), ("ray", "ray")])
def test_a_runner_that_is_not_installed_is_one_line_with_the_command_that_installs_it(
    kind: RunnerKind, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with (
        pytest.raises(WarehouseError, match=rf"pip install 'activation-warehouse\[{kind}\]'$"),
        Runner(kind, 1).start(),
    ):
        pass


@pytest.mark.parametrize("kind, scheme", [("dask", "tcp://"), ("ray", "ray://"), ("ray", "")])
def test_a_scheduler_that_cannot_be_reached_is_one_line(kind: RunnerKind, scheme: str) -> None:
    address = f"{scheme}127.0.0.1:{free_port()}"
    with pytest.raises(WarehouseError, match=rf"^no {kind} scheduler answers at {address} \([^\n]+ starts one and"):
        Runner(kind, scheduler=address).counted()
    with pytest.raises(WarehouseError, match=rf"^no {kind} scheduler answers at nowhere \(it has no host or no port"):
        Runner(kind, scheduler="nowhere").counted()


def test_a_scheduler_without_a_cluster_runner_is_refused() -> None:
    with pytest.raises(WarehouseError, match=r"add --runner dask or --runner ray$"):
        Runner("local", scheduler="tcp://127.0.0.1:8786")


def only_begun_of_layer_1(folder: Path) -> str:
    """Give the one shard of layer 1 that was begun: of two that wait for one worker, either may be the first."""
    (mark,) = (folder / "marks").glob("*-1-*")
    first = int(mark.name.rpartition("-")[2])
    return f"toy/mlp/1/{first}-{first + 1}"


def test_no_shard_is_started_once_the_source_is_down_and_what_was_done_is_kept(
    tmp_path: Path, web: Web, lake: Lake
) -> None:
    with pytest.raises(SourceError) as caught:
        build_on(Runner(workers=1), lake, web.url, workers.find_the_source_down_in_layer_1)
    named = re.escape(only_begun_of_layer_1(tmp_path))
    assert re.fullmatch(rf"the source has not answered for {named}: [^\n]+ to go on", str(caught.value))
    assert len(list((tmp_path / "marks").iterdir())) == 5
    assert [shard.layer for shard in lake.shards()] == [0] * 4


def test_no_shard_is_started_once_one_could_not_be_done(tmp_path: Path, web: Web, lake: Lake) -> None:
    with pytest.raises(LakeError) as caught:
        build_on(Runner(workers=1), lake, web.url, workers.fail_in_layer_1)
    assert str(caught.value) == f"no room for {only_begun_of_layer_1(tmp_path)}"
    assert len(list((tmp_path / "marks").iterdir())) == 5
