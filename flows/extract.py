"""The flow that only fetches: files' bytes into the lake's raw packs."""

from __future__ import annotations

from prefect import flow
from pydantic import SecretStr

from flows.runners import Runner
from flows.shards import TASKS, BuildSummary, run_shards
from flows.sources import open_source, require_answers
from warehouse.lake import Lake
from warehouse.options import FetchOptions
from warehouse.plan import Asking, Selection, plan_build
from warehouse.shard import extract_shard


@flow(name="extract", task_runner=TASKS, validate_parameters=False)
def extract(
    datasets: list[str],
    source: str | SecretStr,
    lake: str,
    selection: Selection = Selection(),  # noqa: B008  (frozen)
    asking: Asking = Asking(),  # noqa: B008
    options: FetchOptions = FetchOptions(),  # noqa: B008
    runner: Runner = Runner(),  # noqa: B008
    is_quiet: bool = False,
) -> BuildSummary:
    """Fetch datasets' files into raw packs, which `flatten` reads. The arguments are those of `build`.

    Raises:
        WarehouseError: a dataset is not known, the source is not there, the lake cannot be written or holds the same
            packs from another source.
    """
    home, root = Lake(lake), open_source(source)
    home.create()
    runner = runner.counted()
    plan = plan_build(home, root, datasets, selection, asking, options.share(runner.workers), table="raw")
    require_answers(root, plan.jobs)
    return BuildSummary.of(run_shards(extract_shard, plan.jobs, runner, is_quiet), plan.n_done, plan.n_changed)
