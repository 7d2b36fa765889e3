"""This project's fetching by itself: every result is taken in unit order and thrown away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.fetching import Fetch, FetchTrial, Tally
from benchmarks.trial import DATASET
from warehouse.options import FetchOptions
from warehouse.source import Source


@contextmanager
def connect(trial: FetchTrial) -> Iterator[Fetch]:
    """Open a source over HTTP."""
    source = Source(trial.url, FetchOptions(concurrency=trial.concurrency))
    yield lambda trial: _fetch(source, trial.n_files)


@contextmanager
def connect_azure(trial: FetchTrial) -> Iterator[Fetch]:
    """Open a source of `az://`, which with an account in the environment is adlfs."""
    os.environ["AZURE_STORAGE_CONNECTION_STRING"] = trial.connection_string
    source = Source(f"az://{trial.container}", FetchOptions(concurrency=trial.concurrency))
    yield lambda trial: _fetch(source, trial.n_files)


def _fetch(source: Source, n_files: int) -> Tally:
    """Fetch all files as one run of units; a build, which fetches shard by shard, waits once more for each."""
    sizes: list[int] = []
    for fetched in source.fetch(DATASET, 0, range(n_files)):
        if fetched.data is None:
            raise OSError(f"{fetched.uri} {fetched.status}: {fetched.error}")
        sizes.append(len(fetched.data))
    return Tally(len(sizes), sum(sizes))
