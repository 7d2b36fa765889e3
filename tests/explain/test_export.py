"""Exports as a whole: what a killed one leaves, what the manifest says, and what the command does with wrong usage."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import warehouse
from tests.explain.exports import AS_IT_IS, files, read_lines, write
from tests.explain.lakes import FIT, HEAD
from tests.sql.lakes import Content
from warehouse import cli
from warehouse.catalogue import build_catalogue
from warehouse.errors import LakeError
from warehouse.explain import export
from warehouse.explain.answers import Answer, write_answers
from warehouse.explain.export import export_units
from warehouse.explain.formats import FormatName, FormatOptions
from warehouse.explain.jobs import SplitOptions, select_units
from warehouse.lake import Lake
from warehouse.reader import LakeReader


@pytest.mark.parametrize("form", ["openai", "delphi", "neuronpedia", "jsonl"])
def test_a_killed_export_goes_on_and_ends_as_one_that_was_not(
    job_reader: LakeReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: FormatName
) -> None:
    monkeypatch.setattr(export, "SHARD_UNITS", 4)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = write(job_reader, form, whole)

    def kill(n_done: int, n_units: int) -> None:
        if n_done > n_units // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_units(job_reader, "true", form, AS_IT_IS, killed, kill)
    assert not (killed / "manifest.json").exists()
    half_written = killed / ".export/writing-000005"
    half_written.mkdir()
    (half_written / "jobs-000005.jsonl").write_text("half a li")
    done = {
        path: path.stat().st_mtime_ns for path in killed.rglob("*") if path.is_file() and ".export" not in path.parts
    }
    summary = write(job_reader, form, killed)
    assert summary.n_done_before > len(select_units(job_reader, "true")) // 2
    assert (summary.n_units, summary.reasons, summary.counts) == (expected.n_units, expected.reasons, expected.counts)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert files(killed) == files(whole)
    assert not half_written.exists()


def test_the_manifest_says_what_was_exported_from_which_lake(
    job_lake: Lake, job_reader: LakeReader, job_content: Content, tmp_path: Path
) -> None:
    write(job_reader, "jsonl", tmp_path, "true", FormatOptions(SplitOptions("top", 4, 3)))
    manifest = json.loads((tmp_path / "manifest.json").read_bytes())
    unfit = read_lines(tmp_path / "unfit.jsonl")
    assert manifest["options"] == {
        "sampler": "top", "n": 4, "seed": 3, "contrast": "none", "n_contrast": 5, "floor": 0.0,
    }  # fmt: skip
    assert (manifest["format"], manifest["where"], manifest["lake"]) == ("jsonl", "true", job_lake.root)
    assert manifest["n_units"] == manifest["written"] + manifest["unfit"]["units"] == len(job_content.units)
    assert manifest["unfit"]["reasons"] == Counter(line["reason"] for line in unfit)
    assert manifest["counts"]["train_examples"] == 4 * manifest["written"]
    assert manifest["schema_version"] == 1 and re.fullmatch("[0-9a-f]{64}", manifest["commits_sha256"])


def test_a_folder_of_another_export_or_of_something_else_is_left_alone(job_reader: LakeReader, tmp_path: Path) -> None:
    write(job_reader, "jsonl", tmp_path / "jobs", f"unit_id = '{FIT}'")
    before = files(tmp_path / "jobs")
    for form, where, options in (
        ("openai", f"unit_id = '{FIT}'", AS_IT_IS),
        ("jsonl", f"unit_id = '{HEAD}'", AS_IT_IS),
        ("jsonl", f"unit_id = '{FIT}'", FormatOptions(SplitOptions(seed=1))),
    ):
        with pytest.raises(LakeError, match="holds another export, that differs in"):
            write(job_reader, form, tmp_path / "jobs", where, options)  # type: ignore[arg-type]
    assert files(tmp_path / "jobs") == before
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.tex").touch()
    with pytest.raises(LakeError, match=r"holds thesis\.tex and is no export"):
        write(job_reader, "jsonl", tmp_path / "home")
    with pytest.raises(LakeError, match="cannot export to .*: Not a directory"):
        write(job_reader, "jsonl", tmp_path / "home/thesis.tex/out")
    with pytest.raises(LakeError, match="no unit of .* is chosen by 'layer = 40'"):
        write(job_reader, "jsonl", tmp_path / "none", "layer = 40")


def test_only_an_export_that_reads_explanations_minds_that_some_were_added(job_lake: Lake, tmp_path: Path) -> None:
    lake = Lake(shutil.copytree(job_lake.root, tmp_path / "lake"))
    forms: tuple[FormatName, ...] = ("openai", "delphi", "jsonl", "neuronpedia")
    where = f"unit_id = '{FIT}'"
    with warehouse.open(lake.root) as reader:
        for form in forms:
            write(reader, form, tmp_path / form, where)
    write_answers(lake, [Answer(FIT, "others", "cats")])
    build_catalogue(lake)
    with warehouse.open(lake.root) as reader:
        assert [write(reader, form, tmp_path / form, where).n_done_before for form in forms[:3]] == [1, 1, 1]
        with pytest.raises(LakeError, match="neuronpedia holds an export, and the lake was built further since: give"):
            write(reader, "neuronpedia", tmp_path / "neuronpedia", where)


def test_a_shard_of_which_a_file_is_gone_or_cut_off_is_written_again_and_no_other(
    job_reader: LakeReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "SHARD_UNITS", 4)
    expected = write(job_reader, "openai", tmp_path)
    before = files(tmp_path)
    gone, cut, *kept = sorted(path for path in tmp_path.rglob("*.json") if path.parent.name.isdigit())[::6]
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    times = [path.stat().st_mtime_ns for path in kept]
    summary = write(job_reader, "openai", tmp_path)
    assert files(tmp_path) == before
    assert 0 < summary.n_done_before < expected.n_units == summary.n_units
    assert kept and [path.stat().st_mtime_ns for path in kept] == times


@pytest.fixture
def run(
    job_lake: Lake, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `warehouse explain export`; gives its exit code, stdout and stderr."""

    def run_command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["warehouse", "explain", "export", "--lake", job_lake.root, *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as e:
            code = int(e.code or 0)
        out, err = capfd.readouterr()
        return code, out, err

    return run_command


def test_the_command_exports_and_says_so_on_stderr(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    arguments = ("--where", "layer = 0", "--as", "jsonl", "--n", "2", "--out", str(tmp_path / "jobs"))
    code, out, err = run(*arguments)
    assert (code, out) == (0, "")
    assert re.match(r"\d+ units in .*jobs, 0 done before\n\d+ left out: needs 8 top records and 6 random ones", err)
    assert (tmp_path / "jobs/manifest.json").exists()
    code, _, err = run(*arguments, "--quiet")
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--where", "layer =", "--as", "jsonl"), 1, "the condition 'layer ='"),
        (("--where", "true", "--as", "delphi", "--n", "5"), 2, "delphi has every record of a unit"),
        (("--where", "true", "--as", "jsonl", "--floor", "0.1"), 2, "jsonl has activations as they are"),
        (("--where", "true", "--as", "xml"), 2, "'xml' is not one of"),
        (("--as", "jsonl"), 2, "--where"),
    ],
)
def test_wrong_usage_is_told_from_what_went_wrong(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    found, _, err = run(*arguments, "--out", str(tmp_path / "out"))
    assert found == code
    assert says in " ".join(err.replace("│", " ").split())
