"""Mirrors and lakes that many tests read, and an environment in which no test meets another run's state."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.builds import XL, Mirror, Run, build
from warehouse import cli
from warehouse.catalogue import build_catalogue
from warehouse.datasets import activation_datasets
from warehouse.lake import Lake
from warehouse.mirror import MirrorSpec, RecordCounts, make_mirror
from warehouse.records import UnitId

_PREFECT_HOME = "PREFECT_HOME"
_READS_DEMO = ("test_clients", "test_cookbook", "test_readme")


def pytest_configure() -> None:
    """Give Prefect a home of its own before anything imports it, and take away what would steer the warehouse."""
    os.environ |= {
        _PREFECT_HOME: tempfile.mkdtemp(prefix="warehouse-tests-prefect-"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "240",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
    }
    for name in ("PREFECT_API_URL", "WAREHOUSE_CACHE", "WAREHOUSE_LAKE", "WAREHOUSE_SOURCE"):
        os.environ.pop(name, None)


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ[_PREFECT_HOME], ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give pytest-xdist whole folders, or what reads the demo, where it would take files: they share costly fixtures.

    Its own groups, of --dist loadgroup, do not reach it from pytest 9.2.
    """
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

    def name_group(nodeid: str) -> str:
        path = Path(nodeid.partition("::")[0])
        own = path if path.parent.name == "tests" else path.parent
        return "demo" if path.stem in _READS_DEMO else str(own)

    scheduler = LoadFileScheduling(config, log)
    scheduler._split_scope = name_group
    return scheduler


@pytest.fixture(scope="session")
def xl_mirror(tmp_path_factory: pytest.TempPathFactory) -> Mirror:
    """Two layers of eight GPT-2 XL neurons as JSON, all good; do not write to it."""
    spec = MirrorSpec(
        (XL,),
        layers=(0, 1),
        units=tuple(range(8)),
        counts=RecordCounts(top=3, random=4, per_bucket=2),
        vocabulary="english",
        n_excerpts=300,
        n_tokens=12,
    )
    root = tmp_path_factory.mktemp("xl_mirror")
    return Mirror(root, spec, make_mirror(root, spec, seed=1))


@pytest.fixture(scope="session")
def nine_mirror(tmp_path_factory: pytest.TempPathFactory, xl_mirror: Mirror) -> Mirror:
    """Seven units in two layers of all nine datasets, in every form, dead ones, absentees and bad files among them."""

    def name(key: str, layer: int, unit: int) -> UnitId:
        return UnitId.parse(f"{key}/{layer}/{unit}")

    spec = replace(
        xl_mirror.spec,
        datasets=tuple(activation_datasets().values()),
        units=tuple(range(7)),
        dead_share=0.4,
        absent=frozenset({name("gpt2-small/mlp_post_act", 0, 3), name("gpt2-small/resid_delta_mlp_ae_v4", 1, 0)}),
        bad={
            name("gpt2-xl/mlp_post_act", 0, 2): "truncated",
            name("gpt2-small/mlp_post_act", 1, 5): "html",
            name("gpt2-small/mlp_post_act_ae_v1", 0, 1): "garbage",
        },
    )
    root = tmp_path_factory.mktemp("nine_mirror")
    return Mirror(root, spec, make_mirror(root, spec, seed=2))


@pytest.fixture(scope="session")
def built_lake(tmp_path_factory: pytest.TempPathFactory, nine_mirror: Mirror) -> Lake:
    """The lake of `nine_mirror`, with its catalogue; do not write to it."""
    lake = Lake(tmp_path_factory.mktemp("built_lake") / "lake")
    build(lake, nine_mirror.root, ["gpt2-small", "gpt2-xl"], nine_mirror.selection)
    build_catalogue(lake)
    return lake


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which the demo was run, and what it printed; do not write to its lake."""
    folder = tmp_path_factory.mktemp("newcomer")
    done = subprocess.run(
        [sys.executable, "-m", "warehouse", "demo"], cwd=folder, capture_output=True, text=True, check=True
    )
    # How far it is, in a log: a line at the end, and one each half minute where the machine is slow.
    line = r"[^\n]+ files \(%s%%\)[^\n]+\n"
    assert re.fullmatch(rf"({line % r'[0-9]+'})*{line % 100}", done.stderr), done.stderr
    return folder, done.stdout


@pytest.fixture
def xl_tree(tmp_path: Path, xl_mirror: Mirror) -> Path:
    """A copy of the XL mirror that a test may change."""
    return Path(shutil.copytree(xl_mirror.root, tmp_path / "tree"))


@pytest.fixture
def run(built_lake: Lake, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command on the built lake; gives its exit code, stdout and stderr."""
    monkeypatch.setenv("WAREHOUSE_LAKE", built_lake.root)

    def run_command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["warehouse", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as e:
            code = int(e.code or 0)
        out, err = capfd.readouterr()
        return code, out, err

    return run_command
