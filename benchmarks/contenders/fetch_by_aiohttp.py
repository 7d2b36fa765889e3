"""Bare aiohttp: a few coroutines that take the next URL and read its body. It has no retries and looks at nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp

from benchmarks.fetching import Fetch, FetchTrial, Tally


@contextmanager
def connect(trial: FetchTrial) -> Iterator[Fetch]:
    """Open a session with as many connections as requests at once."""

    async def open_session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=trial.concurrency))

    with asyncio.Runner() as runner:
        session = runner.run(open_session())
        yield lambda trial: runner.run(_fetch(session, trial))
        runner.run(session.close())


async def _fetch(session: aiohttp.ClientSession, trial: FetchTrial) -> Tally:
    left = iter(trial.urls())
    sizes: list[int] = []

    async def take() -> None:
        for url in left:
            async with session.get(url) as response:
                response.raise_for_status()
                sizes.append(len(await response.read()))

    await asyncio.gather(*(take() for _ in range(trial.concurrency)))
    return Tally(len(sizes), sum(sizes))
