"""One request for one file, over HTTP or an object store: what came, or why not, with nothing tried twice.

An HTTP source is read by the session of fsspec's own HTTP filesystem, so that the status, ETag, Content-MD5 and
Retry-After of an answer are seen. Any other filesystem is asked for the object's facts and then for its bytes.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal, Protocol, TypeAlias, cast

import aiohttp
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from fsspec.implementations.http import HTTPFileSystem

from warehouse.records import LIMITS

_TRANSIENT = frozenset({408, 425, 429})
_CHUNK = 1 << 16
_SLOWEST_BODY = 10
"""Times the timeout that a whole body may take: a server that drips bytes is never silent for long enough."""
_ABSENCES = {"FileNotFoundError", "ResourceNotFoundError"}
_REFUSALS = {"PermissionError", "NoCredentialsError", "ClientAuthenticationError", "CredentialUnavailableError"}

Reserve: TypeAlias = Callable[[int], Awaitable[None]]
"""Waits until the file that is asked for may hold so many bytes of memory in all."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a source said to one request.

    Attributes:
        status: ok with data; absent; unchanged, where the version asked about is still there; rejected, too large to
            read; refused, an answer that asking again will not change.
        data: the bytes as stored.
        etag: the source's mark of this version.
        error: why it was rejected or refused.
    """

    status: Literal["ok", "absent", "unchanged", "rejected", "refused"]
    data: bytes | None = None
    etag: str | None = None
    error: str | None = None


class TransientError(Exception):
    """No answer, or half of one: another request may well be answered.

    Attributes:
        retry_after: seconds that the source wants to be left alone, None where it did not say.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Client(Protocol):
    """Asks for one file once."""

    async def get(self, path: str, etag: str | None, reserve: Reserve) -> Answer:
        """Ask for one file.

        Args:
            path: as the filesystem writes it.
            etag: the version that is known already, whose bytes are not wanted again.
            reserve: awaited with the bytes that will have been read, before they are.

        Raises:
            TransientError: there was no whole answer.
        """
        ...


def client_for(fs: Any, timeout_seconds: float) -> Client:
    """Choose the client of a filesystem.

    Args:
        fs: an fsspec filesystem that is not local.
        timeout_seconds: how long a source may be silent.
    """
    if isinstance(fs, HTTPFileSystem):
        return HttpClient(fs, timeout_seconds)
    return ObjectClient(fs if isinstance(fs, AsyncFileSystem) else AsyncFileSystemWrapper(fs), timeout_seconds)


async def open_session(**settings: Any) -> aiohttp.ClientSession:
    """Open the session of fsspec's HTTP filesystem for many small files: as many connections as requests under way."""
    # Bytes are kept as stored, and their length and MD5 are the file's own, so nothing is unpacked on the way.
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
        auto_decompress=False,
        headers={"Accept-Encoding": "identity"},
        **settings,
    )


class HttpClient:
    """Asks a web server."""

    def __init__(self, fs: HTTPFileSystem, timeout_seconds: float) -> None:
        self._fs = fs
        self._slowest_body = _SLOWEST_BODY * timeout_seconds
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=timeout_seconds, sock_read=timeout_seconds, connect=timeout_seconds
        )

    async def get(self, path: str, etag: str | None, reserve: Reserve) -> Answer:
        """Ask for one file: see `Client.get`."""
        session = await self._fs.set_session()
        headers = {"If-None-Match": etag} if etag else None
        try:
            async with session.get(self._fs.encode_url(path), headers=headers, timeout=self._timeout) as response:
                return await self._read(response, reserve)
        except (aiohttp.TooManyRedirects, aiohttp.InvalidURL) as e:
            return Answer("refused", error=f"{type(e).__name__}: {e}")
        except (aiohttp.ClientError, OSError, TimeoutError) as e:
            raise TransientError(f"{type(e).__name__}: {e}".rstrip(": ")) from e

    async def _read(self, response: aiohttp.ClientResponse, reserve: Reserve) -> Answer:
        if response.status in (404, 410):
            return Answer("absent")
        if response.status == 304:
            return Answer("unchanged")
        if response.status != 200:
            reason = f"HTTP {response.status} {response.reason or ''}".rstrip()
            if response.status in _TRANSIENT or response.status >= 500:
                raise TransientError(reason, _seconds_until(response.headers.get("Retry-After")))
            return Answer("refused", error=reason)
        if (response.content_length or 0) > LIMITS.file_bytes:
            return _too_large(f"{response.content_length:,} bytes")
        if response.content_length is None:
            data = await self._read_chunks(response, reserve)
        else:
            await reserve(response.content_length)
            async with asyncio.timeout(self._slowest_body):
                data = await response.read()
        if data is None:
            return _too_large("its length is not given, and it goes on")
        _check_md5(data, _decode_base64(response.headers.get("Content-MD5", "")))
        return Answer("ok", data, response.headers.get("ETag"))

    async def _read_chunks(self, response: aiohttp.ClientResponse, reserve: Reserve) -> bytes | None:
        """Read a body whose length is not known, or give None where it passes the limit."""
        body = bytearray()
        deadline = asyncio.get_running_loop().time() + self._slowest_body
        while True:
            async with asyncio.timeout_at(deadline):
                chunk = await response.content.read(_CHUNK)
            if not chunk:
                return bytes(body)
            if len(body) + len(chunk) > LIMITS.file_bytes:
                return None
            await reserve(len(body) + len(chunk))
            body += chunk


