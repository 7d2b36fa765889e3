"""What a build has to do, when some of it is done."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.builds import (
    XL,
    Mirror,
    build,
    file_rows,
    modification_times,
    plan,
    read_lake,
    read_part,
    register_small,
    statuses,
    write_units,
)
from tests.web import serve
from warehouse.datasets import builtin_datasets
from warehouse.errors import LakeError, SourceMismatch, UnknownDataset, WarehouseError
from warehouse.lake import Lake
from warehouse.parts import Shard
from warehouse.plan import Selection, parse_ranges, plan_flatten
from warehouse.records import NeuronRecord
from warehouse.shard import extract_shard, flatten_shard

HEADS = builtin_datasets()["gpt2-small/attn_write_norm"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Ten units in two layers of a dataset with shards of four units, beside a lake that knows it."""
    dataset = register_small(Lake(tmp_path / "lake"))
    units = [(layer, unit, NeuronRecord(layer, unit, mean=1.0)) for layer in (0, 1) for unit in range(10)]
    write_units(tmp_path / "tree", dataset, units)
    return tmp_path / "tree"


@pytest.fixture
def lake(tree: Path) -> Lake:
    """The lake of `tree`, built but for the last two units."""
    lake = Lake(tree.with_name("lake"))
    build(lake, tree, ["toy"], units(0, 8))
    return lake


def units(first: int, end: int, *layers: int) -> Selection:
    return Selection(layers or (0, 1), tuple(range(first, end)))


def file_of(tree: Path, layer: int, unit: int) -> Path:
    return tree / "acts" / str(layer) / f"{unit}.json"


def rewrite(tree: Path, layer: int, unit: int, mean: float) -> None:
    file_of(tree, layer, unit).write_bytes(NeuronRecord(layer, unit, mean=mean, variance=0.123456).to_json())


# ranges and selections -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "chosen"),
    [("0", (0,)), ("0-3,7", (0, 1, 2, 3, 7)), ("7,0-1", (0, 1, 7)), ("2-4,3-5", (2, 3, 4, 5)), (" 1-2 , 4", (1, 2, 4))],
)  # fmt: skip
def test_ranges_and_lists_are_read_in_rising_order_each_once(text: str, chosen: tuple[int, ...]) -> None:
    assert parse_ranges(text, "layers") == chosen


@pytest.mark.parametrize("text", ["", ",", "x", "1-", "-1", "3-1", "1-2-3", "1.5", "0x3", "²", "0-99999999999", "1,,2"])
def test_what_is_no_range_is_refused_with_the_option_and_the_text(text: str) -> None:
    with pytest.raises(WarehouseError, match=rf"^--units '{re.escape(text)}': "):
        parse_ranges(text, "units")


def test_a_selection_is_split_at_the_shards_bounds() -> None:
    shards = Selection((3, 5), (0, 511, 512, 1030)).shards(XL)
    name = ("gpt2-xl", "mlp_post_act")
    assert shards == {
        Shard(*name, layer, first, first + 511): chosen
        for layer in (3, 5)
        for first, chosen in ((0, (0, 511)), (512, (512,)), (1024, (1030,)))
    }


def test_a_selection_of_all_is_every_unit_that_the_registry_expects_once() -> None:
    for dataset in builtin_datasets().values():
        chosen = Selection((2,), None).shards(dataset)
        assert [unit for units in chosen.values() for unit in units] == list(range(dataset.units_per_layer))
        assert {shard.last - shard.first + 1 for shard in chosen} == {dataset.shard_units}
    assert {shard.layer for shard in Selection(None, (0,)).shards(XL)} == set(range(48))


def test_a_layer_that_a_dataset_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WarehouseError, match=r"^gpt2-small/attn_write_norm has layers 0-11, not 12$"):
        plan(Lake(tmp_path), tmp_path, [HEADS.key], Selection((0, 12), None))


def test_units_past_the_end_are_asked_for_where_the_dataset_is_named_and_not_for_a_model(tmp_path: Path) -> None:
    beyond = Selection((0,), (11, 12, 13))
    (named,) = plan(Lake(tmp_path), tmp_path, [HEADS.key], beyond).jobs
    assert named.units == (11, 12, 13)
    by_key = {job.dataset.key: job.units for job in plan(Lake(tmp_path), tmp_path, ["gpt2-small"], beyond).jobs}
    assert by_key.pop(HEADS.key) == (11,)
    assert set(by_key.values()) == {(11, 12, 13)}


def test_an_unknown_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownDataset, match=r"^no dataset 'gpt3'"):
        plan(Lake(tmp_path), tmp_path, ["gpt3"])


# resuming ------------------------------------------------------------------------------------------------------------


def test_a_second_build_does_nothing_and_touches_no_file(tree: Path, lake: Lake) -> None:
    before = modification_times(lake)
    again = plan(lake, tree, ["toy"], units(0, 8))
    assert (again.jobs, again.n_done, again.n_changed) == ((), 4, 0)
    assert build(lake, tree, ["toy"], units(0, 8)) == []
    assert modification_times(lake) == before


