"""The command itself: how it starts and stops, and what becomes of who asks while a lake is rebuilt."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.builds import XL, build
from tests.server.conftest import serving
from warehouse.catalogue import build_catalogue
from warehouse.lake import Lake
from warehouse.plan import Selection
from warehouse.server.settings import ServeSettings, SqlLimits

HEAVY = "SELECT count(*) FROM range(10000000) AS a, range(10000000) AS b WHERE a.range * b.range = 7"


@pytest.fixture
def command(served_lake: Lake) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command in a process of its own, and the URL that it prints."""
    arguments = [sys.executable, "-m", "warehouse", "serve", "--lake", served_lake.root, "--port", "0"]
    process = subprocess.Popen(
        [*arguments, "--sql-seconds", "1", "--sql-workers", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield process, process.stdout.readline().strip()
    process.kill()
    process.communicate()


def test_a_request_under_way_ends_before_the_server_stops_with_code_0(
    command: tuple[subprocess.Popen[str], str],
) -> None:
    process, url = command
    assert "server" not in httpx.get(f"{url}healthz").headers
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(httpx.get(f"{url}api/v1/sql", params={"sql": HEAVY}, timeout=30))

    asking = threading.Thread(target=ask)
    asking.start()
    threading.Event().wait(0.4)
    process.send_signal(signal.SIGTERM)
    asking.join()
    assert answers[0].status_code == 400 and "the statement ran for 1 s" in answers[0].json()["detail"]
    written, log = process.communicate(timeout=30)
    assert (process.returncode, written) == (0, "")
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert events[-2:] == ["request", "stopped"]


def test_a_server_imports_neither_torch_nor_prefect_nor_numba() -> None:
    code = "import sys, warehouse.server.app as _; print(sorted({'torch', 'prefect', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_health_is_200_only_while_the_lake_can_be_read(served_lake: Lake, tmp_path: Path) -> None:
    lake = Path(shutil.copytree(served_lake.root, tmp_path / "lake"))
    with serving(ServeSettings(str(lake), sql=SqlLimits(n_workers=1))) as served:
        assert served.client.get("/healthz").status_code == 200
        lost = lake.rename(tmp_path / "elsewhere")
        answer = served.client.get("/healthz")
        assert (answer.status_code, "is the lake still there" in answer.json()["detail"]) == (503, True)
        lost.rename(lake)
        assert served.client.get("/healthz").status_code == 200
        for part in (lake / "files").rglob("*.parquet"):
            part.unlink()
        assert served.client.get("/healthz").status_code == 503


def test_a_rebuilt_lake_is_served_without_an_error_in_between(own_tree: Path, tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    build(lake, own_tree, [XL.key], Selection((0,)))
    build_catalogue(lake)
    settings = ServeSettings(lake.root, sql=SqlLimits(n_workers=1), refresh_seconds=0.05)
    with serving(settings) as served:
        new, old = "/data/collated-activations/1/2.json", "/data/collated-activations/0/2.json"
        unit = "/api/v1/units/gpt2-xl/mlp_post_act/1/2"
        count = "/api/v1/sql?sql=SELECT%20count(*)%20AS%20n%20FROM%20units"
        assert served.client.get(new).json()["reason"] == "not_built"
        statuses: set[int] = set()
        stop = threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=served.url, timeout=30) as client:
                while not stop.is_set():
                    statuses.update(client.get(path).status_code for path in (old, count, "/api/v1/coverage"))

        asking = [threading.Thread(target=ask) for _ in range(2)]
        for thread in asking:
            thread.start()
        build(lake, own_tree, [XL.key], Selection((1,)))
        build_catalogue(lake)
        for _ in range(200):
            if (answer := served.client.get(unit)).status_code == 200:
                break
            stop.wait(0.05)
        stop.set()
        for thread in asking:
            thread.join()
        assert (answer.status_code, statuses) == (200, {200})
        assert served.client.get(new).json()["neuron_id"] == {
            "dataclass_name": "NeuronId", "layer_index": 1, "neuron_index": 2,
        }  # fmt: skip
        assert served.client.get(count).json()["rows"] == [{"n": 16}]
        lake.remove_shard(lake.shards()[0])  # as while it is being built again
        for path in (old, count):
            answer = served.client.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2"), answer.text
