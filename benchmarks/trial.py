"""One trial of the flatten benchmark: one contender, some files, a number of cores, in a process of its own."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Barrier

from warehouse.datasets import builtin_datasets

DATASET = builtin_datasets()["gpt2-xl/mlp_post_act"]
CONTENDERS = {
    "ours": ("benchmarks.contenders.ours", "flatten"),
    "duckdb": ("benchmarks.contenders.with_duckdb", "flatten_through_table"),
    "duckdb-reread": ("benchmarks.contenders.with_duckdb", "flatten_through_parquet"),
    "orjson": ("benchmarks.contenders.with_orjson", "flatten"),
}
"""Name to the module and function, which takes a Trial, writes Parquet under its `out`, and gives the seconds."""

_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS")


@dataclass(frozen=True, slots=True)
class Trial:
    """What to run.

    Attributes:
        contender: a name of CONTENDERS.
        source: root of the mirror; all units are of layer 0.
        units: which to flatten.
        cores: processors to pin to, and processes or threads to use.
        shard_units: units of one piece of work, for contenders that work piece by piece.
        out: folder for the Parquet.
    """

    contender: str
    source: str
    units: tuple[int, ...]
    cores: int
    shard_units: int
    out: str

    def files(self) -> list[str]:
        """Give the paths of the trial's files."""
        return [f"{self.source}/{DATASET.paths[0].format(layer=0, unit=unit)}" for unit in self.units]

    def partition(self, table: str) -> Path:
        """Make the folder of a table's one partition, and give its path."""
        names = (f"model={DATASET.model}", f"component={DATASET.component}", "layer=0")
        folder = Path(self.out, table, *names)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def warm_up(self) -> Trial:
        """Give a small trial that loads and compiles whatever the real one needs."""
        return replace(self, units=self.units[:4], out=f"{self.out}-warm-up-{os.getpid()}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was measured: seconds from files to Parquet, and the peak memory of the largest process in MB."""

    seconds: float
    peak_mb: float


def run_in_child(trial: Trial) -> Outcome:
    """Run a trial in a process of its own, pinned to its cores.

    Raises:
        subprocess.CalledProcessError: the contender failed; its traceback is on stderr.
    """
    limits = dict.fromkeys(_THREAD_LIMITS, "1")
    program = "import sys; from benchmarks.trial import run; run(sys.argv[1])"
    command = [sys.executable, "-c", program, json.dumps(asdict(trial))]
    done = subprocess.run(command, env=os.environ | limits, stdout=subprocess.PIPE, check=True)
    return Outcome(**json.loads(done.stdout))


def run_in_pool(flatten_shard: Callable[[Trial], None], trial: Trial) -> float:
    """Flatten shard by shard in as many processes as cores.

    Args:
        flatten_shard: top-level function that flattens all units of the trial it is given.
        trial: is cut into trials of `shard_units` units.

    Returns:
        Seconds, from when every process is warm to the last shard's end.
    """
    by_shard: dict[int, list[int]] = {}
    for unit in trial.units:
        by_shard.setdefault(unit // trial.shard_units, []).append(unit)
    pieces = [replace(trial, units=tuple(units)) for units in by_shard.values()]
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(trial.cores + 1)
    with ProcessPoolExecutor(trial.cores, context, _warm_up, (flatten_shard, trial, ready)) as pool:
        for _ in range(trial.cores):
            pool.submit(os.getpid)
        ready.wait()
        started = time.perf_counter()
        list(pool.map(flatten_shard, pieces))
        return time.perf_counter() - started


def _warm_up(flatten_shard: Callable[[Trial], None], trial: Trial, ready: Barrier) -> None:
    try:
        flatten_shard(trial.warm_up())
    except BaseException:
        ready.abort()
        raise
    ready.wait()


def run(trial_json: str) -> None:
    """Run a trial in this process, and print its outcome as JSON.

    Args:
        trial_json: the fields of a Trial.
    """
    fields = json.loads(trial_json)
    trial = Trial(**(fields | {"units": tuple(fields["units"])}))
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: trial.cores])
    module, function = CONTENDERS[trial.contender]
    seconds = getattr(importlib.import_module(module), function)(trial)
    outcome = Outcome(seconds, max(_peak_mb(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024))
    print(json.dumps(asdict(outcome)))


def _peak_mb() -> float:
    # A process's own ru_maxrss begins at that of the process which started it; the high-water mark does not.
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
