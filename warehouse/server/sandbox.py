"""SQL from outside, in processes of its own: a few of them, each bounded in memory and time, and killed where need be.

What a statement may read is `box`'s to say. Here it is seen to that one that is heavy, or meant to harm, costs nobody
else an answer: the processes are few and stand behind the server's own, and who comes when all are taken is told so.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import msgspec
import polars as pl
from starlette.requests import Request

from warehouse.errors import LakeError, QueryError, WarehouseError
from warehouse.server.access_log import log_event
from warehouse.server.settings import SqlLimits
from warehouse.server.worker import HEADER, READY, REQUEST, Facts, Job, Statement, say_large, say_slow

_GRACE_SECONDS = 2.0
"""How much longer than its time a statement may take, since its process ends it by itself, before that is killed."""
_PASSED_ON = ("HOME", "LANG", "LC_ALL", "PATH", "PYTHONPATH", "PYTHONSAFEPATH", "TMPDIR", "WAREHOUSE_CACHE")
"""The environment of a worker on a lake of this machine: nothing there is a secret."""
_FRUGAL = {"ARROW_DEFAULT_MEMORY_POOL": "system", "POLARS_MAX_THREADS": "1"}
"""Arrow's own pools reserve a GiB at their first use, which is all that a worker may hold beside DuckDB."""


class SandboxBusy(WarehouseError):
    """As many statements run and wait as may."""


class ClientGone(WarehouseError):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True, slots=True)
class SqlAnswer:
    """What a statement gave.

    Attributes:
        frame: its rows, at most as many as were asked for.
        is_cut: whether there are more.
        seconds: how long it ran.
    """

    frame: pl.DataFrame
    is_cut: bool
    seconds: float


