"""A shard that goes wrong, by an error, a full disk or a kill: what is left, and that a second run mends it."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pyarrow as pa
import pytest

from tests.builds import (
    LAYER_0,
    N_STEPS,
    Mirror,
    build,
    file_of,
    leftovers,
    plan,
    read_lake,
    read_part,
    register_small,
    take_steps,
    write_units,
)
from warehouse.errors import LakeError, SourceError
from warehouse.flatten import Flattener
from warehouse.lake import Lake
from warehouse.mirror import make_mirror
from warehouse.plan import Selection
from warehouse.records import NeuronRecord
from warehouse.shard import ShardJob, build_shard, extract_shard

# what is left when it goes wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_good", [0, 3])
def test_an_exception_in_the_middle_leaves_the_old_commit_and_no_temporary_file(
    tmp_path: Path, xl_tree: Path, monkeypatch: pytest.MonkeyPatch, n_good: int
) -> None:
    lake = Lake(tmp_path / "lake")
    build(lake, xl_tree, selection=LAYER_0)
    before = read_lake(lake)
    monkeypatch.setattr("warehouse.flatten.ROW_GROUP_VALUES", 1)
    flush, n_flushed = Flattener.flush, 0

    def break_down(flattener: Flattener) -> dict[str, pa.Table]:
        nonlocal n_flushed
        if n_flushed == n_good:
            raise MemoryError("no more")
        n_flushed += 1
        return flush(flattener)

    monkeypatch.setattr(Flattener, "flush", break_down)
    with pytest.raises(MemoryError, match="no more"):
        build(lake, xl_tree, selection=LAYER_0, force=True)
    assert read_lake(lake) == before
    assert leftovers(lake) == []


def test_a_full_disk_is_one_line_and_leaves_the_old_commit_and_no_temporary_file(tmp_path: Path, xl_tree: Path) -> None:
    lake = Lake(tmp_path / "lake")
    build(lake, xl_tree, selection=LAYER_0)
    before = read_lake(lake)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, limits[1]))
    try:
        with pytest.raises(LakeError, match=r"^cannot write gpt2-xl/mlp_post_act/0/0-511 to [^\n]+: File too large$"):
            build(lake, xl_tree, selection=LAYER_0, force=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_lake(lake) == before
    assert leftovers(lake) == []
    build(lake, xl_tree, selection=LAYER_0, force=True)
    assert read_lake(lake) == before


def test_a_lake_that_cannot_be_written_is_one_line(tmp_path: Path, xl_mirror: Mirror) -> None:
    (tmp_path / "file").touch()
    (job,) = plan(Lake(tmp_path / "none"), xl_mirror.root, selection=LAYER_0).jobs
    for work in (build_shard, extract_shard):
        with pytest.raises(LakeError, match=r"^cannot write gpt2-xl/mlp_post_act/0/0-511 to [^\n]+: Not a directory$"):
            work(replace(job, lake=str(tmp_path / "file" / "lake")))


def test_a_disk_that_takes_no_more_is_one_line_and_leaves_nothing_half_written(
    tmp_path: Path, xl_mirror: Mirror
) -> None:
    lake = Lake(tmp_path / "lake")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (0, 100, 4_000):  # bytes of a file, which to its writer is like a disk that is full
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        try:
            with pytest.raises(
                LakeError, match=r"^cannot write gpt2-xl/mlp_post_act/0/0-511 to [^\n]+: File too large$"
            ):
                build(lake, xl_mirror.root, selection=LAYER_0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert lake.shards() == []
        assert leftovers(lake) == []
    (summary,) = build(lake, xl_mirror.root, selection=LAYER_0)
    assert summary.ok == 8


def test_a_source_that_went_away_is_a_source_error_and_leaves_the_commit(tmp_path: Path, xl_tree: Path) -> None:
    lake = Lake(tmp_path / "lake")
    build(lake, xl_tree, selection=LAYER_0)
    before = read_lake(lake)
    (job,) = plan(lake, xl_tree, selection=LAYER_0, force=True).jobs
    xl_tree.rename(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match=r"^no folder "):
        build_shard(job)
    assert read_lake(lake) == before


# killed --------------------------------------------------------------------------------------------------------------


def build_and_be_killed_at(step: int, jobs: tuple[ShardJob, ...]) -> None:
    """Build shards, and kill this process just before the step of that number."""
    n_taken = 0

    def take(_: str) -> None:
        nonlocal n_taken
        if n_taken == step:
            os.kill(os.getpid(), signal.SIGKILL)
        n_taken += 1

    with pytest.MonkeyPatch.context() as monkeypatch:
        take_steps(monkeypatch, take)
        for job in jobs:
            build_shard(job)


def build_when_told(jobs: tuple[ShardJob, ...], warm_up: ShardJob, told: Connection) -> None:
    """Build a shard elsewhere, so that all code is loaded; say so; and build shards when an answer comes."""
    build_shard(warm_up)
    told.send("ready")
    told.recv()
    for job in jobs:
        build_shard(job)


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.ForkServerContext:
    """Processes that start with the warehouse's code and none of this one's threads, like those of the flows."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.test_interruptions"])
    return context


