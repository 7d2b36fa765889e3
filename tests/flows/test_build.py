"""The flows, with worker processes and Prefect's own server of the moment."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import warehouse
from flows.build import build
from flows.catalogue import catalogue
from flows.extract import extract
from flows.flatten import flatten
from flows.runners import Runner
from flows.shards import BuildSummary
from tests.builds import XL, Mirror, leftovers, modification_times, read_lake
from tests.builds import build as build_without_prefect
from tests.flows import workers
from warehouse.catalogue import is_current
from warehouse.errors import LakeError, SourceError, UnknownDataset, WarehouseError
from warehouse.lake import Lake
from warehouse.plan import Selection

NAMES = ["gpt2-small", "gpt2-xl"]
TWO = Runner(workers=2)


@pytest.fixture(scope="module")
def flow_lake(tmp_path_factory: pytest.TempPathFactory, nine_mirror: Mirror) -> Lake:
    """The lake of `nine_mirror`, built by the flow with two workers; do not write to it."""
    lake = tmp_path_factory.mktemp("flow") / "lake"
    summary = build(NAMES, str(nine_mirror.root), str(lake), nine_mirror.selection, runner=TWO, is_quiet=True)
    report = nine_mirror.report
    assert (summary.n_shards, summary.n_done_before, summary.n_changed) == (18, 0, 0)
    assert (summary.ok, summary.absent, summary.rejected, summary.failed) == (
        len(report.forms), len(report.absent), len(report.bad), 0,
    )  # fmt: skip
    assert summary.bytes_in == report.n_bytes
    return Lake(lake)


@pytest.fixture
def xl_lake(tmp_path: Path, xl_mirror: Mirror) -> Callable[[], BuildSummary]:
    """Build the XL mirror's two shards by the flow, each in a worker of its own."""

    def run() -> BuildSummary:
        return build(
            [XL.key], str(xl_mirror.root), str(tmp_path / "lake"), xl_mirror.selection, runner=TWO, is_quiet=True
        )

    return run


def test_two_workers_write_what_one_process_writes_without_prefect(
    tmp_path: Path, nine_mirror: Mirror, flow_lake: Lake
) -> None:
    alone = Lake(tmp_path)
    build_without_prefect(alone, nine_mirror.root, NAMES, nine_mirror.selection)
    assert read_lake(flow_lake) == read_lake(alone)
    assert leftovers(flow_lake) == []


def test_the_flow_ends_with_a_catalogue_that_answers(flow_lake: Lake) -> None:
    assert is_current(flow_lake)
    with warehouse.open(flow_lake.root) as reader:
        assert reader.sql("SELECT count(DISTINCT model || component) FROM records").item() == 9


def test_a_second_flow_does_no_shard_and_touches_no_part(nine_mirror: Mirror, flow_lake: Lake) -> None:
    def parts() -> dict[str, int]:
        return {path: time for path, time in modification_times(flow_lake).items() if path.endswith(".parquet")}

    before = parts()
    again = build(NAMES, str(nine_mirror.root), flow_lake.root, nine_mirror.selection, is_quiet=True)
    assert (again.n_shards, again.n_done_before, again.n_records) == (0, 18, 0)
    assert parts() == before


def test_extract_flatten_and_catalogue_one_by_one_do_what_build_does(
    tmp_path: Path, xl_mirror: Mirror, xl_lake: Callable[[], BuildSummary]
) -> None:
    built = xl_lake()
    tree, lake = str(shutil.copytree(xl_mirror.root, tmp_path / "tree")), str(tmp_path / "staged")
    fetched = extract([XL.key], tree, lake, xl_mirror.selection, runner=Runner(workers=1), is_quiet=True)
    assert (fetched.n_shards, fetched.ok, fetched.bytes_in, fetched.n_records) == (2, 16, built.bytes_in, 0)
    shutil.rmtree(tree)
    flattened = flatten([XL.key], lake, runner=Runner(workers=1), is_quiet=True)
    assert (flattened.n_shards, flattened.ok, flattened.n_records) == (2, 16, built.n_records)
    assert catalogue(lake) == tmp_path / "staged" / "warehouse.duckdb"
    assert is_current(Lake(lake))
    for name in ("records", "units", "token_stats"):
        for shard in Lake(lake).shards():
            read = [
                [group.to_pylist() for group in one.iterate_part(name, shard)]
                for one in (Lake(lake), Lake(tmp_path / "lake"))
            ]
            assert read[0] == read[1]


def test_a_worker_that_dies_is_one_line_and_nothing_is_half_written(
    tmp_path: Path, xl_lake: Callable[[], BuildSummary], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.build.build_shard", workers.die)
    with pytest.raises(WarehouseError, match=r"^a worker process died, [^\n]+ fewer --workers[^\n]+$"):
        xl_lake()
    assert read_lake(Lake(tmp_path / "lake")) == {}


def test_what_was_committed_before_a_worker_died_is_kept_and_the_next_flow_does_the_rest(
    tmp_path: Path, xl_mirror: Mirror, xl_lake: Callable[[], BuildSummary], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.build.build_shard", workers.build_and_die_in_layer_1)
    with pytest.raises(WarehouseError, match=r"^a worker process died"):
        xl_lake()
    lake = Lake(tmp_path / "lake")
    assert [shard.layer for shard in lake.shards()] == [0]
    monkeypatch.undo()
    rest = xl_lake()
    assert (rest.n_shards, rest.n_done_before) == (1, 1)
    assert leftovers(lake) == []
    alone = Lake(tmp_path / "alone")
    build_without_prefect(alone, xl_mirror.root, selection=xl_mirror.selection)
    assert read_lake(lake) == read_lake(alone)


def test_an_error_in_a_worker_reaches_the_caller_as_it_is(
    xl_lake: Callable[[], BuildSummary], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.build.build_shard", workers.refuse)
    with pytest.raises(LakeError, match=r"^no room for gpt2-xl/mlp_post_act/[01]/0-511$"):
        xl_lake()


def test_no_worker_spends_the_time_to_load_prefect(
    xl_lake: Callable[[], BuildSummary], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.build.build_shard", workers.build_without_prefect_loaded)
    assert xl_lake().n_shards == 2


def test_what_cannot_be_planned_is_refused_before_any_worker_starts(tmp_path: Path, xl_mirror: Mirror) -> None:
    lake, chosen = str(tmp_path / "lake"), Selection((0,), (0,))
    with pytest.raises(UnknownDataset):
        build(["gpt3"], str(xl_mirror.root), lake, chosen)
    with pytest.raises(SourceError):
        extract([XL.key], str(tmp_path / "none"), lake, chosen)
    with pytest.raises(LakeError, match=r"^no lake at "):
        catalogue(str(tmp_path / "none"))
