"""A shard done well: what is committed and in which order, and what becomes of bad files."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.builds import (
    LAYER_0,
    N_STEPS,
    Mirror,
    build,
    file_of,
    file_rows,
    good_units,
    plan,
    read_lake,
    read_part,
    statuses,
    take_steps,
)
from warehouse.checks import run_checks
from warehouse.errors import LakeError
from warehouse.lake import Lake
from warehouse.plan import plan_flatten
from warehouse.records import LIMITS, NeuronRecord, UnitId
from warehouse.shard import extract_shard, flatten_shard

# what is committed ---------------------------------------------------------------------------------------------------


def test_parts_are_moved_into_place_when_all_are_whole_and_files_last(
    tmp_path: Path, xl_mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    lake = Lake(tmp_path)

    def step(name: str) -> None:
        steps.append(name)
        assert lake.shards() == [] or name == "-files"

    take_steps(monkeypatch, step)
    build(lake, xl_mirror.root, selection=LAYER_0)
    assert len(steps) == N_STEPS
    assert steps[0] == "-files"
    assert sorted(steps[1:4]) == ["records", "token_stats", "units"]
    assert steps[4] == "files"


def test_a_row_of_files_says_what_the_file_is(tmp_path: Path, xl_mirror: Mirror) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    lake = Lake(tmp_path)
    (summary,) = build(lake, xl_mirror.root, selection=LAYER_0)
    for unit, row in file_rows(lake).items():
        data = file_of(xl_mirror.root, unit).read_bytes()
        assert before <= row.pop("fetched_at") <= datetime.now(UTC)
        assert row.pop("etag")
        assert row == {
            "unit": unit,
            "status": "ok",
            "uri": file_of(xl_mirror.root, unit).as_uri(),
            "format": "json",
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "error": None,
        }
    assert (summary.ok, summary.bytes_in) == (8, sum(file_of(xl_mirror.root, u).stat().st_size for u in range(8)))
    assert summary.n_records == sum(group.num_rows for group in lake.iterate_part("records", summary.shard))


def test_every_file_of_the_mirror_is_ok_absent_or_rejected_as_it_was_made(
    nine_mirror: Mirror, built_lake: Lake
) -> None:
    expected = dict.fromkeys(nine_mirror.report.forms, "ok")
    expected |= dict.fromkeys(nine_mirror.report.absent, "absent")
    expected |= dict.fromkeys(nine_mirror.report.bad, "rejected")
    found = statuses(built_lake)
    assert {unit_id: found.pop(unit_id) for unit_id in expected} == expected
    assert found == {}
    assert set(good_units(nine_mirror)) == set(nine_mirror.report.forms)


def test_the_mirror_of_nine_passes_every_check(built_lake: Lake) -> None:
    assert {result.name: result.sample for result in run_checks(built_lake) if result.n_failing} == {}


def test_the_rows_of_the_nine_name_the_format_by_content_and_not_by_suffix(
    nine_mirror: Mirror, built_lake: Lake
) -> None:
    formats = {"json": "json", "legacy": "torch-legacy"}
    for shard in built_lake.shards():
        for row in read_part(built_lake, "files", shard):
            if row["status"] == "ok":
                form = nine_mirror.report.forms[UnitId(shard.model, shard.component, shard.layer, row["unit"])]
                assert row["format"] == formats.get(form, "torch-zip")


# bad files -----------------------------------------------------------------------------------------------------------


def test_bad_files_are_rejected_with_a_reason_and_the_rest_goes_through(tmp_path: Path, xl_tree: Path) -> None:
    whole = file_of(xl_tree, 0).read_bytes()
    bad = {
        1: (whole[: len(whole) // 2], ""),
        2: (b"<!DOCTYPE html><html>502 Bad Gateway</html>", "<!DOCTYPE html>"),
        3: (b"PK\x03\x04" + bytes(range(256)) * 8, ""),
        4: (gzip.compress(bytes(LIMITS.file_bytes + 1), 9), f"{LIMITS.file_bytes}"),
        5: (b"", "empty"),
        6: (file_of(xl_tree, 7).read_bytes(), "7"),
    }
    for unit, (data, _) in bad.items():
        file_of(xl_tree, unit).write_bytes(data)
    lake = Lake(tmp_path / "lake")
    (summary,) = build(lake, xl_tree, selection=LAYER_0)
    assert (summary.ok, summary.rejected, summary.failed, summary.absent) == (2, 6, 0, 0)
    rows = file_rows(lake)
    for unit, (data, says) in bad.items():
        row = rows[unit]
        assert (row["status"], row["format"], row["bytes"]) == ("rejected", None, len(data))
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        assert says in row["error"]
        assert row["error"].strip()
        assert "\n" not in row["error"]
    assert {row["unit"] for row in read_part(lake, "records", summary.shard)} == {0, 7}
    assert {row["unit"] for row in read_part(lake, "units", summary.shard)} == {0, 7}
    assert {row["unit"] for row in read_part(lake, "token_stats", summary.shard)} == {0, 7}


def test_a_file_beyond_the_limit_is_a_rejected_row_without_bytes(tmp_path: Path, xl_tree: Path) -> None:
    os.truncate(file_of(xl_tree, 3), LIMITS.file_bytes + 1)
    lake = Lake(tmp_path / "lake")
    (summary,) = build(lake, xl_tree, selection=LAYER_0)
    assert (summary.ok, summary.rejected) == (7, 1)
    row = file_rows(lake)[3]
    assert (row["bytes"], row["sha256"]) == (None, None)
    assert f"{LIMITS.file_bytes + 1:,} bytes" in row["error"]
    assert plan(lake, xl_tree, selection=LAYER_0).jobs == ()


def test_a_part_that_no_longer_has_rows_goes_away(tmp_path: Path, xl_tree: Path) -> None:
    lake = Lake(tmp_path / "lake")
    build(lake, xl_tree, selection=LAYER_0)
    assert len(read_lake(lake)) == 4
    for unit in range(8):
        file_of(xl_tree, unit).write_bytes(NeuronRecord(0, unit).to_json())
    build(lake, xl_tree, selection=LAYER_0)
    assert {path.partition("/")[0] for path in read_lake(lake)} == {"units", "files"}
    for unit in range(8):
        file_of(xl_tree, unit).unlink()
    build(lake, xl_tree, selection=LAYER_0)
    assert {path.partition("/")[0] for path in read_lake(lake)} == {"files"}
    assert {row["status"] for row in file_rows(lake).values()} == {"absent"}


# raw packs -----------------------------------------------------------------------------------------------------------


def test_extract_and_flatten_give_the_tables_of_a_build_with_the_source_gone(
    tmp_path: Path, nine_mirror: Mirror, built_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warehouse.shard._PACK_BYTES", 40_000)
    tree = tmp_path / "tree"
    names = ["gpt2-small", "gpt2-xl"]
    lake, directly = Lake(tmp_path / "lake"), Lake(tmp_path / "directly")
    lake.create()
    shutil.copytree(nine_mirror.root, tree)
    build(directly, tree, names, nine_mirror.selection)
    jobs = plan(lake, tree, names, nine_mirror.selection, table="raw").jobs
    extracted = [extract_shard(job) for job in jobs]
    assert lake.shards() == []
    assert max(sum(1 for _ in lake.iterate_part("raw", job.shard)) for job in jobs) > 1
    shutil.rmtree(tree)
    flattened = [flatten_shard(job) for job in plan_flatten(lake, names, force=False).jobs]
    assert read_lake(lake) == read_lake(directly)
    assert {path for path in read_lake(lake)} == {path for path in read_lake(built_lake)}
    assert [(s.ok, s.bytes_in) for s in extracted] == [
        (s.ok + s.rejected, s.bytes_in) for s in sorted(flattened, key=lambda s: [j.shard for j in jobs].index(s.shard))
    ]


def test_a_raw_pack_keeps_the_bytes_of_every_file_as_stored(tmp_path: Path, xl_tree: Path) -> None:
    file_of(xl_tree, 2).write_bytes(b"not even JSON")
    file_of(xl_tree, 3).unlink()
    lake = Lake(tmp_path / "lake")
    lake.create()
    (job,) = plan(lake, xl_tree, selection=LAYER_0, table="raw").jobs
    extract_shard(job)
    for row in read_part(lake, "raw", job.shard):
        file = file_of(xl_tree, row["unit"])
        assert row["content"] == (file.read_bytes() if file.exists() else None)
        assert row["status"] == ("ok" if file.exists() else "absent")


def test_to_flatten_a_shard_without_a_pack_is_refused(tmp_path: Path, xl_mirror: Mirror) -> None:
    (job,) = plan(Lake(tmp_path), xl_mirror.root, selection=LAYER_0).jobs
    with pytest.raises(LakeError, match=r"^no raw pack of gpt2-xl/mlp_post_act/0/0-511 in "):
        flatten_shard(job)


def test_a_job_can_be_sent_to_another_machine(tmp_path: Path, xl_mirror: Mirror) -> None:
    (job,) = plan(Lake(tmp_path), xl_mirror.root, selection=LAYER_0).jobs
    assert pickle.loads(pickle.dumps(job)) == job