class ObjectClient:
    """Asks an object store, or any other filesystem that fsspec knows."""

    def __init__(self, fs: AsyncFileSystem, timeout_seconds: float) -> None:
        self._fs = fs
        self._timeout = timeout_seconds
        self._slowest_body = _SLOWEST_BODY * timeout_seconds

    async def get(self, path: str, etag: str | None, reserve: Reserve) -> Answer:
        """Ask for one file: see `Client.get`."""
        facts = await self._ask(self._ask_facts(path), self._timeout)
        if isinstance(facts, Answer):
            return facts
        if facts.get("type") == "directory":
            return Answer("absent")
        mark = next((str(facts[name]) for name in ("ETag", "etag", "mtime") if facts.get(name)), None)
        if etag and mark == etag:
            return Answer("unchanged")
        size = int(facts.get("size") or 0)
        if size > LIMITS.file_bytes:
            return _too_large(f"{size:,} bytes")
        await reserve(size)
        data = await self._ask(self._fs._cat_file(path), self._slowest_body)
        if isinstance(data, Answer):
            return data
        if len(data) != size:
            raise TransientError(f"{len(data):,} bytes came, and the source says {size:,}")
        _check_md5(data, _find_md5(facts))
        return Answer("ok", data, mark)

    async def _ask_facts(self, path: str) -> dict[str, Any]:
        """Ask for the facts of one object."""
        service = getattr(self._fs, "service_client", None)
        if service is None:
            return cast(dict[str, Any], await self._fs._info(path))
        # Where there is no blob adlfs looks for a folder, and a public container may not be listed.
        container, blob, _ = self._fs.split_path(path)
        found = await service.get_blob_client(container, blob).get_blob_properties()
        return {"size": found.size, "etag": found.etag, "content_settings": found.content_settings}

    async def _ask(self, question: Awaitable[Any], seconds: float) -> Any:
        """Await an answer of the filesystem, or give what its error means: each plugin raises errors of its own."""
        result: Any
        (result,) = await asyncio.gather(asyncio.wait_for(question, seconds), return_exceptions=True)
        if not isinstance(result, BaseException):
            return result
        kinds = {kind.__name__ for kind in type(result).__mro__}
        if kinds & _ABSENCES:
            return Answer("absent")
        reason = f"{type(result).__name__}: {result}".rstrip(": ")
        if kinds & _REFUSALS:
            return Answer("refused", error=reason)
        if isinstance(result, Exception):
            raise TransientError(reason) from result
        raise result


def _too_large(what: str) -> Answer:
    return Answer("rejected", error=f"{what}: at most {LIMITS.file_bytes:,} are read of a file")


def _seconds_until(header: str | None) -> float | None:
    """Read a Retry-After header: seconds, or a date."""
    if header is None:
        return None
    if header.strip().isdigit():
        return float(header.strip()[:9])
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _find_md5(facts: dict[str, Any]) -> bytes | None:
    """Find the MD5 in what an object store says of an object: Azure's and Google's; S3's ETag need not be one."""
    md5 = facts.get("md5Hash") or (facts.get("content_settings") or {}).get("content_md5")
    return _decode_base64(md5) if isinstance(md5, str) else bytes(md5) if md5 else None


def _decode_base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return None


def _check_md5(data: bytes, wanted: bytes | None) -> None:
    if wanted and len(wanted) == 16 and hashlib.md5(data, usedforsecurity=False).digest() != wanted:
        raise TransientError(f"the {len(data):,} bytes that came do not have the MD5 that the source gives")
