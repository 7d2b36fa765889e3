"""Real servers for the benchmarks: nginx over a folder, with or without latency, and Azurite; and wrk, which loads one.

On Debian: `apt install nginx-light libnginx-mod-http-echo wrk`, and `npm ci --prefix tests/servers` for Azurite. The
echo module holds an answer back by a timer before nginx looks at the file, so that latency costs no processor time.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from azure.storage.blob import BlobServiceClient

_ECHO_MODULE = Path("/usr/lib/nginx/modules/ngx_http_echo_module.so")
_START_SECONDS = 20.0

_AZURITE_ACCOUNT = "devstoreaccount1"
_AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The emulator's, printed in its manual: they open nothing else."""

_NGINX = """
{load_echo}
{user}
daemon off;
master_process on;
worker_processes {workers};
pid {home}/pid;
error_log {home}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  default_type application/json;
  sendfile on;
  tcp_nopush on;
  keepalive_timeout 75;
  keepalive_requests 1000000;
  open_file_cache max=10000 inactive=60s;
  client_body_temp_path {home}/body;
  proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    root {root};
    {location}
  }}
}}
"""

_LATE = """
    location / {{ echo_sleep {seconds:.3f}; echo_exec @files; }}
    location @files {{ }}
"""

_WRK = """
local requests, n = {{}}, 0
init = function(args)
  for path in io.lines("{paths}") do requests[#requests + 1] = wrk.format("GET", path) end
end
request = function()
  n = n % #requests + 1
  return requests[n]
end
done = function(summary, latency, _)
  local e = summary.errors
  local errors = e.connect + e.read + e.write + e.status + e.timeout
  io.write(string.format("\\nsummary %d %d %d %d\\n", summary.requests, summary.bytes, summary.duration, errors))
end
"""


class ServerMissing(Exception):
    """A server program is not installed; the message says how to install it."""


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk got: requests answered, bytes with their headers, seconds."""

    n_requests: int
    n_bytes: int
    seconds: float


@contextmanager
def serve_nginx(root: Path, *, latency_ms: float = 0.0, workers: int = 2) -> Iterator[str]:
    """Serve a folder by nginx until the end of the block.

    Args:
        root: the folder.
        latency_ms: how long each answer is held back.
        workers: nginx's processes.

    Yields:
        The URL of the folder.

    Raises:
        ServerMissing: nginx, or for latency its echo module, is not installed.
    """
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None or (latency_ms and not _ECHO_MODULE.exists()):
        raise ServerMissing("no nginx, or no echo module: apt install nginx-light libnginx-mod-http-echo")
    port = find_free_port()
    with tempfile.TemporaryDirectory(prefix="warehouse-nginx-") as home:
        config = Path(home, "nginx.conf")
        config.write_text(
            _NGINX.format(
                load_echo=f"load_module {_ECHO_MODULE};" if latency_ms else "",
                user="" if os.geteuid() else "user root;",  # else its workers could not read a folder of root's
                location=_LATE.format(seconds=latency_ms / 1e3) if latency_ms else "",
                home=home,
                port=port,
                root=root.absolute(),
                workers=workers,
            )
        )
        with _running([program, "-p", home, "-e", f"{home}/error.log", "-c", str(config)], port):
            yield f"http://127.0.0.1:{port}"


def run_wrk(url: str, paths: Sequence[str], concurrency: int, seconds: float) -> Load:
    """Ask a server for files in turn, over and over, as fast as it can give them.

    Args:
        url: of the server.
        paths: what to ask for, each with its leading slash.
        concurrency: connections.
        seconds: how long, in whole seconds.

    Raises:
        ServerMissing: wrk is not installed.
        SystemExit: the server answered with errors.
    """
    if shutil.which("wrk") is None:
        raise ServerMissing("no wrk: apt install wrk")
    with tempfile.TemporaryDirectory() as folder:
        listed, script = Path(folder, "paths"), Path(folder, "script.lua")
        listed.write_text("".join(f"{path}\n" for path in paths), "utf-8")
        script.write_text(_WRK.format(paths=listed), "utf-8")
        command = ["wrk", "-t", "2", "-c", str(concurrency), "-d", f"{seconds:.0f}s", "-s", str(script), url]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    n_requests, n_bytes, microseconds, n_errors = map(int, printed.rpartition("summary ")[2].split())
    if n_errors:
        raise SystemExit(f"wrk met {n_errors} errors at {url}")
    return Load(n_requests, n_bytes, microseconds / 1e6)


@contextmanager
def serve_azurite(modules: Path) -> Iterator[int]:
    """Run Azurite, Microsoft's emulator of Blob Storage, with an empty store in memory until the end of the block.

    Args:
        modules: the `node_modules` that holds it.

    Yields:
        Its port on 127.0.0.1.

    Raises:
        ServerMissing: node or Azurite is not installed.
    """
    program = modules / ".bin" / "azurite-blob"
    if not program.exists() or shutil.which("node") is None:
        raise ServerMissing(f"no Azurite in {modules}: npm ci --prefix tests/servers")
    port = find_free_port()
    options = ["--blobPort", str(port), "--inMemoryPersistence", "--skipApiVersionCheck", "--silent"]
    with _running([str(program), *options, "--disableTelemetry"], port):
        yield port


def fill_azurite(port: int, tree: Path, files: Sequence[Path]) -> str:
    """Put files of a tree into a container that everyone may read.

    Returns:
        The container's URL.
    """
    endpoint = f"http://127.0.0.1:{port}/{_AZURITE_ACCOUNT}"
    account = BlobServiceClient(endpoint, {"account_name": _AZURITE_ACCOUNT, "account_key": _AZURITE_KEY})
    with account, account.create_container("mirror", public_access="blob") as container:
        for file in files:
            container.upload_blob(file.relative_to(tree).as_posix(), file.read_bytes())
    return f"{endpoint}/mirror"


def find_free_port() -> int:
    """Give a port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _running(command: Sequence[str], port: int) -> Iterator[None]:
    """Run a server from when its port answers until the end of the block."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            _wait_until_it_answers(process, port)
            yield
        finally:
            process.terminate()


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{process.args!r} does not start")
        time.sleep(0.02)
