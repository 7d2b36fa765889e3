"""A real Dask cluster on the loopback: a scheduler and worker processes, started as on machines of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import distributed

_REPOSITORY = Path(__file__).parents[2]
_SECONDS_TO_START = 60


@dataclass
class DaskCluster:
    """What runs.

    Attributes:
        address: of the scheduler.
        scheduler: its process.
        workers: the processes that each look after one worker process.
    """

    address: str
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]


@contextmanager
def start_dask(folder: Path, n_workers: int, environment: Mapping[str, str]) -> Iterator[DaskCluster]:
    """Run a cluster until the end of the block.

    Args:
        folder: where the processes are at home, which is not where the flow is.
        n_workers: worker processes, each of one thread.
        environment: variables for all of them, beside this process's own.
    """
    address = f"tcp://127.0.0.1:{free_port()}"
    variables = os.environ | {"PYTHONPATH": str(_REPOSITORY)} | dict(environment)
    processes: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", *arguments, "--no-dashboard"]
        with (folder / f"{arguments[0]}-{len(processes)}.log").open("wb") as log:
            processes.append(subprocess.Popen(command, cwd=folder, env=variables, stdout=log, stderr=log))
        return processes[-1]

    try:
        scheduler = run("scheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2])
        workers = [run("worker", address, "--nthreads", "1", "--host", "127.0.0.1") for _ in range(n_workers)]
        connect: Any = distributed.Client
        with connect(address, timeout=_SECONDS_TO_START, set_as_default=False) as client:
            client.wait_for_workers(n_workers, timeout=_SECONDS_TO_START)
        yield DaskCluster(address, scheduler, workers)
    finally:
        for process in processes[1:] + processes[:1]:
            process.terminate()
        deadline = time.monotonic() + 10
        for process in processes:
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    """Give a port of the loopback on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
