"""Running many shards: one Prefect task each, and a worker's time for as many as there are workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from queue import SimpleQueue
from threading import Semaphore
from typing import Any, cast

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from rich.console import Console

from flows.progress import Progress, show_progress
from flows.runners import Runner, ShardWork, Workers
from warehouse.errors import SourceError, WarehouseError
from warehouse.shard import ShardJob, ShardSummary

TASKS: TaskRunner[PrefectFuture[Any]] = cast(TaskRunner[PrefectFuture[Any]], ThreadPoolTaskRunner(max_workers=1024))
"""A task only waits for a worker, here or on another machine, so its thread costs next to nothing."""


@dataclass(frozen=True, slots=True)
class BuildSummary:
    """What came of a flow.

    Attributes:
        n_shards: shards done.
        n_done_before: shards that held all that was asked for.
        n_changed: shards done again, because their files had changed.
        ok, absent, rejected, failed, unchanged: files asked for in the shards done.
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
    unchanged: int
    bytes_in: int
    n_records: int

    @classmethod
    def of(cls, summaries: Sequence[ShardSummary], n_done_before: int, n_changed: int) -> BuildSummary:
        """Add up shards."""
        names = ("ok", "absent", "rejected", "failed", "unchanged", "bytes_in", "n_records")
        totals = {name: sum(getattr(summary, name) for summary in summaries) for name in names}
        return cls(len(summaries), n_done_before, n_changed, **totals)


@dataclass
class Gate:
    """Lets in as many shards as there are workers, and no further one once it is closed.

    A task is started somewhat before a worker is free, so that what Prefect does for it costs no worker's time.

    Attributes:
        workers: who do the shards.
        is_closed: whether the source is down, or a shard could not be done.
    """

    workers: Workers
    is_closed: bool = False
    _free: Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._free = Semaphore(self.workers.n)

    def do(self, work: ShardWork, job: ShardJob) -> ShardSummary | None:
        """Do a shard when a worker is free, or give None where the gate is closed by then."""
        with self._free:
            if self.is_closed:
                return None
            try:
                summary = self.workers.do(work, job)
            except WarehouseError:
                self.is_closed = True
                raise
            self.is_closed |= summary.is_source_down
            return summary


def _is_worth_retrying(_task: Task[..., object], _run: TaskRun, state: State[object]) -> bool:
    return not isinstance(state.result(raise_on_failure=False), WarehouseError)


@task(
    task_run_name="{job.shard}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=[1, 5],
    retry_condition_fn=_is_worth_retrying,
)
def run_shard(gate: Gate, work: ShardWork, job: ShardJob) -> ShardSummary | None:
    """Do one shard on a worker."""
    return gate.do(work, job)


def run_shards(work: ShardWork, jobs: Sequence[ShardJob], runner: Runner, is_quiet: bool) -> list[ShardSummary]:
    """Do shards on a runner's workers, as tasks of the flow that is running.

    Where a shard cannot be done, or the source is down, no further one is started, and those under way end.

    Args:
        work: what to do with each, a top-level function.
        jobs: the shards, in the order in which they are started.
        runner: where to do them.
        is_quiet: show no progress.

    Returns:
        Their summaries, in the order in which they ended.

    Raises:
        SourceError: the source is down.
        WarehouseError: a shard could not be done, a worker died, or the runner's workers cannot be had.
    """
    if not jobs:
        return []
    with runner.start(len(jobs)) as workers:
        progress = Progress(sum(len(job.asked) for job in jobs), len(jobs), workers.n, time.monotonic)
        with show_progress(progress, is_quiet, Console(stderr=True)) as advance:
            return _run_all(work, jobs, Gate(workers), advance)


def _run_all(
    work: ShardWork, jobs: Sequence[ShardJob], gate: Gate, advance: Callable[[ShardSummary], None]
) -> list[ShardSummary]:
    ended: SimpleQueue[PrefectFuture[ShardSummary | None]] = SimpleQueue()
    waiting = iter(jobs)
    n_ahead = gate.workers.n // 4 + 1
    n_under_way = 0
    summaries: list[ShardSummary] = []
    error: BaseException | None = None
    while True:
        n_wanted = 0 if gate.is_closed else gate.workers.n + n_ahead - n_under_way
        for job in islice(waiting, n_wanted):
            run_shard.submit(gate, work, job).add_done_callback(ended.put)
            n_under_way += 1
        if not n_under_way:
            break
        outcome = ended.get().result(raise_on_failure=False)
        n_under_way -= 1
        if isinstance(outcome, BaseException):
            gate.is_closed = True
            error = error or outcome
        elif outcome is not None:
            summaries.append(outcome)
            advance(outcome)
    if error is not None:
        raise error
    if gate.is_closed:
        raise SourceError(
            f"the source has not answered for {next(s.shard for s in summaries if s.is_source_down)}: "
            "what is committed is kept, run the same command again to go on"
        )
    return summaries
