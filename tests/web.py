"""A real HTTP server on the loopback, that can be told to answer as badly as a bucket does: see tests/faults.py."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from tests.faults import Exchange, Fault, Request, Weather, answer, close, cut_short, well

Name: TypeAlias = Literal["500", "403", "close", "cut short"]
NAMED: dict[str, Fault] = {"500": answer(500), "403": answer(403), "close": close, "cut short": cut_short}


@dataclass
class Web:
    """A folder that is served.

    Attributes:
        root: the folder.
        port: of 127.0.0.1.
        faults: what goes wrong, by path under the root: always, or in a sequence with one for each of the first
            attempts.
        weather: what goes wrong with whatever is asked for; `faults` come first.
        default: how to answer where nothing goes wrong.
        requests: what came, in its order.
    """

    root: Path
    port: int = 0
    faults: dict[str, Name | Fault | Sequence[Fault]] = field(default_factory=dict)
    weather: Weather | None = None
    default: Fault = well
    requests: list[Request] = field(default_factory=list)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _server: asyncio.Server | None = None
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _attempts: Counter[str] = field(default_factory=Counter)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def asked(self) -> list[str]:
        """What was asked for, with its query, in the order in which it was."""
        return [request.target for request in self.requests]

    @property
    def authorizations(self) -> set[str | None]:
        """The Authorization headers that came."""
        return {request.headers.get("authorization") for request in self.requests}

    def requests_of(self, path: str) -> list[Request]:
        """Give the requests for one path under the root."""
        return [request for request in self.requests if request.path == path]

    def forget(self) -> None:
        """Forget what was asked for, and count attempts anew."""
        self.requests.clear()
        self._attempts.clear()

    def go_down(self) -> None:
        """Break off all connections and refuse new ones."""
        self._run(self._close())

    def come_back(self) -> None:
        """Listen again, on the same port."""
        self._run(self._listen())

    @contextmanager
    def down_for(self, seconds: float) -> Iterator[None]:
        """Go down, and come back after some seconds, of which the block need not take notice."""
        self.go_down()
        timer = threading.Timer(seconds, self.come_back)
        timer.start()
        try:
            yield
        finally:
            timer.join()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        self._open.add(writer)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while not writer.is_closing():
                    await self._answer(await reader.readuntil(b"\r\n\r\n"), writer)
        finally:
            self._open.discard(writer)
            writer.close()

    async def _answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        first, *lines = head.decode("latin-1").rstrip().split("\r\n")
        target = first.split(" ")[1]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        path = unquote(urlsplit(target).path).lstrip("/")
        request = Request(path, target, headers, self._attempts[path], time.monotonic())
        self._attempts[path] += 1
        self.requests.append(request)
        file = self.root / path
        await self._choose(request)(Exchange(request, file if file.is_file() else None, writer))

    def _choose(self, request: Request) -> Fault:
        match self.faults.get(request.path):
            case str(name):
                return NAMED[name]
            case None:
                pass
            case [*faults]:
                if request.attempt < len(faults):
                    return faults[request.attempt]
            case fault:
                return fault
        return (self.weather and self.weather(request)) or self.default


@contextmanager
def serve(root: Path) -> Iterator[Web]:
    """Serve a folder until the end of the block."""
    web = Web(root)
    thread = threading.Thread(target=web._loop.run_forever, daemon=True)
    thread.start()
    try:
        web.come_back()
        yield web
    finally:
        web.go_down()
        asyncio.run_coroutine_threadsafe(_cancel_the_rest(), web._loop).result()
        web._loop.call_soon_threadsafe(web._loop.stop)
        thread.join()
        web._loop.close()


async def _cancel_the_rest() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
