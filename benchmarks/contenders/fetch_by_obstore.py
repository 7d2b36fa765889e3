"""obstore's fsspec interface: object_store's clients, in Rust, over HTTP and over Azure."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.fsspec import FsspecStore

from benchmarks.fetching import Fetch, FetchTrial, Tally


@contextmanager
def connect_http(_trial: FetchTrial) -> Iterator[Fetch]:
    """Open its HTTP filesystem."""
    fs = FsspecStore("http", client_options={"allow_http": True}, asynchronous=True)  # type: ignore[call-overload]
    with asyncio.Runner() as runner:
        yield lambda trial: runner.run(_fetch(fs, trial.urls(), trial.concurrency))


@contextmanager
def connect_azure(trial: FetchTrial) -> Iterator[Fetch]:
    """Open its Azure filesystem on a public container, without credentials."""
    fs = FsspecStore(
        "az",
        account_name=trial.account,
        endpoint=trial.endpoint,
        skip_signature=True,
        client_options={"allow_http": True},
        asynchronous=True,
    )
    with asyncio.Runner() as runner:
        yield lambda trial: runner.run(_fetch(fs, trial.blobs(), trial.concurrency))


async def _fetch(fs: FsspecStore, paths: list[str], concurrency: int) -> Tally:
    left = iter(paths)
    sizes: list[int] = []

    async def take() -> None:
        for path in left:
            # Its `cat` lists each path first, and its `cat_ranges` wants to be told lengths.
            sizes.append(len(await fs._cat_file(path)))

    await asyncio.gather(*(take() for _ in range(concurrency)))
    return Tally(len(sizes), sum(sizes))
