"""What can be wrong with an answer of a web server, each as a way to answer one request of tests/web.py."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from struct import pack
from typing import TypeAlias

from warehouse.records import LIMITS

HTML = b"<!DOCTYPE html><html><body><h1>Sign in to the network</h1></body></html>"
XML = b'<?xml version="1.0"?><Error><Code>AuthenticationFailed</Code></Error>'


@dataclass(frozen=True, slots=True)
class Request:
    """One request that came.

    Attributes:
        path: under the root, unquoted, without the query.
        target: as the client wrote it.
        headers: by their name in lower case.
        attempt: how often the path had been asked for before.
        time: when it came, in seconds of `time.monotonic`.
    """

    path: str
    target: str
    headers: Mapping[str, str]
    attempt: int
    time: float


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, the file that it names (None where there is none), and the connection to answer on."""

    request: Request
    file: Path | None
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def send_head(self, status: int, headers: Mapping[str, object]) -> None:
        """Send the status line and headers of an answer."""
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {headers[name]}" for name in headers)]
        await self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def send_answer(self, status: int, body: bytes = b"", headers: Mapping[str, object] | None = None) -> None:
        """Send a whole answer, of which nothing is wrong."""
        await self.send_head(status, {"Content-Length": len(body), **(headers or {})})
        await self.send(body)

    def content(self) -> bytes:
        """Read the file."""
        return b"" if self.file is None else self.file.read_bytes()

    async def end(self) -> None:
        """End the connection in order, and what was sent arrives."""
        self.writer.close()
        await self.writer.wait_closed()

    async def reset(self) -> None:
        """Break the connection off, as a crashed machine or a firewall does."""
        await asyncio.sleep(0.01)  # what was sent before may arrive
        self.writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, pack("ii", 1, 0))
        self.writer.transport.abort()


Fault: TypeAlias = Callable[[Exchange], Awaitable[None]]
"""Answers one request, well or badly; a connection that it leaves open is used for the next one."""
Weather: TypeAlias = Callable[[Request], Fault | None]
"""What is wrong with the whole server when a request comes; None when nothing is."""


# answers of which nothing is wrong -----------------------------------------------------------------------------------


async def well(exchange: Exchange) -> None:
    """Give the file, or 404."""
    if exchange.file is None:
        await exchange.send_answer(404, b"not here")
    else:
        await exchange.send_answer(200, exchange.content())


async def marked(exchange: Exchange) -> None:
    """Give the file with its ETag and Content-MD5, and 304 to one who knows that version."""
    data = exchange.content()
    etag = f'"{hashlib.sha1(data, usedforsecurity=False).hexdigest()}"'
    if exchange.file is None:
        await exchange.send_answer(404)
    elif exchange.request.headers.get("if-none-match") == etag:
        await exchange.send_head(304, {"ETag": etag})
    else:
        await exchange.send_answer(200, data, {"ETag": etag, "Content-MD5": _md5(data)})


async def gzipped(exchange: Exchange) -> None:
    """Give the file packed by gzip, and say so."""
    await exchange.send_answer(200, gzip.compress(exchange.content()), {"Content-Encoding": "gzip"})


async def chunked(exchange: Exchange) -> None:
    """Give the file in chunks, without its length."""
    await exchange.send_head(200, {"Transfer-Encoding": "chunked"})
    data = exchange.content()
    for first in range(0, len(data), 1000):
        await exchange.send(_chunk(data[first : first + 1000]))
    await exchange.send(_chunk(b""))


def redirect(target: str, status: int = 302) -> Fault:
    """Send the client elsewhere."""
    return answer(status, headers={"Location": target})


# answers that say no -------------------------------------------------------------------------------------------------


def answer(status: int, body: bytes = b"", headers: Mapping[str, object] | None = None) -> Fault:
    """Give a status, and nothing of the file."""

    async def fault(exchange: Exchange) -> None:
        await exchange.send_answer(status, body, headers)

    return fault


def later(seconds: float, status: int = 429) -> Fault:
    """Ask for patience, in seconds, as a Retry-After may be."""
    return answer(status, headers={"Retry-After": f"{seconds:g}"})


def later_by_date(seconds: float, status: int = 503) -> Fault:
    """Ask for patience until a moment, of which an HTTP date has whole seconds."""

    async def fault(exchange: Exchange) -> None:
        moment = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
        await exchange.send_answer(status, headers={"Retry-After": moment})

    return fault


def page(body: bytes, content_type: str) -> Fault:
    """Give a page in place of the file, with status 200."""
    return answer(200, body, {"Content-Type": content_type})


async def redirect_to_itself(exchange: Exchange) -> None:
    """Send the client in a circle."""
    await exchange.send_answer(302, headers={"Location": exchange.request.target})


async def redirect_for_ever(exchange: Exchange) -> None:
    """Send the client to a new place each time."""
    await exchange.send_answer(307, headers={"Location": f"{exchange.request.target}x"})


