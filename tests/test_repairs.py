"""What is lost, damaged, scattered or odd on purpose: nothing good goes with it, and a later build mends it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.builds import LAYER_0, XL, build, file_of, file_rows, register_small
from warehouse.errors import LakeError, MalformedFile
from warehouse.flatten import Flattener
from warehouse.lake import Lake
from warehouse.plan import Selection, plan_build, plan_flatten
from warehouse.shard import extract_shard
from warehouse.source import Source


def test_a_good_file_stays_as_it_was_where_it_fails_now(tmp_path: Path, xl_tree: Path) -> None:
    lake = Lake(tmp_path / "lake")
    build(lake, xl_tree, selection=LAYER_0)
    before = file_rows(lake)
    file_of(xl_tree, 3).unlink()
    file_of(xl_tree, 3).mkdir()  # there is something, and it cannot be read
    (summary,) = build(lake, xl_tree, selection=LAYER_0)
    assert (summary.failed, summary.n_records) == (1, 0)
    assert file_rows(lake) == before
    assert list(Path(lake.root, ".tmp").iterdir()) == []


def test_files_under_several_of_a_datasets_paths_are_all_found(tmp_path: Path) -> None:
    content = '{"random_sample": [{"tokens": ["a"], "activations": [1]}]}'
    for unit, path in enumerate(["new/{layer}/{unit}.pt", "new/{layer}/{unit}.json", "old/{layer}/{unit}.json"]):
        file = tmp_path / "tree" / path.format(layer=0, unit=unit)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    lake = Lake(tmp_path / "lake")
    paths = '["new/{layer}/{unit}.pt", "new/{layer}/{unit}.json", "old/{layer}/{unit}.json"]'
    register_small(lake, units_per_layer=4, paths=paths)
    (summary,) = build(lake, tmp_path / "tree", ["toy"], Selection((0,)))
    assert (summary.ok, summary.absent) == (3, 1)
    assert build(lake, tmp_path / "tree", ["toy"], Selection((0,))) == []
    (tmp_path / "tree/old/0/3.json").write_text(content)
    (summary,) = build(lake, tmp_path / "tree", ["toy"], Selection((0,)))
    assert (summary.ok, summary.absent) == (1, 0)  # only that file is asked for
    assert {row["status"] for row in file_rows(lake).values()} == {"ok"}


def test_a_damaged_commit_is_none_and_its_shard_is_done_again(tmp_path: Path, xl_tree: Path) -> None:
    lake = Lake(tmp_path / "lake")
    build(lake, xl_tree, selection=LAYER_0)
    (shard,) = lake.shards()
    part = Path(lake.part_path("files", shard))
    whole = part.read_bytes()
    part.write_bytes(whole[:60] + b"\xff" * 60 + whole[120:])
    (summary,) = build(lake, xl_tree, selection=LAYER_0)
    assert summary.ok == 8


def test_a_damaged_raw_pack_is_named_with_what_to_do(tmp_path: Path, xl_tree: Path) -> None:
    lake = Lake(tmp_path / "lake")
    lake.create()
    plan = plan_build(lake, Source(xl_tree), [XL.key], LAYER_0, table="raw")
    for job in plan.jobs:
        extract_shard(job)
    (shard,) = lake.shards("raw")
    pack = Path(lake.part_path("raw", shard))
    pack.write_bytes(pack.read_bytes()[:-10])
    with pytest.raises(LakeError, match="raw pack of .* is damaged: run 'warehouse extract --force'"):
        plan_flatten(lake, [XL.key], force=False)


def test_odd_files_do_not_fill_memory_beyond_a_row_group(tmp_path: Path) -> None:
    flattener = Flattener(XL)
    tokens = [f"t{n}" for n in range(300_000)]
    for unit in range(2):
        record = {"tokens": tokens, "activations": [0] * 65_000}  # of unequal lengths, and too long: rejected
        tokens = [f"u{n}" for n in range(300_000)]
        with pytest.raises(MalformedFile):
            flattener.add(0, unit, json.dumps({"random_sample": [record]}).encode())
    assert flattener.is_full
    assert flattener.flush()["records"].num_rows == 0
    assert not flattener.is_full
    with pytest.raises(MalformedFile, match="quantile_boundaries"):
        flattener.add(0, 0, json.dumps({"random_sample": [], "quantile_boundaries": [0] * 1001}).encode())
