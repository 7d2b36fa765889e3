"""Who does the shards: processes of this machine, or the workers of a Dask or a Ray cluster.

A worker does a shard by the same top-level function wherever it is, and needs nothing but the source and the lake:
Prefect's tasks stay in the process of the flow, where each waits for one shard, so that no worker spends time or
memory on Prefect, or has to reach its server.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast
from urllib.parse import urlsplit

from warehouse.errors import WarehouseError
from warehouse.shard import ShardJob, ShardSummary, end_with_parent

RunnerKind: TypeAlias = Literal["local", "dask", "ray"]
ShardWork: TypeAlias = Callable[[ShardJob], ShardSummary]

_PACKAGE = "activation-warehouse"
_SECONDS_TO_CONNECT = 30
_SECONDS_FOR_WORKERS = 60
_SECONDS_BETWEEN_LOOKS = 30
_OBJECT_STORE_BYTES = 100 * 2**20  # of Ray: only summaries go through it
_KEPT = "what is committed is kept, run the same command again to go on"


@dataclass(frozen=True, slots=True)
class Workers:
    """Workers that are ready.

    Attributes:
        n: shards that they do at once.
        do: does one shard on one of them and waits for it; may be called by many threads at once.
    """

    n: int
    do: Callable[[ShardWork, ShardJob], ShardSummary]


@dataclass(frozen=True, slots=True)
class Runner:
    """Where a flow's shards are done.

    Attributes:
        kind: `local` processes, or the workers of a `dask` or `ray` cluster.
        workers: how many; 0 for one on each core of this machine, or for all that the scheduler has. Of a cluster
            each thread (Dask) or CPU (Ray) is one.
        scheduler: a cluster's address, `tcp://host:port` of Dask, `ray://host:port` of Ray; None starts a cluster on
            this machine that ends with the flow.

    Raises:
        WarehouseError: a scheduler for local processes.
    """

    kind: RunnerKind = "local"
    workers: int = 0
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.kind == "local" and self.scheduler is not None:
            raise WarehouseError("--scheduler is of a cluster: add --runner dask or --runner ray")

    def counted(self) -> Runner:
        """Give this runner with the number of its workers, which a scheduler is asked for.

        Raises:
            WarehouseError: the scheduler cannot be reached, or has too few workers, or ones that lack the warehouse.
        """
        if self.scheduler is None:
            return replace(self, workers=self.workers or _count_cores())
        with self.start() as workers:
            return replace(self, workers=workers.n)

    def start(self, n_jobs: int | None = None) -> AbstractContextManager[Workers]:
        """Start the workers, or connect to them, until the end of the block.

        Args:
            n_jobs: how many shards there are, so that no more processes are started than that.

        Raises:
            WarehouseError: as `counted`, or a package is not installed.
        """
        match self.kind:
            case "local":
                return _start_processes(self._count_here(n_jobs))
            case "dask":
                return _start_dask(self, self._count_here(n_jobs))
            case "ray":
                return _start_ray(self, self._count_here(n_jobs))

    def _count_here(self, n_jobs: int | None) -> int:
        n = self.workers or _count_cores()
        return n if n_jobs is None else min(n, n_jobs)


def _count_cores() -> int:
    """Count the cores that this process may use, which a container or a scheduler can make fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# processes of this machine -------------------------------------------------------------------------------------------


@contextmanager
def _start_processes(n_workers: int) -> Iterator[Workers]:
    # A fork of this process would copy the locks of Prefect's threads; the fork server holds the warehouse's code
    # alone, and as nothing that is sent to a worker is of this module, a worker never spends the 2 s to import Prefect.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["warehouse.shard"])
    pool = ProcessPoolExecutor(n_workers, mp_context=context, initializer=end_with_parent)

    def do(work: ShardWork, job: ShardJob) -> ShardSummary:
        try:
            return pool.submit(work, job).result()
        except BrokenProcessPool as e:
            raise WarehouseError(
                "a worker process died, most likely for want of memory: run again with fewer --workers; "
                "what is committed is kept"
            ) from e

    try:
        yield Workers(n_workers, do)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


# Dask ----------------------------------------------------------------------------------------------------------------


@contextmanager
def _start_dask(runner: Runner, n_here: int) -> Iterator[Workers]:
    distributed = _load("distributed", "dask")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters of it becomes an error here
    with ExitStack() as stack:
        where: Any = runner.scheduler
        if where is None:
            # One thread a process, as the work is bound by the processor; memory is the shard's own to bound.
            cluster = distributed.LocalCluster(
                n_workers=n_here,
                threads_per_worker=1,
                processes=True,
                memory_limit=0,
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
            )
            where = stack.enter_context(cluster)
        else:
            _check_reachable(runner, "'dask scheduler' starts one and prints its address")
        try:
            client = distributed.Client(where, timeout=_SECONDS_TO_CONNECT, set_as_default=False)
        except (OSError, ValueError) as e:
            raise WarehouseError(f"no Dask scheduler can be used at {where}: {e}") from e
        stack.enter_context(client)
        n = n_here
        if runner.scheduler is not None:
            hint = f"start some with 'dask worker {runner.scheduler} --nthreads 1 --nworkers auto'"
            n = _await_workers(lambda: sum(client.nthreads().values()), runner, hint)
            _check_versions(client)
        yield Workers(n, lambda work, job: _do_by_dask(distributed, client, work, job))