def test_fewer_units_than_a_shard_holds_are_done_already(tree: Path, lake: Lake) -> None:
    assert plan(lake, tree, ["toy"], Selection((1,), (2, 5))).n_done == 2


def test_more_units_of_a_shard_are_added_to_those_it_holds(tree: Path, lake: Lake) -> None:
    build(lake, tree, ["toy"], Selection((0,), (9,)))
    more = plan(lake, tree, ["toy"], Selection((0,), (8, 10)))
    assert [(job.shard.first, job.units) for job in more.jobs] == [(8, (8, 9, 10))]
    build(lake, tree, ["toy"], Selection((0,), (8, 10)))
    shard = Shard("toy", "mlp", 0, 8, 11)
    assert [row["unit"] for row in read_part(lake, "units", shard)] == [8, 9]
    assert [row["status"] for row in read_part(lake, "files", shard)] == ["ok", "ok", "absent"]


def test_a_changed_file_is_noticed_and_just_its_shard_is_done_again(tree: Path, lake: Lake) -> None:
    before = modification_times(lake)
    rewrite(tree, 1, 6, mean=2.0)
    changed = plan(lake, tree, ["toy"], units(0, 8))
    shard = Shard("toy", "mlp", 1, 4, 7)
    assert ([job.shard for job in changed.jobs], changed.n_done, changed.n_changed) == ([shard], 3, 1)
    build(lake, tree, ["toy"], units(0, 8))
    after = modification_times(lake)
    assert {path for path in after if after[path] != before[path]} == {
        lake.part_path(t, shard) for t in ("units", "files")
    }
    assert [row["mean"] for row in read_part(lake, "units", shard)] == [1.0, 1.0, 2.0, 1.0]
    assert build(lake, tree, ["toy"], units(0, 8)) == []


def test_a_file_that_came_or_went_is_noticed(tree: Path, lake: Lake) -> None:
    build(lake, tree, ["toy"], Selection((0,), (10, 11)))
    shutil.copy(file_of(tree, 0, 9), file_of(tree, 0, 10))
    rewrite(tree, 0, 10, mean=3.0)
    file_of(tree, 1, 0).unlink()
    changed = plan(lake, tree, ["toy"], units(0, 12))
    assert {(job.shard.layer, job.shard.first) for job in changed.jobs} == {(0, 8), (1, 0), (1, 8)}
    assert changed.n_changed == 2
    build(lake, tree, ["toy"], units(0, 12))
    found = {(u.layer, u.unit): status for u, status in statuses(lake).items()}
    assert (found[0, 10], found[0, 11], found[1, 0]) == ("ok", "absent", "absent")


def test_force_does_every_shard_again(tree: Path, lake: Lake) -> None:
    before, content = modification_times(lake), read_lake(lake)
    forced = plan(lake, tree, ["toy"], units(0, 8), force=True)
    assert (len(forced.jobs), forced.n_done) == (4, 0)
    build(lake, tree, ["toy"], units(0, 8), force=True)
    after = modification_times(lake)
    parts = [path for path in before if path.endswith(".parquet")]
    assert len(parts) == 8
    assert all(after[path] != before[path] for path in parts)
    assert read_lake(lake) == content


def test_force_keeps_the_other_units_of_a_shard(tree: Path, lake: Lake) -> None:
    build(lake, tree, ["toy"], Selection((0,), (1,)), force=True)
    assert [row["unit"] for row in read_part(lake, "units", Shard("toy", "mlp", 0, 0, 3))] == [0, 1, 2, 3]


def test_shards_with_failed_files_are_done_again_and_those_with_rejected_ones_are_not(tree: Path, lake: Lake) -> None:
    file_of(tree, 0, 8).unlink()
    file_of(tree, 0, 8).mkdir()
    file_of(tree, 1, 8).write_bytes(b"no JSON")
    build(lake, tree, ["toy"], units(8, 10))
    again = plan(lake, tree, ["toy"], units(0, 10))
    assert [(job.shard.layer, job.shard.first) for job in again.jobs] == [(0, 8)]
    file_of(tree, 0, 8).rmdir()
    rewrite(tree, 0, 8, mean=4.0)
    build(lake, tree, ["toy"], units(0, 10))
    assert plan(lake, tree, ["toy"], units(0, 10)).jobs == ()


def test_failed_files_of_a_server_are_tried_again_when_asked_for_others_too(tmp_path: Path, xl_mirror: Mirror) -> None:
    lake = Lake(tmp_path)
    with serve(xl_mirror.root) as web:
        web.faults[XL.paths[0].format(layer=0, unit=1)] = "500"
        build(lake, web.url, selection=Selection((0,), (0, 1)))
        web.faults.clear()
        (job,) = plan(lake, web.url, selection=Selection((0,), (0,))).jobs
        assert job.units == (0, 1)
        build(lake, web.url, selection=Selection((0,), (0,)))
    assert {unit: row["status"] for unit, row in file_rows(lake).items()} == {0: "ok", 1: "ok"}


