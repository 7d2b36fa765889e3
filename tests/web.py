"""A real HTTP server on the loopback, that can be told to answer as badly as a bucket does: see tests/faults.py."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from tests.faults import Exchange, Fault, Request, Weather, answer, close, cut_short, well
from tests.listening import Listening, listening

Name: TypeAlias = Literal["500", "403", "close", "cut short"]
NAMED: dict[str, Fault] = {"500": answer(500), "403": answer(403), "close": close, "cut short": cut_short}


@dataclass
class Web(Listening):
    """A folder that is served.

    Attributes:
        root: the folder.
        faults: what goes wrong, by path under the root: always, or in a sequence with one for each of the first
            attempts.
        weather: what goes wrong with whatever is asked for; `faults` come first.
        default: how to answer where nothing goes wrong.
        requests: what came, in its order.
    """

    root: Path
    faults: dict[str, Name | Fault | Sequence[Fault]] = field(default_factory=dict)
    weather: Weather | None = None
    default: Fault = well
    requests: list[Request] = field(default_factory=list)
    _attempts: Counter[str] = field(default_factory=Counter)

    @property
    def url(self) -> str:
        return self.origin

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

    async def respond(
        self, target: str, headers: Mapping[str, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
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
    with listening(Web(root)) as web:
        yield web
