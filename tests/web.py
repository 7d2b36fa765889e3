"""A real HTTP server on the loopback, with the faults that a bucket has."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import unquote, urlsplit

Fault: TypeAlias = Literal["500", "403", "close", "cut short"]


@dataclass
class Web:
    """A folder that is served.

    Attributes:
        root: the folder.
        port: of 127.0.0.1.
        faults: what goes wrong, by path under the root.
        asked: paths in the order in which they were asked for, with their query.
        authorizations: the Authorization headers that came.
    """

    root: Path
    port: int = 0
    faults: dict[str, Fault] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    authorizations: set[str | None] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def serve(root: Path) -> Iterator[Web]:
    """Serve a folder until the end of the block."""
    web = Web(root)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            web.asked.append(self.path)
            web.authorizations.add(self.headers["Authorization"])
            path = unquote(urlsplit(self.path).path).lstrip("/")
            match web.faults.get(path):
                case "close":
                    self.close_connection = True
                    return
                case "500" | "403" as status:
                    self.send_error(int(status))
                    return
                case fault:
                    is_cut = fault == "cut short"
            file = web.root / path
            if not file.is_file():
                self.send_error(404)
                return
            data = file.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if is_cut else data)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 256  # fewer make a client that opens many connections wait for seconds

    with Server(("127.0.0.1", 0), Handler) as server:
        web.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield web
        finally:
            server.shutdown()
            thread.join()
