"""A shard's life: what is committed, in which order, and what is left when it goes wrong."""

from __future__ import annotations

import gzip
import hashlib
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import pyarrow as pa
import pytest

from tests.builds import (
    XL,
    Mirror,
    build,
    file_rows,
    good_units,
    leftovers,
    plan,
    read_lake,
    read_part,
    register_small,
    statuses,
    write_units,
)
from warehouse.checks import run_checks
from warehouse.errors import LakeError, SourceError
from warehouse.flatten import Flattener
from warehouse.lake import Lake, Shard
from warehouse.mirror import make_mirror
from warehouse.plan import Selection, plan_flatten
from warehouse.records import LIMITS, NeuronRecord, UnitId
from warehouse.shard import ShardJob, build_shard, extract_shard, flatten_shard

LAYER_0 = Selection((0,), tuple(range(8)))
N_STEPS = 5
"""Moves of a shard's parts, and the removal of its old commit."""


@pytest.fixture
def tree(tmp_path: Path, xl_mirror: Mirror) -> Path:
    """A copy of the XL mirror that a test may change."""
    return Path(shutil.copytree(xl_mirror.root, tmp_path / "tree"))


def file_of(tree: Path, unit: int) -> Path:
    return tree / XL.paths[0].format(layer=0, unit=unit)


def take_steps(monkeypatch: pytest.MonkeyPatch, step: Callable[[str], None]) -> None:
    """Call a function with the table's name before a part is moved, and with `-files` before a commit is removed."""
    move, remove = Lake._move, Lake.remove_commit

    def moving(lake: Lake, temporary: str, path: str) -> None:
        assert Path(temporary).parent == Path(lake.root, ".tmp")
        step(path.removeprefix(lake.root + "/").partition("/")[0])
        move(lake, temporary, path)

    def removing(lake: Lake, shard: Shard) -> None:
        step("-files")
        remove(lake, shard)

    monkeypatch.setattr(Lake, "_move", moving)
    monkeypatch.setattr(Lake, "remove_commit", removing)


# what is committed ---------------------------------------------------------------------------------------------------


