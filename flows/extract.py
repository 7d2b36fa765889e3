"""The flow that only fetches: files' bytes into the lake's raw packs."""

from __future__ import annotations

from prefect import flow

from flows.shards import TASKS, BuildSummary, run_shards
from warehouse.lake import Lake
from warehouse.plan import Selection, plan_build
from warehouse.shard import extract_shard
from warehouse.source import Source


@flow(name="extract", task_runner=TASKS, validate_parameters=False)
def extract(
    datasets: list[str],
    source: str,
    lake: str,
    selection: Selection = Selection(),  # noqa: B008  (frozen)
    workers: int = 0,
    force: bool = False,
    is_quiet: bool = False,
) -> BuildSummary:
    """Fetch datasets' files into raw packs, which `flatten` reads. The arguments are those of `build`.

    Raises:
        WarehouseError: a dataset is not known, the source is not there, the lake cannot be written or holds the same
            packs from another source.
    """
    home = Lake(lake)
    home.create()
    plan = plan_build(home, Source(source), datasets, selection, table="raw", force=force)
    return BuildSummary.of(run_shards(extract_shard, plan.jobs, workers, is_quiet), plan.n_done, plan.n_changed)
