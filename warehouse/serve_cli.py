"""The command `warehouse serve`: one lake over HTTP, on this machine alone unless it is said otherwise."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from typing import Annotated

import typer

from warehouse.cli_options import DEFAULT_LAKE, LakeOption
from warehouse.errors import WarehouseError

_SHORTEST_TOKEN = 16


def serve(
    lake: LakeOption = DEFAULT_LAKE,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 for any that is free.")] = 8000,
    token_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable with the token that all must give.")
    ] = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Let everybody in who can reach the address.")] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Name that the server goes by; may be repeated.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Web origin whose pages may read the answers, or *; may be repeated."),
    ] = None,
    sql_workers: Annotated[int, typer.Option(min=1, max=64, help="SQL statements at once, and searches.")] = 2,
    sql_seconds: Annotated[float, typer.Option(min=0.1, help="Seconds that one may run.")] = 10,
    sql_memory: Annotated[int, typer.Option(min=64, help="Megabytes that one may use.")] = 512,
    sql_rows: Annotated[int, typer.Option(min=1, max=1_000_000, help="Rows of its answer, at most.")] = 10_000,
) -> None:
    """Serve a lake: pages for people, a JSON API, and the bucket's files under their paths. Nothing can be written.

    Example: warehouse serve --lake demo/lake --port 8000
    """
    import uvicorn

    from warehouse.server.access_log import JsonLines, log_event
    from warehouse.server.app import create_app
    from warehouse.server.security import is_loopback
    from warehouse.server.settings import ServeSettings, SqlLimits

    token = _read_token(token_env)
    if token is None and not no_auth and not is_loopback(host):
        raise typer.BadParameter(
            f"{host} is reached from elsewhere: name a token with --token-env NAME, or say --no-auth",
            param_hint="--host",
        )
    limits = SqlLimits(n_workers=sql_workers, seconds=sql_seconds, memory_megabytes=sql_memory, rows=sql_rows)
    settings = ServeSettings(lake, host, token, tuple(allow_host or ()), tuple(allow_origin or ()), limits)
    listening = _listen(host, port)
    address = f"[{host}]" if ":" in host else host
    logging.getLogger("uvicorn.error").addHandler(JsonLines(logging.INFO))
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    config = uvicorn.Config(
        create_app(settings),
        http="h11",  # bounds the size of headers
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=30,
        limit_concurrency=1_000,
    )
    sys.stdout.write(f"http://{address}:{listening.getsockname()[1]}/\n")
    sys.stdout.flush()
    # uvicorn ends, once all is done, as the signal would that stopped it; to be stopped is no failure here.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    uvicorn.Server(config).run(sockets=[listening])
    log_event("stopped")


def _read_token(name: str | None) -> str | None:
    if name is None:
        return None
    token = os.environ.get(name, "").strip()
    if len(token) < _SHORTEST_TOKEN:
        found = "is not set" if not token else f"holds {len(token)} characters"
        raise WarehouseError(
            f"{name} {found}: put a token of at least {_SHORTEST_TOKEN} there, as 'openssl rand -hex 32' gives"
        )
    return token


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=512)
    except OSError as e:
        raise WarehouseError(f"cannot listen on {host} port {port}: {e.strerror or e}; --port takes another") from e
    # Connections take this over; asyncio sets it only where a socket was made for TCP by name. Without it the second of
    # two writes waits for the client's delayed acknowledgement: 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
