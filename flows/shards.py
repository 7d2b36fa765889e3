"""Running many shards: one Prefect task each, on a pool of processes, with progress for the person who waits."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from warehouse.errors import WarehouseError
from warehouse.shard import ShardJob, ShardSummary, end_with_parent

ShardWork = Callable[[ShardJob], ShardSummary]

TASKS: TaskRunner[PrefectFuture[Any]] = cast(TaskRunner[PrefectFuture[Any]], ThreadPoolTaskRunner(max_workers=64))
"""Tasks only wait for a process, so there may be more of them under way than processes."""


@dataclass(frozen=True, slots=True)
class BuildSummary:
    """What came of a flow.

    Attributes:
        n_shards: shards done.
        n_done_before: shards that held all that was asked for.
        n_changed: shards done again, because their files had changed.
        ok, absent, rejected, failed: files of the shards done.
        bytes_in: bytes of those files.
        n_records: records written.
    """

    n_shards: int
    n_done_before: int
    n_changed: int
    ok: int
    absent: int
    rejected: int
    failed: int
    bytes_in: int
    n_records: int

    @classmethod
    def of(cls, summaries: Sequence[ShardSummary], n_done_before: int, n_changed: int) -> BuildSummary:
        """Add up shards."""
        names = ("ok", "absent", "rejected", "failed", "bytes_in", "n_records")
        totals = {name: sum(getattr(summary, name) for summary in summaries) for name in names}
        return cls(len(summaries), n_done_before, n_changed, **totals)


def _is_worth_retrying(_task: Task[..., object], _run: TaskRun, state: State[object]) -> bool:
    error = state.result(raise_on_failure=False)
    # A pool that broke, or was shut down when another shard failed, raises RuntimeError or cancels what was waiting.
    return not isinstance(error, WarehouseError | BrokenProcessPool | RuntimeError | CancelledError)


@task(
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=[1, 5],
    retry_condition_fn=_is_worth_retrying,
)
def run_shard(pool: Executor, work: ShardWork, job: ShardJob) -> ShardSummary:
    """Do one shard in another process."""
    return pool.submit(work, job).result()


def run_shards(work: ShardWork, jobs: Sequence[ShardJob], workers: int, is_quiet: bool) -> list[ShardSummary]:
    """Do shards on a pool of processes, as tasks of the flow that is running.

    Args:
        work: what to do with each, a top-level function.
        jobs: the shards, in the order in which they are started.
        workers: processes; 0 for one on each core.
        is_quiet: show no progress.

    Returns:
        Their summaries, in the order in which they ended.

    Raises:
        WarehouseError: a shard could not be done, or a worker process died.
    """
    if not jobs:
        return []
    summaries: list[ShardSummary] = []
    n_workers = min(workers or _count_cores(), len(jobs))
    with _pool(n_workers) as pool, _progress(len(jobs), is_quiet) as advance:
        futures = [run_shard.with_options(task_run_name=str(job.shard)).submit(pool, work, job) for job in jobs]
        try:
            for future in as_completed(futures):
                summaries.append(future.result())
                advance(summaries[-1])
        except BrokenProcessPool as e:
            raise WarehouseError(
                "a worker process died, most likely for want of memory: run again with fewer --workers; "
                "what is committed is kept"
            ) from e
    return summaries


def _count_cores() -> int:
    """Count the cores that this process may use, which a container or a scheduler can make fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _pool(n_workers: int) -> Iterator[Executor]:
    # A fork of this process would copy the locks of Prefect's threads; the fork server holds the warehouse's code
    # alone, and as nothing that is sent to a worker is of this module, a worker never spends the 2 s to import Prefect.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["warehouse.shard"])
    pool = ProcessPoolExecutor(n_workers, mp_context=context, initializer=end_with_parent)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _progress(n_shards: int, is_quiet: bool) -> Iterator[Callable[[ShardSummary], None]]:
    """Show a bar on stderr where that is a terminal; give the function that moves it."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("shards  {task.fields[files]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=is_quiet or not console.is_terminal,
    )
    totals = {"ok": 0, "absent": 0, "rejected": 0, "failed": 0}
    size = 0

    def advance(summary: ShardSummary) -> None:
        nonlocal size
        for name in totals:
            totals[name] += getattr(summary, name)
        size += summary.bytes_in
        files = ", ".join(f"{n:,} {name}" for name, n in totals.items() if n or name == "ok")
        bar.update(shown, advance=1, description=str(summary.shard), files=f"{files}, {size / 1e6:,.0f} MB")

    with bar:
        shown = bar.add_task("starting", total=n_shards, files="")
        yield advance
