"""Work that goes wrong in a worker process: apart from the tests, as workers load its module, and Prefect is slow."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from warehouse.errors import LakeError
from warehouse.lake import Lake
from warehouse.shard import ShardJob, ShardSummary, build_shard

_SECONDS_FOR_COMPANY = 60


def die(_: ShardJob) -> ShardSummary:
    """End the worker process as the system does when memory runs out."""
    os._exit(9)


def build_and_die_in_layer_1(job: ShardJob) -> ShardSummary:
    """Build a shard of layer 0, and when that is done end the worker in the middle of one of layer 1."""
    if job.shard.layer == 0:
        return build_shard(job)
    lake, done = Lake(job.lake), replace(job.shard, layer=0)
    while lake.read_commit(done) is None:
        time.sleep(0.01)
    with lake.write_part("records", job.shard) as part:
        part.write(next(lake.iterate_part("records", done)))
        os._exit(9)


def refuse(job: ShardJob) -> ShardSummary:
    """Fail as a shard does that cannot be written."""
    raise LakeError(f"no room for {job.shard}")


def build_without_prefect_loaded(job: ShardJob) -> ShardSummary:
    """Build a shard, if this process has not loaded Prefect."""
    if "prefect" in sys.modules:
        raise LakeError("Prefect was loaded in a worker")
    return build_shard(job)


def sign(job: ShardJob, marks: Path | None = None) -> Path:
    """Leave a mark, beside the lake or elsewhere, that this process has begun this shard; give the marks' folder."""
    marks = marks or Path(job.lake).parent / "marks"
    marks.mkdir(exist_ok=True)
    (marks / f"{os.getpid()}-{job.shard.layer}-{job.shard.first}").touch()
    return marks


def signers(marks: Path) -> set[int]:
    """Give the processes that have begun shards."""
    return {int(mark.name.partition("-")[0]) for mark in marks.iterdir()}


def build_in_company(job: ShardJob, marks: Path | None = None) -> ShardSummary:
    """Build a shard when two processes have each begun one."""
    marks = sign(job, marks)
    deadline = time.monotonic() + _SECONDS_FOR_COMPANY
    while len(signers(marks)) < 2:
        if time.monotonic() > deadline:
            raise LakeError("one process has to do it all alone")
        time.sleep(0.01)
    return build_shard(job)


def build_and_be_killed_once(job: ShardJob) -> ShardSummary:
    """Build a shard; the first process that comes to one of layer 2 is killed in the middle of it."""
    killed = Path(job.lake).parent / "killed"
    if job.shard.layer == 2 and not killed.exists():
        killed.touch()
        lake = Lake(job.lake)
        with lake.write_part("records", job.shard) as part:
            part.write(next(lake.iterate_part("records", lake.shards()[0])))
            os.kill(os.getpid(), signal.SIGKILL)
    return build_shard(job)


def be_killed(_: ShardJob) -> ShardSummary:
    """End the worker process as the system does when memory runs out, so that nothing of it is left to tell."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def never_end(job: ShardJob) -> ShardSummary:
    """Begin a shard, and do nothing more for longer than any test takes."""
    sign(job)
    time.sleep(600)
    raise AssertionError


def find_the_source_down_in_layer_1(job: ShardJob) -> ShardSummary:
    """Build shards until one of layer 1 finds nobody who answers."""
    sign(job)
    if job.shard.layer == 0:
        return build_shard(job)
    n = len(job.asked)
    return ShardSummary(job.shard, 0, 0, 0, n, 0, 0, 0, seconds=0.0, is_source_down=True)


def fail_in_layer_1(job: ShardJob) -> ShardSummary:
    """Begin shards, and fail in one of layer 1."""
    sign(job)
    return build_shard(job) if job.shard.layer == 0 else refuse(job)


def find_version_only_in(process: int, package: str) -> str:
    """Give a version in one process, and say in others that the package is not there."""
    if os.getpid() != process:
        raise PackageNotFoundError(package)
    return "1"