def _do_by_dask(distributed: Any, client: Any, work: ShardWork, job: ShardJob) -> ShardSummary:
    # A shard whose worker dies is done again on another, which Dask sees to; after the third it gives up.
    future = client.submit(work, _with_absolute_paths(job), pure=False)
    while True:
        try:
            return cast(ShardSummary, future.result(timeout=_SECONDS_BETWEEN_LOOKS))
        except distributed.KilledWorker as e:
            raise WarehouseError(
                f"worker after worker died at {job.shard}, most likely for want of memory: give each more; {_KEPT}"
            ) from e
        except (distributed.CancelledError, distributed.comm.CommClosedError) as e:
            raise WarehouseError(f"the Dask scheduler went away: {_KEPT}") from e
        except TimeoutError:
            if future.status == "error":
                raise
            _require_workers(distributed, client)


def _require_workers(distributed: Any, client: Any) -> None:
    """Wait a while where no worker is left: one that died may be started again."""
    try:
        client.wait_for_workers(1, timeout=_SECONDS_FOR_WORKERS)
    except TimeoutError as e:
        raise WarehouseError(f"no Dask worker is left: {_KEPT}") from e
    except (distributed.comm.CommClosedError, OSError) as e:
        raise WarehouseError(f"the Dask scheduler went away: {_KEPT}") from e


def _check_versions(client: Any) -> None:
    """See that every worker has this version of the warehouse, as a shard's parts must not depend on who makes them."""
    ours = version(_PACKAGE)
    for worker, theirs in client.run(version, _PACKAGE, on_error="return").items():
        if theirs != ours:
            found = "not installed" if isinstance(theirs, ModuleNotFoundError) else theirs
            raise WarehouseError(f"the warehouse is {ours} here and {found} on the worker {worker}: install the same")


# Ray -----------------------------------------------------------------------------------------------------------------


@contextmanager
def _start_ray(runner: Runner, n_here: int) -> Iterator[Workers]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or it warns of graphics cards
    ray = _load("ray", "ray")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if runner.scheduler is None:
        options |= {"address": "local", "num_cpus": n_here, "include_dashboard": False}
        options |= {"object_store_memory": _OBJECT_STORE_BYTES}
    else:
        options |= {"address": runner.scheduler}
        _check_reachable(runner, "'ray start --head' starts one and prints its address")
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as e:
        raise WarehouseError(f"no Ray cluster can be used at {runner.scheduler or 'this machine'}: {e}") from e
    try:

        def count() -> int:
            return int(ray.cluster_resources().get("CPU", 0))

        n = n_here if runner.scheduler is None else _await_workers(count, runner, "'ray start --address …' adds some")
        remote = cache(ray.remote)
        yield Workers(n, lambda work, job: _do_by_ray(ray, remote(work), job))
    finally:
        ray.shutdown()


def _do_by_ray(ray: Any, remote: Any, job: ShardJob) -> ShardSummary:
    answer = remote.remote(_with_absolute_paths(job))  # done again where a worker dies, three times by default
    errors = ray.exceptions
    try:
        while not ray.wait([answer], timeout=_SECONDS_BETWEEN_LOOKS)[0]:
            if not ray.cluster_resources().get("CPU"):
                raise WarehouseError(f"no Ray worker is left: {_KEPT}")
        return cast(ShardSummary, ray.get(answer))
    except errors.RayTaskError as e:
        raise e.cause from e
    except (errors.WorkerCrashedError, errors.OutOfMemoryError, errors.NodeDiedError) as e:
        raise WarehouseError(
            f"worker after worker died at {job.shard}, most likely for want of memory: give each more; {_KEPT}"
        ) from e
    except (errors.RaySystemError, errors.RpcError, ConnectionError) as e:
        raise WarehouseError(f"the Ray cluster went away: {_KEPT}") from e


# clusters of either kind ---------------------------------------------------------------------------------------------


def _load(module: str, kind: RunnerKind) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise WarehouseError(f"--runner {kind} needs more packages: pip install '{_PACKAGE}[{kind}]'") from e


def _check_reachable(runner: Runner, hint: str) -> None:
    """Knock at a scheduler's door: the clusters' own clients try for minutes, and print much, where nobody is."""
    address = urlsplit(f"//{(runner.scheduler or '').rpartition('://')[2]}")
    try:
        if not address.hostname or not address.port:
            raise ValueError("it has no host or no port")
        socket.create_connection((address.hostname, address.port), timeout=_SECONDS_TO_CONNECT).close()
    except (OSError, ValueError) as e:
        raise WarehouseError(f"no {runner.kind} scheduler answers at {runner.scheduler} ({e}): {hint}") from e


def _await_workers(count: Callable[[], int], runner: Runner, hint: str) -> int:
    """Wait until a scheduler has the workers wanted, or any at all; give how many to use."""
    wanted = runner.workers or 1
    deadline = time.monotonic() + _SECONDS_FOR_WORKERS
    while (n := count()) < wanted:
        if time.monotonic() > deadline:
            raise WarehouseError(f"{runner.scheduler} has {n} of the {wanted} workers waited for: {hint}")
        time.sleep(0.2)
    return runner.workers or n


def _with_absolute_paths(job: ShardJob) -> ShardJob:
    """Spell out local folders, as a worker may be at home in another one."""
    return replace(job, source=_make_absolute(job.source), lake=_make_absolute(job.lake))


def _make_absolute(url: str) -> str:
    return url if "://" in url else str(Path(url).expanduser().absolute())