# no answer, or half of one -------------------------------------------------------------------------------------------


async def close(exchange: Exchange) -> None:
    """End the connection without an answer."""
    await exchange.end()


async def reset(exchange: Exchange) -> None:
    """Break the connection off without an answer."""
    await exchange.reset()


async def reset_in_body(exchange: Exchange) -> None:
    """Break the connection off in the middle of the body."""
    await _send_half(exchange)
    await exchange.reset()


async def cut_short(exchange: Exchange) -> None:
    """End the connection in the middle of the body."""
    await _send_half(exchange)
    await exchange.end()


async def cut_short_in_chunks(exchange: Exchange) -> None:
    """End the connection before the last chunk."""
    data = exchange.content()
    await exchange.send_head(200, {"Transfer-Encoding": "chunked"})
    await exchange.send(_chunk(data[: len(data) // 2]))
    await exchange.end()


async def silent(exchange: Exchange) -> None:
    """Say nothing, for longer than any client of a test waits."""
    await asyncio.sleep(30)


async def silent_in_body(exchange: Exchange) -> None:
    """Give half of the body, and then nothing."""
    await _send_half(exchange)
    await asyncio.sleep(30)


def slow_head(seconds: float) -> Fault:
    """Give the file, its headers byte by byte over some seconds."""

    async def fault(exchange: Exchange) -> None:
        data = exchange.content()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        for place in range(len(head)):
            await exchange.send(head[place : place + 1])
            await asyncio.sleep(seconds / len(head))
        await exchange.send(data)

    return fault


async def endless_head(exchange: Exchange) -> None:
    """Give headers without end, one after the other, and none of them late."""
    await exchange.send(b"HTTP/1.1 200 OK\r\n")
    while not exchange.writer.is_closing():
        await exchange.send(b"X-More: to come\r\n")
        await asyncio.sleep(0.01)


def drip(seconds: float) -> Fault:
    """Give the body byte by byte, with as long a pause after each."""

    async def fault(exchange: Exchange) -> None:
        data = exchange.content()
        await exchange.send_head(200, {"Content-Length": len(data)})
        for place in range(len(data)):
            await exchange.send(data[place : place + 1])
            await asyncio.sleep(seconds)

    return fault


def claim_length(difference: int) -> Fault:
    """Give the whole body, with a Content-Length that is by so much too long or too short."""

    async def fault(exchange: Exchange) -> None:
        data = exchange.content()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(data) + difference}\r\n\r\n"
        await exchange.send(head.encode() + data)
        await exchange.end()

    return fault


async def shortened(exchange: Exchange) -> None:
    """Give the file without its end, with the length of what is left, as a proxy does that lost the rest."""
    await exchange.send_answer(200, exchange.content()[:-100])


async def shortened_with_md5(exchange: Exchange) -> None:
    """Give the file without its end, with the length of what is left and the Content-MD5 of the whole."""
    data = exchange.content()
    await exchange.send_answer(200, data[:-100], {"Content-MD5": _md5(data)})


async def wrong_md5(exchange: Exchange) -> None:
    """Give the file with a bit of it changed on the way, so that its Content-MD5 is another's."""
    data = exchange.content()
    await exchange.send_answer(200, bytes([data[0] ^ 1]) + data[1:], {"Content-MD5": _md5(data)})


async def endless(exchange: Exchange) -> None:
    """Give chunks far beyond what is read of any file, and no last one."""
    await exchange.send_head(200, {"Transfer-Encoding": "chunked"})
    chunk = _chunk(b" " * 2**20)
    for _ in range(3 * LIMITS.file_bytes // 2**20):
        await exchange.send(chunk)
    await exchange.end()


async def gibberish(exchange: Exchange) -> None:
    """Answer in no known protocol."""
    await exchange.send(b"\x15\x03\x01\x00\x02\x02\x16\r\n\r\n")
    await exchange.end()


# weather -------------------------------------------------------------------------------------------------------------


def storm_for(seconds: float, fault: Fault) -> Weather:
    """Answer every request badly for some seconds from the first one on."""
    ends: list[float] = []

    def weather(request: Request) -> Fault | None:
        ends.append(request.time + seconds)
        return fault if request.time < ends[0] else None

    return weather


def storm_of(faults: Mapping[Fault, float], seed: int) -> Weather:
    """Answer some requests badly, at random.

    Args:
        faults: how, each with its share of all requests.
        seed: of the draws, of which each attempt at each path has its own.
    """

    def weather(request: Request) -> Fault | None:
        drawn = random.Random(f"{seed} {request.path} {request.attempt}").random()
        for fault, share in faults.items():
            drawn -= share
            if drawn < 0:
                return fault
        return None

    return weather


async def _send_half(exchange: Exchange) -> None:
    data = exchange.content()
    await exchange.send_head(200, {"Content-Length": len(data)})
    await exchange.send(data[: len(data) // 2])


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode("ascii")