class Sandbox:
    """A few processes that run one statement each at a time. Belongs to one event loop."""

    def __init__(self, lake: str, limits: SqlLimits) -> None:
        self.limits = limits
        self._lake = lake
        self._idle: asyncio.Queue[Process] = asyncio.Queue()
        self._all: set[Process] = set()
        self._replacing: set[asyncio.Task[None]] = set()
        self._n_waiting = 0

    async def start(self) -> None:
        """Start the processes, and wait until they can be asked.

        Raises:
            LakeError: none of them starts.
        """
        await asyncio.gather(*(self._add() for _ in range(self.limits.n_workers)))
        if not self._all:
            raise LakeError("no process for SQL could be started: is there memory for it?")

    async def close(self) -> None:
        """End the processes, whatever they do."""
        for task in self._replacing:
            task.cancel()
        for process in self._all:
            _kill(process)
        await asyncio.gather(*(process.wait() for process in self._all))

    async def run(self, sql: str, max_rows: int | None = None, params: Mapping[str, object] | None = None) -> SqlAnswer:
        """Run one reading statement.

        Args:
            sql: as for `LakeReader.sql`.
            max_rows: rows at most; never more than the limit.
            params: values for $name.

        Raises:
            QueryError: the statement is wrong, refused, or beyond its time or memory.
            LakeError: the lake cannot be read.
            SandboxBusy: too many others run and wait.
        """
        max_rows = self.limits.rows if max_rows is None else min(max_rows, self.limits.rows)
        statement = Statement(sql, None if params is None else dict(params), max_rows, self.limits.answer_bytes)
        try:
            text = msgspec.json.encode(statement)
        except (UnicodeEncodeError, TypeError, OverflowError) as e:
            raise QueryError(f"the statement or a value is no text that SQL can have: {e}") from e
        process = await self._take()
        is_ready = False
        try:
            async with asyncio.timeout(self.limits.seconds + _GRACE_SECONDS):
                facts, rows = await _ask(process, text)
            is_ready = not facts.is_spent
        except TimeoutError:
            raise QueryError(say_slow(self.limits.seconds)) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            # It has met its bound of memory where nothing could be said any more.
            raise QueryError(say_large(self.limits.memory_megabytes)) from None
        finally:
            if is_ready:
                self._idle.put_nowait(process)
            else:
                self._replace(process)
        if facts.lake_error is not None:
            raise LakeError(facts.lake_error)
        if facts.query_error is not None:
            raise QueryError(facts.query_error)
        return SqlAnswer(pl.read_ipc_stream(BytesIO(rows)), facts.is_cut, facts.seconds)

    async def _take(self) -> Process:
        if self._idle.empty() and self._n_waiting >= self.limits.n_waiting:
            raise SandboxBusy(f"{self._n_waiting} statements wait already: ask again in a moment")
        self._n_waiting += 1
        try:
            async with asyncio.timeout(self.limits.waiting_seconds):
                process = await self._idle.get()
        except TimeoutError:
            raise SandboxBusy(
                f"no other statement ended in {self.limits.waiting_seconds:g} s: ask again in a moment"
            ) from None
        finally:
            self._n_waiting -= 1
        if process.returncode is not None:  # somebody else ended it
            self._replace(process)
            return await self._take()
        return process

    async def _add(self) -> None:
        job = Job(self._lake, self.limits.seconds, self.limits.memory_megabytes)
        # A session of its own: Ctrl-C at the server's terminal is not for it, as requests under way shall end.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "warehouse.server.worker", msgspec.json.encode(job).decode(),
            stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True, env=self._environment(),
        )  # fmt: skip
        self._all.add(process)
        assert process.stdout is not None  # it is a pipe
        try:
            await process.stdout.readexactly(len(READY))
        except asyncio.IncompleteReadError:
            log_event("sandbox_not_started", pid=process.pid, code=await process.wait())
            self._all.discard(process)
        else:
            self._idle.put_nowait(process)

    def _environment(self) -> dict[str, str]:
        is_remote = "://" in self._lake  # what reads a store finds its credentials there
        return {name: value for name, value in os.environ.items() if is_remote or name in _PASSED_ON} | _FRUGAL

    def _replace(self, process: Process) -> None:
        _kill(process)
        self._all.discard(process)
        log_event("sandbox_replaced", pid=process.pid)
        task = asyncio.get_running_loop().create_task(self._bury(process))
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)

    async def _bury(self, process: Process) -> None:
        await process.wait()
        await self._add()


async def run_while_asked(
    request: Request,
    sandbox: Sandbox,
    sql: str,
    max_rows: int | None = None,
    params: Mapping[str, object] | None = None,
) -> SqlAnswer:
    """Run a statement as `Sandbox.run` does, but only for as long as its client waits.

    Args:
        request: whose answer it is; its body was read.
        sandbox: what runs it; the process of a statement that nobody waits for is replaced.
        sql: as for `Sandbox.run`.
        max_rows: as for `Sandbox.run`.
        params: as for `Sandbox.run`.

    Raises:
        ClientGone: the client left.
        QueryError: as `Sandbox.run`; so LakeError and SandboxBusy.
    """
    running = asyncio.create_task(sandbox.run(sql, max_rows, params))
    leaving = asyncio.create_task(_see_off(request))
    try:
        await asyncio.wait((running, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            raise ClientGone("the client left before the answer was there")
        return running.result()
    finally:
        running.cancel()
        leaving.cancel()
        await asyncio.gather(running, leaving, return_exceptions=True)


async def _see_off(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _ask(process: Process, text: bytes) -> tuple[Facts, bytes]:
    assert process.stdin is not None and process.stdout is not None  # both are pipes
    process.stdin.write(REQUEST.pack(len(text)) + text)
    await process.stdin.drain()
    n_head, n_rows = HEADER.unpack(await process.stdout.readexactly(HEADER.size))
    facts: Any = msgspec.json.decode(await process.stdout.readexactly(n_head), type=Facts)
    return facts, await process.stdout.readexactly(n_rows)


def _kill(process: Process) -> None:
    if process.returncode is None:
        process.kill()
