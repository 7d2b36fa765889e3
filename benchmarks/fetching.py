"""One trial of fetching: one client, some files of one server, so many requests at once, in a process of its own."""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeAlias

from benchmarks.trial import DATASET

CLIENTS = {
    "aiohttp": ("benchmarks.contenders.fetch_by_aiohttp", "connect"),
    "ours": ("benchmarks.contenders.fetch_ours", "connect"),
    "fsspec http": ("benchmarks.contenders.fetch_by_fsspec", "connect_http"),
    "obstore": ("benchmarks.contenders.fetch_by_obstore", "connect_http"),
    "urllib3 threads": ("benchmarks.contenders.fetch_by_urllib3", "connect"),
}
"""Name to the module and function: a context manager that takes a FetchTrial, and gives what fetches."""

AZURE_CLIENTS = {
    "adlfs": ("benchmarks.contenders.fetch_by_fsspec", "connect_azure"),
    "obstore azure": ("benchmarks.contenders.fetch_by_obstore", "connect_azure"),
    "aiohttp": CLIENTS["aiohttp"],
    "ours": CLIENTS["ours"],
    "ours, az://": ("benchmarks.contenders.fetch_ours", "connect_azure"),
}
"""The same for a public container of Blob Storage: those named for Azure speak its API, the others plain HTTP."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What a client got."""

    n_files: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class FetchTrial:
    """What to fetch.

    Attributes:
        client: a name of CLIENTS or AZURE_CLIENTS.
        url: root of the tree, without a slash at its end.
        n_files: units 0 to n_files - 1 of layer 0 are fetched.
        concurrency: requests at once.
        is_azure: take the client from AZURE_CLIENTS; the URL is then `http://HOST:PORT/ACCOUNT/CONTAINER`.
        cores: processors to pin to; 0 for all.
    """

    client: str
    url: str
    n_files: int
    concurrency: int
    is_azure: bool = False
    cores: int = 0

    def paths(self) -> list[str]:
        """Give the files' paths under the root."""
        return [DATASET.paths[0].format(layer=0, unit=unit) for unit in range(self.n_files)]

    def urls(self) -> list[str]:
        """Give the files' URLs."""
        return [f"{self.url}/{path}" for path in self.paths()]

    @property
    def endpoint(self) -> str:
        """The URL of an Azure account."""
        return self.url.rpartition("/")[0]

    @property
    def account(self) -> str:
        """The name of an Azure account."""
        return self.url.split("/")[-2]

    @property
    def container(self) -> str:
        """The name of an Azure container."""
        return self.url.rpartition("/")[2]

    @property
    def connection_string(self) -> str:
        """What says where the account is; there is no key in it, and the signature says nothing."""
        return f"BlobEndpoint={self.endpoint};SharedAccessSignature=none="

    def blobs(self) -> list[str]:
        """Give the files' paths, each with its container before it."""
        return [f"{self.container}/{path}" for path in self.paths()]


Fetch: TypeAlias = Callable[[FetchTrial], Tally]
"""Fetches all files of a trial into memory, over connections that stay open."""


@dataclass(frozen=True, slots=True)
class FetchOutcome:
    """What was measured: seconds, what came, the client's processor seconds, and its peak memory in MB."""

    seconds: float
    n_files: int
    n_bytes: int
    cpu_seconds: float
    peak_mb: float


def run_in_child(trial: FetchTrial) -> FetchOutcome:
    """Run a trial in a process of its own.

    Raises:
        subprocess.CalledProcessError: the client failed; its traceback is on stderr.
    """
    program = "import sys; from benchmarks.fetching import run; run(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(asdict(trial))], stdout=subprocess.PIPE, check=True
    )
    return FetchOutcome(**json.loads(done.stdout))


def run(trial_json: str) -> None:
    """Run a trial in this process after a warm-up that opens its connections, and print its outcome as JSON.

    Args:
        trial_json: the fields of a FetchTrial.
    """
    trial = FetchTrial(**json.loads(trial_json))
    if trial.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: trial.cores])
    module, function = (AZURE_CLIENTS if trial.is_azure else CLIENTS)[trial.client]
    with getattr(importlib.import_module(module), function)(trial) as fetch:
        fetch(replace(trial, n_files=min(trial.n_files, 2 * trial.concurrency)))
        used = _cpu_seconds()
        started = time.perf_counter()
        tally = fetch(trial)
        seconds = time.perf_counter() - started
        used = _cpu_seconds() - used
    status = Path("/proc/self/status").read_text("ascii")
    peak_mb = int(status.split("VmHWM:")[1].split()[0]) / 1024
    print(json.dumps(asdict(FetchOutcome(seconds, tally.n_files, tally.n_bytes, used, peak_mb))), flush=True)
    os._exit(0)  # now and then obstore's threads abort a process on its way out


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
