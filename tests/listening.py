"""A server of the tests: it listens on the loopback in a thread of its own, and can go down and come back."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar


@dataclass
class Listening(ABC):
    """Speaks HTTP/1.1, one request of a connection after the other.

    Attributes:
        port: of 127.0.0.1.
        limit: the most bytes of a request's head.
    """

    port: int = field(default=0, kw_only=True)
    limit: ClassVar[int] = 2**16
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop, init=False)
    _server: asyncio.Server | None = field(default=None, init=False)
    _open: set[asyncio.StreamWriter] = field(default_factory=set, init=False)

    @abstractmethod
    async def respond(
        self, target: str, headers: Mapping[str, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer a request.

        Args:
            target: as the client wrote it.
            headers: by their name in lower case.
            reader: where its body comes from.
            writer: where the answer goes.
        """

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def go_down(self) -> None:
        """Break off all connections and refuse new ones."""
        self._run(self._break_off())

    def come_back(self) -> None:
        """Listen again, on the same port."""
        self._run(self._listen())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=1024, limit=self.limit)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _break_off(self) -> None:
        self.break_off()

    def break_off(self) -> None:
        """Do what `go_down` does, from the server's own thread."""
        if self._server is not None:
            self._server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while not writer.is_closing():
                    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
                    pairs = (line.partition(":") for line in lines)
                    headers = {name.lower(): value.strip() for name, _, value in pairs}
                    await self.respond(first.split(" ")[1], headers, reader, writer)
        finally:
            self._open.discard(writer)
            writer.close()


Server = TypeVar("Server", bound=Listening)


@contextmanager
def listening(server: Server) -> Iterator[Server]:
    """Let a server listen until the end of the block."""
    thread = threading.Thread(target=server._loop.run_forever, daemon=True)
    thread.start()
    try:
        server.come_back()
        yield server
    finally:
        server.go_down()
        server._run(_cancel_the_rest())
        server._loop.call_soon_threadsafe(server._loop.stop)
        thread.join()
        server._loop.close()


async def _cancel_the_rest() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
