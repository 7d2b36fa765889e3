"""The process that runs SQL from outside: `python -m warehouse.server.worker`, started by `sandbox`.

It reads statements from stdin and writes answers to stdout, one at a time. DuckDB's own box keeps a statement from
files, network and settings; this process keeps it from the server's memory and time, and can be killed.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from typing import Any, BinaryIO

import duckdb
import msgspec

from warehouse.box import open_boxed, query_bounded
from warehouse.errors import LakeError, QueryError, StaleCatalogue
from warehouse.lake import Lake
from warehouse.remote_parts import RemoteParts
from warehouse.server.lakes import Version, catalogue_version

READY = b"!"
"""What a worker says once, when it can be asked."""
HEADER = struct.Struct(">II")
"""Before each answer: the bytes of its facts (JSON), and of its rows (an Arrow stream)."""
REQUEST = struct.Struct(">I")
_SPARE_BYTES = 2**30
"""What the process may hold beyond DuckDB's own limit: what it has when it starts, and an answer's copies."""


class Job(msgspec.Struct, frozen=True):
    """What a worker is started with."""

    lake: str
    seconds: float
    memory_megabytes: int


class Statement(msgspec.Struct, frozen=True):
    """One statement to run."""

    sql: str
    params: dict[str, Any] | None
    max_rows: int
    max_bytes: int


class Facts(msgspec.Struct, frozen=True):
    """What came of a statement.

    Attributes:
        seconds: how long it ran.
        is_cut: whether there are more rows.
        is_spent: whether the process met its bound of memory: what it holds then may leave too little to the next.
        query_error: why it was refused, or failed.
        lake_error: why the lake cannot be read.
    """

    seconds: float
    is_cut: bool = False
    is_spent: bool = False
    query_error: str | None = None
    lake_error: str | None = None


class _Box:
    """The lake as it is now, in a box."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._lake = Lake(job.lake)
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._remote: RemoteParts | None = None
        self._version: Version = None

    def _open(self) -> duckdb.DuckDBPyConnection:
        version = catalogue_version(self._lake)
        if self._connection is not None and version == self._version:
            return self._connection
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._remote = None if self._lake.is_local else RemoteParts(self._lake)
        memory = f"{self._job.memory_megabytes}MB"
        self._connection = open_boxed(self._lake, self._remote, memory_limit=memory, threads="1", temp_directory="")
        self._version = catalogue_version(self._lake)
        return self._connection

    def warm(self) -> None:
        """Open the lake, so that no statement waits for it."""
        with suppress(LakeError):  # each statement will say so
            self._open()

    def run(self, statement: Statement) -> tuple[Facts, bytes]:
        """Run one statement within the bounds."""
        start = time.perf_counter()

        def spent() -> float:
            return time.perf_counter() - start

        try:
            connection = self._open()
            timer = threading.Timer(self._job.seconds, connection.interrupt)
            timer.start()
            try:
                frame, is_cut = query_bounded(
                    connection, statement.sql, statement.params, statement.max_rows, statement.max_bytes
                )
                if self._remote is not None:
                    self._remote.check_unchanged()
            finally:
                timer.cancel()
                if self._remote is not None and self._remote.is_changed:
                    self._version = None
        except (LakeError, StaleCatalogue) as e:
            return Facts(spent(), lake_error=str(e)), b""
        except QueryError as e:
            is_spent = _is_of_memory(e)
            return Facts(spent(), is_spent=is_spent, query_error=self._put(e, spent(), is_spent)), b""
        rows = BytesIO()
        frame.write_ipc_stream(rows)
        return Facts(spent(), is_cut), rows.getvalue()

    def _put(self, error: QueryError, seconds: float, is_spent: bool) -> str:
        """Say which bound was met, where one was."""
        if seconds >= self._job.seconds:
            return say_slow(self._job.seconds)
        return say_large(self._job.memory_megabytes) if is_spent else str(error)


def _is_of_memory(error: QueryError) -> bool:
    """Say whether a statement met the bound of memory."""
    cause = error.__cause__
    if isinstance(cause, duckdb.Error):
        return isinstance(cause, duckdb.OutOfMemoryException)
    # What Arrow hands on of DuckDB's has lost its type.
    return isinstance(cause, MemoryError) or "Out of Memory" in str(error)


def say_slow(seconds: float) -> str:
    """Say that a statement took too long."""
    return f"the statement ran for {seconds:g} s, which is the limit here: narrow it, as by model, component and layer"


def say_large(megabytes: int) -> str:
    """Say that a statement took too much memory."""
    return f"the statement needs more than {megabytes} MB, which is the limit here: narrow it, or select fewer columns"


def _bound_memory(megabytes: int) -> None:
    """Let the process hold no more than DuckDB may, and some: not all that a statement makes is counted by DuckDB."""
    if sys.platform == "linux":
        import resource

        limit = megabytes * 2**20 + _SPARE_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _read(stream: BinaryIO) -> Statement | None:
    size = stream.read(REQUEST.size)
    return msgspec.json.decode(stream.read(*REQUEST.unpack(size)), type=Statement) if size else None


def _write(stream: BinaryIO, facts: Facts, rows: bytes) -> None:
    head = msgspec.json.encode(facts)
    stream.write(HEADER.pack(len(head), len(rows)) + head + rows)
    stream.flush()


def main(arguments: Mapping[str, Any]) -> None:
    """Answer statements until there are no more."""
    job = msgspec.convert(arguments, Job)
    # What anything else prints must not get between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.nice(10)
    _bound_memory(job.memory_megabytes)
    box = _Box(job)
    box.warm()
    answers.write(READY)
    answers.flush()
    while (statement := _read(sys.stdin.buffer)) is not None:
        _write(answers, *box.run(statement))


if __name__ == "__main__":
    with suppress(BrokenPipeError, KeyboardInterrupt):  # the server is gone
        main(msgspec.json.decode(sys.argv[1]))
