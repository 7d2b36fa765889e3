"""urllib3, with a thread for each request under way."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import urllib3

from benchmarks.fetching import Fetch, FetchTrial, Tally


@contextmanager
def connect(trial: FetchTrial) -> Iterator[Fetch]:
    """Open as many connections and threads as requests at once."""
    with urllib3.PoolManager(maxsize=trial.concurrency) as manager, ThreadPoolExecutor(trial.concurrency) as pool:

        def get(url: str) -> int:
            response = manager.request("GET", url, retries=False)
            if response.status != 200:
                raise OSError(f"{response.status} of {url}")
            return len(response.data)

        def fetch(trial: FetchTrial) -> Tally:
            sizes = list(pool.map(get, trial.urls()))
            return Tally(len(sizes), sum(sizes))

        yield fetch