def test_parts_are_moved_into_place_when_all_are_whole_and_files_last(
    tmp_path: Path, xl_mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    lake = Lake(tmp_path)

    def step(name: str) -> None:
        steps.append(name)
        assert lake.shards() == [] or name == "-files"

    take_steps(monkeypatch, step)
    build(lake, xl_mirror.root, selection=LAYER_0)
    assert len(steps) == N_STEPS
    assert steps[0] == "-files"
    assert sorted(steps[1:4]) == ["records", "token_stats", "units"]
    assert steps[4] == "files"


def test_a_row_of_files_says_what_the_file_is(tmp_path: Path, xl_mirror: Mirror) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    lake = Lake(tmp_path)
    (summary,) = build(lake, xl_mirror.root, selection=LAYER_0)
    for unit, row in file_rows(lake).items():
        data = file_of(xl_mirror.root, unit).read_bytes()
        assert before <= row.pop("fetched_at") <= datetime.now(UTC)
        assert row.pop("etag")
        assert row == {
            "unit": unit,
            "status": "ok",
            "uri": file_of(xl_mirror.root, unit).as_uri(),
            "format": "json",
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "error": None,
        }
    assert (summary.ok, summary.bytes_in) == (8, sum(file_of(xl_mirror.root, u).stat().st_size for u in range(8)))
    assert summary.n_records == sum(group.num_rows for group in lake.iterate_part("records", summary.shard))


def test_every_file_of_the_mirror_is_ok_absent_or_rejected_as_it_was_made(
    nine_mirror: Mirror, built_lake: Lake
) -> None:
    expected = dict.fromkeys(nine_mirror.report.forms, "ok")
    expected |= dict.fromkeys(nine_mirror.report.absent, "absent")
    expected |= dict.fromkeys(nine_mirror.report.bad, "rejected")
    found = statuses(built_lake)
    assert {unit_id: found.pop(unit_id) for unit_id in expected} == expected
    assert found == {}
    assert set(good_units(nine_mirror)) == set(nine_mirror.report.forms)


def test_the_mirror_of_nine_passes_every_check(built_lake: Lake) -> None:
    assert {result.name: result.sample for result in run_checks(built_lake) if result.n_failing} == {}


def test_the_rows_of_the_nine_name_the_format_by_content_and_not_by_suffix(
    nine_mirror: Mirror, built_lake: Lake
) -> None:
    formats = {"json": "json", "legacy": "torch-legacy"}
    for shard in built_lake.shards():
        for row in read_part(built_lake, "files", shard):
            if row["status"] == "ok":
                form = nine_mirror.report.forms[UnitId(shard.model, shard.component, shard.layer, row["unit"])]
                assert row["format"] == formats.get(form, "torch-zip")


# bad files -----------------------------------------------------------------------------------------------------------


def test_bad_files_are_rejected_with_a_reason_and_the_rest_goes_through(tmp_path: Path, tree: Path) -> None:
    whole = file_of(tree, 0).read_bytes()
    bad = {
        1: (whole[: len(whole) // 2], ""),
        2: (b"<!DOCTYPE html><html>502 Bad Gateway</html>", "<!DOCTYPE html>"),
        3: (b"PK\x03\x04" + bytes(range(256)) * 8, ""),
        4: (gzip.compress(bytes(LIMITS.file_bytes + 1), 9), f"{LIMITS.file_bytes}"),
        5: (b"", "empty"),
        6: (file_of(tree, 7).read_bytes(), "7"),
    }
    for unit, (data, _) in bad.items():
        file_of(tree, unit).write_bytes(data)
    lake = Lake(tmp_path / "lake")
    (summary,) = build(lake, tree, selection=LAYER_0)
    assert (summary.ok, summary.rejected, summary.failed, summary.absent) == (2, 6, 0, 0)
    rows = file_rows(lake)
    for unit, (data, says) in bad.items():
        row = rows[unit]
        assert (row["status"], row["format"], row["bytes"]) == ("rejected", None, len(data))
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        assert says in row["error"]
        assert row["error"].strip()
        assert "\n" not in row["error"]
    assert {row["unit"] for row in read_part(lake, "records", summary.shard)} == {0, 7}
    assert {row["unit"] for row in read_part(lake, "units", summary.shard)} == {0, 7}
    assert {row["unit"] for row in read_part(lake, "token_stats", summary.shard)} == {0, 7}


def test_a_file_beyond_the_limit_is_a_rejected_row_without_bytes(tmp_path: Path, tree: Path) -> None:
    os.truncate(file_of(tree, 3), LIMITS.file_bytes + 1)
    lake = Lake(tmp_path / "lake")
    (summary,) = build(lake, tree, selection=LAYER_0)
    assert (summary.ok, summary.rejected) == (7, 1)
    row = file_rows(lake)[3]
    assert (row["bytes"], row["sha256"]) == (None, None)
    assert "268,435,457 bytes" in row["error"]
    assert plan(lake, tree, selection=LAYER_0).jobs == ()


def test_a_part_that_no_longer_has_rows_goes_away(tmp_path: Path, tree: Path) -> None:
    lake = Lake(tmp_path / "lake")
    build(lake, tree, selection=LAYER_0)
    assert len(read_lake(lake)) == 4
    for unit in range(8):
        file_of(tree, unit).write_bytes(NeuronRecord(0, unit).to_json())
    build(lake, tree, selection=LAYER_0)
    assert {path.partition("/")[0] for path in read_lake(lake)} == {"units", "files"}
    for unit in range(8):
        file_of(tree, unit).unlink()
    build(lake, tree, selection=LAYER_0)
    assert {path.partition("/")[0] for path in read_lake(lake)} == {"files"}
    assert {row["status"] for row in file_rows(lake).values()} == {"absent"}


# raw packs -----------------------------------------------------------------------------------------------------------


def test_extract_and_flatten_give_the_tables_of_a_build_with_the_source_gone(
    tmp_path: Path, nine_mirror: Mirror, built_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warehouse.shard._PACK_BYTES", 40_000)
    tree = tmp_path / "tree"
    names = ["gpt2-small", "gpt2-xl"]
    lake, directly = Lake(tmp_path / "lake"), Lake(tmp_path / "directly")
    lake.create()
    shutil.copytree(nine_mirror.root, tree)
    build(directly, tree, names, nine_mirror.selection)
    jobs = plan(lake, tree, names, nine_mirror.selection, table="raw").jobs
    extracted = [extract_shard(job) for job in jobs]
    assert lake.shards() == []
    assert max(sum(1 for _ in lake.iterate_part("raw", job.shard)) for job in jobs) > 1
    shutil.rmtree(tree)
    flattened = [flatten_shard(job) for job in plan_flatten(lake, names, force=False).jobs]
    assert read_lake(lake) == read_lake(directly)
    assert {path for path in read_lake(lake)} == {path for path in read_lake(built_lake)}
    assert [(s.ok, s.bytes_in) for s in extracted] == [
        (s.ok + s.rejected, s.bytes_in) for s in sorted(flattened, key=lambda s: [j.shard for j in jobs].index(s.shard))
    ]


def test_a_raw_pack_keeps_the_bytes_of_every_file_as_stored(tmp_path: Path, tree: Path) -> None:
    file_of(tree, 2).write_bytes(b"not even JSON")
    file_of(tree, 3).unlink()
    lake = Lake(tmp_path / "lake")
    lake.create()
    (job,) = plan(lake, tree, selection=LAYER_0, table="raw").jobs
    extract_shard(job)
    for row in read_part(lake, "raw", job.shard):
        file = file_of(tree, row["unit"])
        assert row["content"] == (file.read_bytes() if file.exists() else None)
        assert row["status"] == ("ok" if file.exists() else "absent")


def test_to_flatten_a_shard_without_a_pack_is_refused(tmp_path: Path, xl_mirror: Mirror) -> None:
    (job,) = plan(Lake(tmp_path), xl_mirror.root, selection=LAYER_0).jobs
    with pytest.raises(LakeError, match=r"^no raw pack of gpt2-xl/mlp_post_act/0/0-511 in "):
        flatten_shard(job)


# what is left when it goes wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_good", [0, 3])
def test_an_exception_in_the_middle_leaves_the_old_commit_and_no_temporary_file(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch, n_good: int
) -> None:
    lake = Lake(tmp_path / "lake")
    build(lake, tree, selection=LAYER_0)
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
        build(lake, tree, selection=LAYER_0, force=True)
    assert read_lake(lake) == before
    assert leftovers(lake) == []


def test_a_full_disk_is_one_line_and_leaves_the_old_commit_and_no_temporary_file(tmp_path: Path, tree: Path) -> None:
    lake = Lake(tmp_path / "lake")
    build(lake, tree, selection=LAYER_0)
    before = read_lake(lake)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, limits[1]))
    try:
        with pytest.raises(LakeError, match=r"^cannot write gpt2-xl/mlp_post_act/0/0-511 to [^\n]+: File too large$"):
            build(lake, tree, selection=LAYER_0, force=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_lake(lake) == before
    assert leftovers(lake) == []
    build(lake, tree, selection=LAYER_0, force=True)
    assert read_lake(lake) == before


def test_a_lake_that_cannot_be_written_is_one_line(tmp_path: Path, xl_mirror: Mirror) -> None:
    (tmp_path / "file").touch()
    (job,) = plan(Lake(tmp_path / "none"), xl_mirror.root, selection=LAYER_0).jobs
    for work in (build_shard, extract_shard):
        with pytest.raises(LakeError, match=r"^cannot write gpt2-xl/mlp_post_act/0/0-511 to [^\n]+: Not a directory$"):
            work(replace(job, lake=str(tmp_path / "file" / "lake")))


def test_a_source_that_went_away_is_a_source_error_and_leaves_the_commit(tmp_path: Path, tree: Path) -> None:
    lake = Lake(tmp_path / "lake")
    build(lake, tree, selection=LAYER_0)
    before = read_lake(lake)
    (job,) = plan(lake, tree, selection=LAYER_0, force=True).jobs
    tree.rename(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match=r"^no folder "):
        build_shard(job)
    assert read_lake(lake) == before


def test_a_job_can_be_sent_to_another_machine(tmp_path: Path, xl_mirror: Mirror) -> None:
    (job,) = plan(Lake(tmp_path), xl_mirror.root, selection=LAYER_0).jobs
    assert pickle.loads(pickle.dumps(job)) == job


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
    context.set_forkserver_preload(["tests.test_shard"])
    return context


@pytest.mark.parametrize("step", range(N_STEPS), ids=["commit", "first part", "second", "third", "files"])
def test_a_build_killed_between_any_two_steps_is_whole_when_it_is_run_again(
    tmp_path: Path, tree: Path, processes: multiprocessing.context.ForkServerContext, step: int
) -> None:
    lake, undisturbed = Lake(tmp_path / "lake"), Lake(tmp_path / "undisturbed")
    build(lake, tree, selection=LAYER_0)
    old = read_lake(lake)
    file_of(tree, 3).write_bytes(file_of(tree, 3).read_bytes().replace(b'"mean"', b'"mean":7,"note"'))
    file_of(tree, 4).unlink()
    jobs = plan(lake, tree, selection=LAYER_0).jobs
    worker = processes.Process(target=build_and_be_killed_at, args=(step, jobs))
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    if step == 0:
        assert read_lake(lake) == old
    else:
        assert lake.shards() == []
    assert leftovers(lake) != []
    build(lake, tree, selection=LAYER_0)
    build(undisturbed, tree, selection=LAYER_0)
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


def test_a_lake_is_the_same_whichever_way_its_units_were_asked_for(tmp_path: Path, tree: Path) -> None:
    at_once, bit_by_bit = Lake(tmp_path / "once"), Lake(tmp_path / "bits")
    build(at_once, tree, selection=LAYER_0)
    for chosen in ((5,), (0, 7), (1, 2, 3), tuple(range(8))):
        build(bit_by_bit, tree, selection=Selection((0,), chosen))
    assert read_lake(at_once) == read_lake(bit_by_bit)


def test_two_builds_at_once_of_one_lake_end_in_the_same_content(
    tmp_path: Path, tree: Path, processes: multiprocessing.context.ForkServerContext
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