@pytest.mark.parametrize("step", range(N_STEPS), ids=["commit", "first part", "second", "third", "files"])
def test_a_build_killed_between_any_two_steps_is_whole_when_it_is_run_again(
    tmp_path: Path, xl_tree: Path, processes: multiprocessing.context.ForkServerContext, step: int
) -> None:
    lake, undisturbed = Lake(tmp_path / "lake"), Lake(tmp_path / "undisturbed")
    build(lake, xl_tree, selection=LAYER_0)
    old = read_lake(lake)
    file_of(xl_tree, 3).write_bytes(file_of(xl_tree, 3).read_bytes().replace(b'"mean"', b'"mean":7,"note"'))
    file_of(xl_tree, 4).unlink()
    jobs = plan(lake, xl_tree, selection=LAYER_0).jobs
    worker = processes.Process(target=build_and_be_killed_at, args=(step, jobs))
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    if step == 0:
        assert read_lake(lake) == old
    else:
        assert lake.shards() == []
    assert leftovers(lake) != []
    build(lake, xl_tree, selection=LAYER_0)
    build(undisturbed, xl_tree, selection=LAYER_0)
    assert read_lake(lake) == read_lake(undisturbed) != old
    assert leftovers(lake) == []


def test_a_build_killed_at_random_moments_ends_with_the_content_of_an_undisturbed_one(
    tmp_path: Path, xl_mirror: Mirror, processes: multiprocessing.context.ForkServerContext
) -> None:
    spec = replace(xl_mirror.spec, layers=(0, 1, 2, 3), units=tuple(range(8)), path="acts/{layer}/{unit}.json")
    make_mirror(tmp_path / "tree", spec, seed=5)
    lake, undisturbed = Lake(tmp_path / "lake"), Lake(tmp_path / "undisturbed")
    for each in (lake, undisturbed):
        register_small(each, shard_units=2)
    selection = Selection(spec.layers, spec.units)
    build(undisturbed, tmp_path / "tree", ["toy"], selection)
    started = time.monotonic()
    build(undisturbed, tmp_path / "tree", ["toy"], selection, force=True)
    duration = time.monotonic() - started
    warm_up = replace(
        plan(undisturbed, tmp_path / "tree", ["toy"], selection, force=True).jobs[0], lake=str(tmp_path / "w")
    )
    Lake(tmp_path / "w").create()
    draw = random.Random(8)
    exits = []
    for kill in range(8):
        lake.create()
        assert leftovers(lake) == []
        jobs = plan(lake, tmp_path / "tree", ["toy"], selection, force=kill > 2).jobs
        here, there = processes.Pipe()
        worker = processes.Process(target=build_when_told, args=(jobs, warm_up, there))
        worker.start()
        assert here.recv() == "ready"
        here.send("go")
        time.sleep(draw.uniform(0.0, duration) if kill else 0.0)
        worker.kill()
        worker.join()
        exits.append(worker.exitcode)
    build(lake, tmp_path / "tree", ["toy"], selection)
    assert read_lake(lake) == read_lake(undisturbed)
    lake.create()
    assert leftovers(lake) == []
    assert plan(lake, tmp_path / "tree", ["toy"], selection).jobs == ()
    assert exits[0] == -signal.SIGKILL
    assert set(exits) <= {-signal.SIGKILL, 0}


def test_a_lake_is_the_same_whichever_way_its_units_were_asked_for(tmp_path: Path, xl_tree: Path) -> None:
    at_once, bit_by_bit = Lake(tmp_path / "once"), Lake(tmp_path / "bits")
    build(at_once, xl_tree, selection=LAYER_0)
    for chosen in ((5,), (0, 7), (1, 2, 3), tuple(range(8))):
        build(bit_by_bit, xl_tree, selection=Selection((0,), chosen))
    assert read_lake(at_once) == read_lake(bit_by_bit)


def test_two_builds_at_once_of_one_lake_end_in_the_same_content(
    tmp_path: Path, xl_tree: Path, processes: multiprocessing.context.ForkServerContext
) -> None:
    dataset = register_small(Lake(tmp_path / "lake"), shard_units=2)
    write_units(tmp_path / "toy", dataset, [(0, u, NeuronRecord(0, u, mean=float(u))) for u in range(8)])
    lake = Lake(tmp_path / "lake")
    jobs = plan(lake, tmp_path / "toy", ["toy"], LAYER_0).jobs
    workers = [processes.Process(target=build_and_be_killed_at, args=(-1, jobs)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert leftovers(lake) == []
    assert [row["mean"] for shard in lake.shards() for row in read_part(lake, "units", shard)] == list(range(8))


def test_ctrl_c_stops_says_how_to_go_on_and_leaves_whole_shards_alone(tmp_path: Path, xl_mirror: Mirror) -> None:
    command = [sys.executable, "-m", "warehouse", "build", "gpt2-xl", "--source", str(xl_mirror.root)]
    command += ["--lake", str(tmp_path)]  # all 624 shards, so that there is time
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    lake = Lake(tmp_path)
    while not lake.shards():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: workers get it too
    _, printed = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "stopped: run the same command again" in printed
    assert "Traceback" not in printed
    time.sleep(2)  # workers see that they are alone, and end
    n_done = len(lake.shards())
    assert 0 < n_done < 624
    assert all(lake.read_commit(shard) is not None for shard in lake.shards())
    time.sleep(1)
    assert len(lake.shards()) == n_done
    lake.create()
    assert leftovers(lake) == []
