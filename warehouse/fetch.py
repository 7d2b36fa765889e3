"""Asking for many small files at once: how many, how fast, how often again, and when a source is down.

One worker fetches one shard at a time. Its requests run on fsspec's event loop, in a thread of its own, while the
worker decodes what has come: `in_order` hands results over in the order of the units, and holds no more bytes than
fit its room, however large the files are and however slow the decoding is.
"""

from __future__ import annotations

import asyncio
import queue
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TypeVar

from warehouse.clients import Answer, Client, Reserve, TransientError
from warehouse.options import FetchOptions

Result = TypeVar("Result")

ROOM_BYTES = 256 * 2**20
"""Bytes that a worker holds of files that have come, or are coming, and are not decoded yet."""

_LONGEST_PAUSE = 30.0
_TAKEN_AT_ONCE = 16


class Fetcher:
    """Asks one source for files, again where that may help, and notices when nobody is answered any more."""

    def __init__(self, client: Client, options: FetchOptions, canary: str) -> None:
        """Begin with a source that is taken to be well.

        Args:
            client: asks the source for one file once.
            options: how often, how fast and how patiently.
            canary: a path that is not there. That a source says so shows that it answers, whatever it says of others.
        """
        self._client = client
        self._options = options
        self._canary = canary
        self._is_asking_canary = asyncio.Lock()
        self._last_answer = time.monotonic()
        self._last_silence = 0.0
        self._resume_at = 0.0
        self._next_turn = 0.0
        self.is_down = False

    async def get(self, path: str, etag: str | None, reserve: Reserve) -> Answer:
        """Ask for one file until there is an answer, or asking again is of no use.

        Raises:
            TransientError: the last reason why there was none; `is_down` says whether the source answers nobody.
        """
        n_asked = n_failed = 0
        began_at = time.monotonic()
        while True:
            await self._wait_for_turn()
            asked_at, was_answering = time.monotonic(), self._last_answer > began_at
            try:
                answer = await self._client.get(path, etag, reserve)
            except TransientError as e:
                n_asked, n_failed = n_asked + 1, n_failed + 1
                is_too_long = (e.retry_after or 0) > self._options.patience_seconds
                if e.retry_after is not None and not is_too_long:
                    self._resume_at = max(self._resume_at, time.monotonic() + e.retry_after)
                if n_failed >= self._options.attempts or is_too_long:
                    is_answering = await self._is_answering(asked_at)
                    if self.is_down or (is_answering and (was_answering or is_too_long)):
                        raise
                    # Nobody was answered while this file was asked for. If somebody is now, it has one more chance.
                    n_failed = self._options.attempts - 1 if is_answering else 0
            else:
                self._last_answer = time.monotonic()
                return answer
            pause = min(self._options.backoff_seconds * 2 ** min(n_asked - 1, 16), _LONGEST_PAUSE)
            await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311  (jitter, no secret)

    async def _wait_for_turn(self) -> None:
        """Wait until the source wants to be asked, and the rate allows it."""
        if self._options.max_rate is not None:
            now = time.monotonic()
            self._next_turn = max(self._next_turn, now) + 1 / self._options.max_rate
            await asyncio.sleep(self._next_turn - 1 / self._options.max_rate - now)
        while (pause := self._resume_at - time.monotonic()) > 0 and not self.is_down:
            await asyncio.sleep(pause)
        if self.is_down:
            raise TransientError("not asked for: the source answers nobody")

    async def _is_answering(self, since: float) -> bool:
        """Say whether the source answers others, or else a path that is not there; if not, it may be found down."""
        async with self._is_asking_canary:
            if self._last_answer > since:
                return True
            if self._last_silence > since or self.is_down:
                return False
            try:
                await self._client.get(self._canary, None, _no_bound)
            except TransientError as e:
                patience = self._options.patience_seconds
                self._last_silence = time.monotonic()
                self.is_down |= time.monotonic() - self._last_answer > patience or (e.retry_after or 0) > patience
                return False
            self._last_answer = time.monotonic()
            return True


async def _no_bound(_: int) -> None:
    """Have room for an answer that is thrown away."""


class _Room:
    """Room in memory for files that have come and are not taken yet; the file that is taken next always has room.

    All of it runs on the event loop.
    """

    def __init__(self, n_bytes: int) -> None:
        self._n_free = n_bytes
        self._next = 0
        self._held: dict[int, int] = {}
        self._waiting: list[asyncio.Future[None]] = []

    async def hold(self, index: int, n_bytes: int) -> None:
        """Wait until a file may hold so many bytes in all."""
        while index != self._next and n_bytes - self._held.get(index, 0) > self._n_free:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        self._n_free -= n_bytes - self._held.get(index, 0)
        self._held[index] = n_bytes

    def take_until(self, index: int) -> None:
        """Free what the files before this one hold, now that they are taken and it is next."""
        self._n_free += sum(self._held.pop(taken, 0) for taken in range(self._next, index))
        self._next = index
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(None)
        self._waiting.clear()


def in_order(
    loop: asyncio.AbstractEventLoop,
    work: Callable[[int, Reserve], Awaitable[Result]],
    n: int,
    concurrency: int,
    room_bytes: int = ROOM_BYTES,
) -> Iterator[Result]:
    """Run n pieces of work on another thread's event loop, some at once, and give their results in order.

    Args:
        loop: a running loop of another thread.
        work: called with 0 to n - 1, and with the function that waits for room.
        n: how many.
        concurrency: how many at once.
        room_bytes: what all together may reserve beyond what the next result needs.

    Raises:
        Exception: what the work raised.
    """
    ready: dict[int, Result] = {}
    wanted = 0
    is_wanted_ready = threading.Event()
    rooms: queue.SimpleQueue[_Room] = queue.SimpleQueue()

    async def drive() -> None:
        room = _Room(room_bytes)
        rooms.put(room)
        left = iter(range(n))

        async def run() -> None:
            for index in left:
                ready[index] = await work(index, partial(room.hold, index))
                if index == wanted:
                    is_wanted_ready.set()

        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, n)):
                group.create_task(run())

    driver = asyncio.run_coroutine_threadsafe(drive(), loop)
    driver.add_done_callback(lambda _: is_wanted_ready.set())
    try:
        room = rooms.get()
        for wanted in range(n):
            # Threads change over only when the one result is there that is wanted: often others are there by then.
            if wanted not in ready or wanted % _TAKEN_AT_ONCE == 0:
                loop.call_soon_threadsafe(room.take_until, wanted)
            while wanted not in ready:
                is_wanted_ready.wait()
                is_wanted_ready.clear()
                if driver.done() and wanted not in ready:
                    driver.result()
            yield ready.pop(wanted)
    finally:
        driver.cancel()
