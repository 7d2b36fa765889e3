"""This project: build_shard, which beside the two tables of the others writes units and files, with SHA-256."""

from __future__ import annotations

import msgspec

from benchmarks.trial import DATASET, Trial, run_in_pool
from warehouse.lake import Lake
from warehouse.parts import Shard
from warehouse.shard import ShardJob, build_shard


def flatten(trial: Trial) -> float:
    """Build shard by shard, one process a core.

    Returns:
        Seconds, after a warm-up on a few files in each process.
    """
    return run_in_pool(build, trial)


def build(trial: Trial) -> None:
    """Build the one shard that the trial's units belong to."""
    dataset = msgspec.structs.replace(DATASET, shard_units=trial.shard_units)
    first = trial.units[0] - trial.units[0] % trial.shard_units
    shard = Shard(dataset.model, dataset.component, 0, first, first + trial.shard_units - 1)
    Lake(trial.out).create()
    build_shard(ShardJob(dataset, shard, trial.units, trial.units, trial.source, trial.out))
