"""The log of what was asked: a line of JSON on stderr for each request, and for each event of the server itself.

It holds neither queries nor headers that a client chose, but for the path: what people look for, and what they prove
themselves with, is not kept.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import UTC, datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LONGEST_PATH = 300


def log_event(event: str, **facts: object) -> None:
    """Write one line."""
    line = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}
    sys.stderr.write(json.dumps(line, default=str) + "\n")


class AccessLog:
    """Writes a line as the last of an answer is sent, or when its client went away."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and write its line."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status, n_bytes, is_written = 500, 0, False

        def write() -> None:
            client = scope.get("client")
            log_event(
                "request",
                method=scope["method"],
                path=scope["path"][:_LONGEST_PATH],
                status=status,
                bytes=n_bytes,
                milliseconds=round((time.perf_counter() - start) * 1e3, 1),
                client=client[0] if client else None,
            )

        async def send_counted(message: Message) -> None:
            nonlocal status, n_bytes, is_written
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                n_bytes += len(message.get("body", b""))
                if not message.get("more_body", False):
                    is_written = True
                    write()  # before the client has all: who reads the log after the answer finds it there
            await send(message)

        try:
            await self._app(scope, receive, send_counted)
        finally:
            if not is_written:
                write()


class JsonLines(logging.Handler):
    """Passes what the web server itself has to say on as events."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; of an exception its kind, and where it arose."""
        facts: dict[str, object] = {"level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info and record.exc_info[1] is not None:
            error, trace = record.exc_info[1], record.exc_info[2]
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            where = "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
            facts |= {"error": f"{type(error).__name__}: {error}", "where": where}
        log_event("server", **facts)
