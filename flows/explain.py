"""The flow that explains units: batches to a language model, what came of each to the lake, and its catalogue."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.catalogue import make_catalogue
from flows.explain_progress import ExplainProgress, show_progress
from warehouse import open as open_lake
from warehouse.explain.run import Run, RunStopped, RunSummary, open_run
from warehouse.explain.run_plan import RunOptions, check_options, plan_run
from warehouse.lake import Lake
from warehouse.records import UnitId

BATCHES_AT_ONCE = 2
"""So that the endpoint is busy while the last units of a batch are waited for."""


@task(task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False)
async def explain_batch(run: Run, unit_ids: Sequence[UnitId], name: str) -> int:
    """Explain a batch of units; how many at once is the run's affair."""
    return await run.do_batch(unit_ids)


@flow(name="explain", validate_parameters=False)
async def explain(
    lake: str,
    where: str,
    options: RunOptions,
    limit: int | None = None,
    is_quiet: bool = False,
) -> RunSummary:
    """Explain the units of a lake for which a condition holds, score the explanations, and catalogue the answers.

    Args:
        lake: folder or URL of the lake.
        where: SQL condition over the view `units`.
        options: what is asked, of whom, and what it may cost; the key is not in it.
        limit: units at most, of those that are not done.
        is_quiet: show no progress.

    Returns:
        What came of it.

    Raises:
        RunStopped: the budget is used up, or the endpoint answers nothing; what was done is in the lake.
        WarehouseError: the condition is wrong, or there is no such lake, explainer or scorer, or no price for a budget.
    """
    check_options(options)
    home = Lake(lake)
    home.require()
    home.create()
    run: Run | None = None
    try:
        with open_lake(lake) as reader:
            plan = plan_run(reader, where, options, limit)
            with show_progress(ExplainProgress(len(plan.unit_ids)), is_quiet) as progress:
                async with open_run(reader, plan, options, progress.add) as run:
                    await _explain_all(run, plan.batches())
        summary = run.summarise()
    finally:
        if run is not None and run.tally.statuses:
            make_catalogue(lake)  # whatever ended the run, what was paid for is seen
    if summary.stopped_by is not None:
        raise RunStopped(summary)
    return summary


async def _explain_all(run: Run, batches: Sequence[Sequence[UnitId]]) -> None:
    waiting = iter(batches)

    async def work() -> None:
        for unit_ids in waiting:
            if run.stopped_by is None:
                await explain_batch(run, unit_ids, f"{unit_ids[0]} to {unit_ids[-1]}")

    for result in await asyncio.gather(*(work() for _ in range(BATCHES_AT_ONCE)), return_exceptions=True):
        if result is not None:
            raise result