def test_another_source_is_refused_with_the_names_of_both(tree: Path, lake: Lake) -> None:
    other = tree.with_name("other")
    shutil.copytree(tree, other)
    before = modification_times(lake)
    with pytest.raises(SourceMismatch) as caught:
        build(lake, other, ["toy"], units(0, 10))
    message = str(caught.value)
    assert tree.as_uri() in message
    assert other.as_uri() in message
    assert "4 from" in message
    assert "\n" not in message
    assert modification_times(lake) == before


def test_another_source_may_give_what_the_lake_does_not_hold(tree: Path, lake: Lake) -> None:
    other = tree.with_name("other")
    shutil.copytree(tree, other)
    assert len(build(lake, other, ["toy"], units(8, 10))) == 2


def test_force_replaces_another_source_by_this_one(tree: Path, lake: Lake) -> None:
    other = tree.with_name("other")
    shutil.copytree(tree, other)
    rewrite(other, 0, 0, mean=9.0)
    build(lake, other, ["toy"], Selection((0,), (0,)), force=True)
    shard = Shard("toy", "mlp", 0, 0, 3)
    assert [row["mean"] for row in read_part(lake, "units", shard)] == [9.0, 1.0, 1.0, 1.0]
    assert {row["uri"].startswith(other.as_uri()) for row in read_part(lake, "files", shard)} == {True}


def test_the_same_source_by_another_name_is_the_same(tree: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree.parent)
    for name in ("tree", "./tree/", tree.as_uri(), f"{tree}/"):
        assert plan(lake, name, ["toy"], units(0, 8)).n_done == 4


# raw packs -----------------------------------------------------------------------------------------------------------


def extract(lake: Lake, tree: Path, selection: Selection, *, force: bool = False) -> None:
    for job in plan(lake, tree, ["toy"], selection, table="raw", force=force).jobs:
        extract_shard(job)


def flatten(lake: Lake, *, force: bool = False) -> None:
    for job in plan_flatten(lake, ["toy"], force=force).jobs:
        flatten_shard(job)


def test_raw_packs_are_planned_by_themselves(tree: Path, lake: Lake) -> None:
    assert len(plan(lake, tree, ["toy"], units(0, 8), table="raw").jobs) == 4
    extract(lake, tree, units(0, 8))
    assert plan(lake, tree, ["toy"], units(0, 8), table="raw").n_done == 4
    with pytest.raises(SourceMismatch):
        plan(lake, tree.parent, ["toy"], units(0, 8), table="raw")


def test_packs_of_just_the_bytes_that_are_flattened_are_done(tree: Path, lake: Lake) -> None:
    extract(lake, tree, units(0, 8))
    assert (plan_flatten(lake, ["toy"], force=False).jobs, plan_flatten(lake, ["toy"], force=False).n_done) == ((), 4)
    rewrite(tree, 1, 2, mean=5.0)
    extract(lake, tree, units(0, 8))
    changed = plan_flatten(lake, ["toy"], force=False)
    assert ([job.shard for job in changed.jobs], changed.n_changed) == ([Shard("toy", "mlp", 1, 0, 3)], 1)
    flatten(lake)
    assert [row["mean"] for row in read_part(lake, "units", Shard("toy", "mlp", 1, 0, 3))] == [1.0, 1.0, 5.0, 1.0]
    assert len(plan_flatten(lake, ["toy"], force=True).jobs) == 4


def test_a_pack_of_fewer_units_does_not_take_any_from_the_lake(tree: Path, lake: Lake) -> None:
    extract(lake, tree, units(7, 8, 0))
    with pytest.raises(LakeError, match=r"holds unit 4 of toy/mlp/0/4-7, which its raw pack does not"):
        flatten(lake)
    flatten(lake, force=True)
    assert [row["unit"] for row in read_part(lake, "units", Shard("toy", "mlp", 0, 4, 7))] == [7]


def test_a_pack_from_another_source_is_not_flattened_over_what_is_there(tree: Path, lake: Lake) -> None:
    other = tree.with_name("other")
    shutil.copytree(tree, other)
    rewrite(other, 0, 0, mean=9.0)
    extract(lake, other, units(0, 8))
    with pytest.raises(SourceMismatch) as caught:
        flatten(lake)
    assert tree.as_uri() in str(caught.value)
    assert other.as_uri() in str(caught.value)


def test_to_flatten_what_was_never_extracted_is_refused(lake: Lake) -> None:
    with pytest.raises(LakeError, match=r"^no raw packs of toy/mlp in [^\n]+: run 'warehouse extract' first$"):
        plan_flatten(lake, ["toy"], force=False)


def test_a_plan_is_in_the_order_of_layers_and_units(tree: Path, lake: Lake) -> None:
    everything = replace(units(0, 10), layers=(0, 1, 2, 3))
    shards = [job.shard for job in plan(lake, tree, ["toy"], everything, force=True).jobs]
    assert shards == sorted(shards)
    assert len(shards) == 12
