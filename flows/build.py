"""The flow that does everything: fetch, flatten, commit, and make the catalogue."""

from __future__ import annotations

from prefect import flow
from pydantic import SecretStr

from flows.catalogue import make_catalogue
from flows.runners import Runner
from flows.shards import TASKS, BuildSummary, run_shards
from flows.sources import open_source, require_answers
from warehouse.errors import SourceError
from warehouse.lake import Lake
from warehouse.options import FetchOptions
from warehouse.plan import Asking, Selection, plan_build
from warehouse.shard import build_shard


@flow(name="build", task_runner=TASKS, validate_parameters=False)
def build(
    datasets: list[str],
    source: str | SecretStr,
    lake: str,
    selection: Selection = Selection(),  # noqa: B008  (frozen)
    asking: Asking = Asking(),  # noqa: B008
    options: FetchOptions = FetchOptions(),  # noqa: B008
    runner: Runner = Runner(),  # noqa: B008
    is_quiet: bool = False,
) -> BuildSummary:
    """Build datasets from a source into a lake, and the lake's catalogue.

    Args:
        datasets: names of datasets, or of models for all of theirs.
        source: folder or URL that holds the bucket's tree; secret where an access token stands in it.
        lake: folder or URL of the lake.
        selection: which layers and units; all by default.
        asking: what to ask for beside the files that are missing or failed, or what alone.
        options: how to ask, all workers together.
        runner: where the shards are done.
        is_quiet: show no progress.

    Returns:
        What was done.

    Raises:
        WarehouseError: a dataset is not known, the source is not there, the lake cannot be written or holds the same
            units from another source.
    """
    home, root = Lake(lake), open_source(source)
    home.create()
    runner = runner.counted()
    plan = plan_build(home, root, datasets, selection, asking, options.share(runner.workers))
    require_answers(root, plan.jobs)
    try:
        summaries = run_shards(build_shard, plan.jobs, runner, is_quiet)
    except SourceError:
        make_catalogue(lake)  # of what was done before the source went away
        raise
    make_catalogue(lake)
    return BuildSummary.of(summaries, plan.n_done, plan.n_changed)
