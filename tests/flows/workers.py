"""Work that goes wrong in a worker process: apart from the tests, as workers load its module, and Prefect is slow."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace

from warehouse.errors import LakeError
from warehouse.lake import Lake
from warehouse.shard import ShardJob, ShardSummary, build_shard


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
