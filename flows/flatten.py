"""The flow that only flattens: raw packs into the lake's tables and its catalogue."""

from __future__ import annotations

from prefect import flow

from flows.catalogue import make_catalogue
from flows.runners import Runner
from flows.shards import TASKS, BuildSummary, run_shards
from warehouse.lake import Lake
from warehouse.plan import plan_flatten
from warehouse.shard import flatten_shard


@flow(name="flatten", task_runner=TASKS, validate_parameters=False)
def flatten(
    datasets: list[str],
    lake: str,
    force: bool = False,
    runner: Runner = Runner(),  # noqa: B008  (frozen)
    is_quiet: bool = False,
) -> BuildSummary:
    """Flatten what `extract` fetched, without a source at hand.

    Raises:
        WarehouseError: a dataset is not known, it has no raw pack, or the lake cannot be written.
    """
    home = Lake(lake)
    home.require()
    plan = plan_flatten(home, datasets, force=force)
    summaries = run_shards(flatten_shard, plan.jobs, runner.counted(), is_quiet)
    make_catalogue(lake)
    return BuildSummary.of(summaries, plan.n_done, plan.n_changed)
