"""How the server runs, in one place: where it listens, who may ask, and how much an answer may cost."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SqlLimits:
    """Bounds on SQL from outside and, each as much again, on searches: both run in processes of their own.

    Attributes:
        n_workers: processes, and so statements at once.
        n_waiting: statements that may wait for a process; further ones are turned away.
        waiting_seconds: how long they wait.
        seconds: how long a statement may run.
        rows: rows of one answer.
        answer_bytes: bytes of one answer in memory.
        memory_megabytes: what DuckDB may use in each process; nothing is spilled to disk.
    """

    n_workers: int = 2
    n_waiting: int = 8
    waiting_seconds: float = 10.0
    seconds: float = 10.0
    rows: int = 10_000
    answer_bytes: int = 32 * 2**20
    memory_megabytes: int = 512


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """All that a server is told.

    Attributes:
        lake: folder or URL of the lake.
        host: address that is listened on.
        token: what everybody must know who asks; None for nobody.
        allowed_hosts: names by which the server may be called, besides those of this machine.
        allowed_origins: web origins whose pages may read the answers, or "*" for all.
        sql: bounds on SQL.
        url_bytes: longest path with its query.
        body_bytes: longest body of a request.
        refresh_seconds: how often to look whether the catalogue was replaced.
    """

    lake: str
    host: str = "127.0.0.1"
    token: str | None = field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    sql: SqlLimits = SqlLimits()
    url_bytes: int = 8_192
    body_bytes: int = 65_536
    refresh_seconds: float = 1.0
