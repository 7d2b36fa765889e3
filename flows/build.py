"""The flow that does everything: fetch, flatten, commit, and make the catalogue."""

from __future__ import annotations

from prefect import flow

from flows.catalogue import make_catalogue
from flows.shards import TASKS, BuildSummary, run_shards
from warehouse.lake import Lake
from warehouse.plan import Selection, plan_build
from warehouse.shard import build_shard
from warehouse.source import Source


@flow(name="build", task_runner=TASKS, validate_parameters=False)
def build(
    datasets: list[str],
    source: str,
    lake: str,
    selection: Selection = Selection(),  # noqa: B008  (frozen)
    workers: int = 0,
    force: bool = False,
    is_quiet: bool = False,
) -> BuildSummary:
    """Build datasets from a source into a lake, and the lake's catalogue.

    Args:
        datasets: names of datasets, or of models for all of theirs.
        source: folder or URL that holds the bucket's tree.
        lake: folder or URL of the lake.
        selection: which layers and units; all by default.
        workers: processes; 0 for one on each core.
        force: do shards again that are done.
        is_quiet: show no progress.

    Returns:
        What was done.

    Raises:
        WarehouseError: a dataset is not known, the source is not there, the lake cannot be written or holds the same
            units from another source.
    """
    home = Lake(lake)
    home.create()
    plan = plan_build(home, Source(source), datasets, selection, force=force)
    summaries = run_shards(build_shard, plan.jobs, workers, is_quiet)
    if home.is_local:  # elsewhere DuckDB would need an extension: `warehouse catalogue` says what to do
        make_catalogue(lake)
    return BuildSummary.of(summaries, plan.n_done, plan.n_changed)
