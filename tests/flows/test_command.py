"""The options of `warehouse build`, from the command line to the requests that reach a server."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.builds import XL, file_of, file_rows, read_part
from tests.faults import answer, marked
from tests.web import Web, serve
from warehouse import cli
from warehouse.lake import Lake

Run = Callable[..., tuple[int, str]]
PATHS = [XL.paths[0].format(layer=0, unit=unit) for unit in range(8)]


@pytest.fixture
def web(xl_tree: Path) -> Iterator[Web]:
    with serve(xl_tree) as web:
        web.default = marked
        yield web


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.fixture
def own_environment() -> Iterator[None]:
    """Take back what a command sets in the environment for the Prefect that it starts."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def run(
    web: Web, lake: Lake, own_environment: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Run:
    """Run a command on layer 0 of the web's XL neurons; gives its exit code and stderr."""

    def run_command(command: str, *options: str, source: str = "") -> tuple[int, str]:
        web.forget()
        what = [XL.key, "--source", source or web.url, "--lake", lake.root, "--layers", "0", "--units", "0-7"]
        hurry = ["--workers", "1", "--attempts", "2", "--patience", "1"]
        monkeypatch.setattr(sys, "argv", ["warehouse", command, *what, *hurry, *options])
        code = 0
        try:
            cli.main()
        except SystemExit as e:
            code = int(e.code or 0)
        return code, capfd.readouterr().err

    return run_command


def asked(web: Web) -> list[str]:
    """Give what was asked for, but for the one file by which the flow sees that the source answers."""
    return sorted(request.path for request in web.requests[1:] if request.path != "nothing-is-here")


def test_files_that_failed_are_named_and_retried_alone(run: Run, web: Web, lake: Lake) -> None:
    web.faults |= {PATHS[unit]: answer(500) for unit in (3, 6)}
    code, err = run("build")
    assert code == 1
    assert "6 ok, 0 absent, 0 rejected, 2 failed" in err
    assert err.endswith("error: 2 files failed: --retry failed asks just for those\n")
    web.faults.clear()
    code, err = run("build", "--retry", "failed")
    assert (code, asked(web)) == (0, [PATHS[3], PATHS[6]])
    assert "2 ok, 0 absent, 0 rejected, 0 failed" in err
    assert [row["status"] for row in file_rows(lake).values()] == ["ok"] * 8


def test_a_refresh_asks_whether_files_changed_and_takes_those_that_did(run: Run, web: Web, lake: Lake) -> None:
    run("build", "--keep-raw")
    file_of(web.root, 2).write_bytes(file_of(web.root, 2).read_bytes() + b"\n")
    code, err = run("build", "--refresh")
    assert (code, asked(web)) == (0, PATHS)
    assert "1 ok, 0 absent, 0 rejected, 0 failed, 7 unchanged" in err
    (shard,) = lake.shards("raw")
    assert read_part(lake, "raw", shard)[2]["content"] == file_of(web.root, 2).read_bytes()
    code, err = run("build")
    assert (code, web.requests) == (0, [])
    assert "0 shards done, 1 done before" in err


@pytest.mark.parametrize("options", [["--retry", "lost"], ["--retry", "failed", "--refresh"], ["--force", "--refresh"]])
def test_what_cannot_be_asked_is_refused_before_anything_is_done(
    run: Run, web: Web, lake: Lake, options: list[str]
) -> None:
    code, err = run("build", *options)
    assert (code, web.requests) == (1, [])
    assert err.startswith("error: --")
    assert len(err.splitlines()) == 1
    assert not Path(lake.root).exists()


def test_a_server_that_is_not_there_is_one_line(run: Run, lake: Lake) -> None:
    code, err = run("build", source="http://127.0.0.1:1")
    assert code == 1
    assert err.startswith("error: http://127.0.0.1:1 cannot be read: ")
    assert len(err.splitlines()) == 1
    assert lake.shards() == []


def test_a_source_without_any_of_the_files_is_asked_about(run: Run, web: Web, lake: Lake) -> None:
    code, err = run("build", source=f"{web.url}/elsewhere")
    assert code == 0
    assert "none of the files is there: does the source hold the bucket's tree, from its root?" in err
    assert {row["status"] for row in file_rows(lake).values()} == {"absent"}
