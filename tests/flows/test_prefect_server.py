"""The command line against a Prefect server that stays: what a user sees there of a build."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.builds import XL, Mirror
from tests.web import serve
from warehouse.lake import Lake

_SECONDS_TO_START = 120


def post(api: str, path: str, **body: object) -> list[dict[str, Any]]:
    request = urllib.request.Request(
        f"{api}/{path}", json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        found: list[dict[str, Any]] = json.load(response)
    return found


def is_healthy(api: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api}/health") as response:
            return bool(json.load(response))
    except (urllib.error.URLError, ConnectionError):
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Prefect server with a home of its own; gives the environment of a program that uses it."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PREFECT_HOME": str(home), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    with (home / "log").open("wb") as log:
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + _SECONDS_TO_START
            while not is_healthy(environment["PREFECT_API_URL"]):
                assert process.poll() is None, (home / "log").read_text()
                assert time.monotonic() < deadline, (home / "log").read_text()
                time.sleep(0.1)
            yield environment
        finally:
            process.terminate()
            process.wait()


def build(server: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "warehouse", "build", XL.key, "--workers", "2", *options]
    return subprocess.run(command, env=server, capture_output=True, text=True, check=False)


def test_a_build_is_a_completed_flow_run_with_one_task_run_for_each_shard(
    tmp_path: Path, xl_mirror: Mirror, server: dict[str, str]
) -> None:
    lake = tmp_path / "lake"
    done = build(server, "--source", str(xl_mirror.root), "--lake", str(lake), "--layers", "0-1", "--units", "0-7")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "2 shards done" in done.stderr
    assert "16 ok" in done.stderr

    api = server["PREFECT_API_URL"]
    (flow_run,) = post(api, "flow_runs/filter")
    assert flow_run["state_type"] == "COMPLETED"
    (flow,) = post(api, "flows/filter")
    assert (flow["name"], flow["id"]) == ("build", flow_run["flow_id"])

    shards = [str(shard) for shard in Lake(lake).shards()]
    assert shards == ["gpt2-xl/mlp_post_act/0/0-511", "gpt2-xl/mlp_post_act/1/0-511"]
    deadline = time.monotonic() + _SECONDS_TO_START  # the server takes in what tasks tell it when it has time
    while len(task_runs := post(api, "task_runs/filter", flow_runs={"id": {"any_": [flow_run["id"]]}})) < 3:
        assert time.monotonic() < deadline, task_runs
        time.sleep(0.1)
    assert {run["state_type"] for run in task_runs} == {"COMPLETED"}
    of_shards = sorted(run["name"] for run in task_runs if run["name"].startswith("gpt2-"))
    assert of_shards == shards
    (other,) = (run["name"] for run in task_runs if run["name"] not in shards)
    assert other.startswith("catalogue")


def test_a_password_and_a_signature_in_a_source_reach_neither_the_server_nor_the_lake_nor_the_screen(
    tmp_path: Path, xl_mirror: Mirror, server: dict[str, str]
) -> None:
    with serve(xl_mirror.root) as web:
        url = f"http://user:geheim-1@127.0.0.1:{web.port}/?sig=geheim-2"
        done = build(server, "--source", url, "--lake", str(tmp_path / "lake"), "--layers", "0", "--units", "0-1")
    assert done.returncode == 0, done.stderr
    assert {"authorization" in request.headers for request in web.requests} == {True}
    assert all(request.target.endswith("?sig=geheim-2") for request in web.requests)
    kept = [path for folder in (tmp_path / "lake", Path(server["PREFECT_HOME"])) for path in folder.rglob("*")]
    assert any(path.suffix == ".db" for path in kept)
    assert not [path for path in kept if path.is_file() and b"geheim" in path.read_bytes()]
    assert "geheim" not in done.stdout + done.stderr
