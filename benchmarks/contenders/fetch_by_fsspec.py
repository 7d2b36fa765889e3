"""fsspec's own interface, as anyone calls it: `cat_ranges` over HTTP, and over adlfs for Azure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import fsspec

from benchmarks.fetching import Fetch, FetchTrial, Tally

_PIECE = 512


@contextmanager
def connect_http(trial: FetchTrial) -> Iterator[Fetch]:
    """Open an HTTPFileSystem whose session may have as many connections as requests at once; else it has 100."""

    async def open_session(**settings: Any) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=trial.concurrency), **settings)

    fs = fsspec.filesystem("http", get_client=open_session)
    yield lambda trial: _fetch(fs, trial.urls(), trial.concurrency)


@contextmanager
def connect_azure(trial: FetchTrial) -> Iterator[Fetch]:
    """Open adlfs on a public container, without credentials."""
    fs = fsspec.filesystem("az", connection_string=trial.connection_string)
    yield lambda trial: _fetch(fs, trial.blobs(), trial.concurrency)


def _fetch(fs: Any, paths: list[str], concurrency: int) -> Tally:
    sizes: list[int] = []
    # A piece at a time, as all at once would be held in memory.
    for first in range(0, len(paths), _PIECE):
        sizes += map(len, fs.cat_ranges(paths[first : first + _PIECE], None, None, batch_size=concurrency))
    return Tally(len(sizes), sum(sizes))
