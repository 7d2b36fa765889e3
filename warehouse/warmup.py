"""Compile what is compiled, so that the first build need not: `python -m warehouse.warmup`.

The code is kept beside the package (or in the user's cache folder, where that is not writable), for all later runs.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from warehouse.datasets import builtin_datasets
from warehouse.lake import Lake
from warehouse.mirror import MirrorSpec, RecordCounts, make_mirror
from warehouse.plan import Selection, plan_build
from warehouse.shard import build_shard
from warehouse.source import Source

_DATASETS = ("gpt2-xl/mlp_post_act", "gpt2-small/attn_write_norm", "gpt2-small/mlp_post_act_ae_v4")


def warm_up() -> None:
    """Build a few made files of each form in a temporary folder."""
    units = tuple(range(8))
    datasets = tuple(builtin_datasets()[name] for name in _DATASETS)
    spec = MirrorSpec(datasets, units=units, counts=RecordCounts(2, 2, 1), n_excerpts=50, n_tokens=8)
    with tempfile.TemporaryDirectory() as folder:
        make_mirror(Path(folder, "mirror"), spec)
        lake = Lake(Path(folder, "lake"))
        lake.create()
        plan = plan_build(lake, Source(Path(folder, "mirror")), _DATASETS, Selection((0,), units))
        for job in plan.jobs:
            build_shard(job)


if __name__ == "__main__":
    warm_up()
