"""What a build asks for again, and what of a shard it leaves as it is: retry, refresh, raw packs, and merged parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.builds import (
    LAYER_0,
    XL,
    Rows,
    build,
    file_of,
    file_rows,
    modification_times,
    plan,
    read_lake,
    read_part,
)
from tests.faults import answer, marked
from tests.web import Web, serve
from warehouse.lake import Lake
from warehouse.plan import Selection, plan_flatten
from warehouse.shard import flatten_shard

PATH = XL.paths[0]


@pytest.fixture
def web(xl_tree: Path) -> Iterator[Web]:
    with serve(xl_tree) as web:
        web.default = marked
        yield web


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def path_of(unit: int) -> str:
    return PATH.format(layer=0, unit=unit)


def ask(web: Web, lake: Lake, **how: Any) -> tuple[Any, list[str]]:
    """Build layer 0; give the summary of its shard, None where there was nothing to do, and what was asked for."""
    web.requests.clear()
    summaries = build(lake, web.url, selection=LAYER_0, **how)
    return (summaries[0] if summaries else None), [request.path for request in web.requests]


def content(lake: Lake) -> dict[str, Rows]:
    """Read all parts, raw packs too, but for when each file was fetched."""
    parts = read_lake(lake)
    for shard in lake.shards("raw"):
        parts[f"raw/{shard}"] = [{**row, "fetched_at": None} for row in read_part(lake, "raw", shard)]
    return parts


def undisturbed(web: Web, tmp_path: Path, **how: Any) -> dict[str, Rows]:
    """Give the content of a lake that is built now, with nothing going wrong."""
    web.faults.clear()
    lake = Lake(tmp_path / "undisturbed")
    build(lake, web.url, selection=LAYER_0, **how)
    return content(lake)


# retry ---------------------------------------------------------------------------------------------------------------


def test_only_the_failed_files_of_a_shard_are_asked_for_again(web: Web, lake: Lake, tmp_path: Path) -> None:
    web.faults |= {path_of(unit): answer(500) for unit in (2, 5)}
    first, _ = ask(web, lake)
    assert (first.ok, first.failed) == (6, 2)
    web.faults.clear()
    again, asked = ask(web, lake)
    assert (again.ok, again.failed, again.unchanged) == (2, 0, 0)
    assert sorted(asked) == [path_of(2), path_of(5)]
    assert content(lake) == undisturbed(web, tmp_path)


@pytest.mark.parametrize("status", ["failed", "rejected", "absent"])
def test_a_retry_asks_for_files_of_that_status_alone(web: Web, lake: Lake, tmp_path: Path, status: str) -> None:
    whole = {unit: file_of(web.root, unit).read_bytes() for unit in (1, 2)}
    web.faults[path_of(0)] = answer(500)
    file_of(web.root, 1).unlink()
    file_of(web.root, 2).write_bytes(b"{}x")
    ask(web, lake)
    assert [file_rows(lake)[unit]["status"] for unit in range(4)] == ["failed", "absent", "rejected", "ok"]
    for unit, data in whole.items():
        file_of(web.root, unit).write_bytes(data)
    web.faults.clear()
    summary, asked = ask(web, lake, retry=(status,))
    assert (summary.ok, len(asked)) == (1, 1)
    ask(web, lake, retry=("failed", "absent", "rejected"))
    assert content(lake) == undisturbed(web, tmp_path)


def test_a_retry_begins_no_shard_that_was_never_asked_for(web: Web, lake: Lake) -> None:
    build(lake, web.url, selection=LAYER_0)
    assert build(lake, web.url, selection=Selection((0, 1), (0, 1)), retry=("failed", "absent")) == []
    assert {shard.layer for shard in lake.shards()} == {0}


def test_further_units_of_a_shard_join_those_that_are_there(web: Web, lake: Lake, tmp_path: Path) -> None:
    build(lake, web.url, selection=Selection((0,), (1, 4, 6)))
    summary, asked = ask(web, lake)
    assert (summary.ok, len(asked)) == (5, 5)
    assert content(lake) == undisturbed(web, tmp_path)


# refresh -------------------------------------------------------------------------------------------------------------


def test_a_refresh_of_what_has_not_changed_fetches_no_bytes_and_writes_nothing(web: Web, lake: Lake) -> None:
    build(lake, web.url, selection=LAYER_0)
    before = modification_times(lake)
    summary, asked = ask(web, lake, is_refresh=True)
    assert (summary.unchanged, summary.ok, summary.bytes_in, len(asked)) == (8, 0, 0, 8)
    assert all(request.headers["if-none-match"] for request in web.requests)
    assert modification_times(lake) == before


def test_a_refresh_takes_what_changed_went_and_came(web: Web, lake: Lake, tmp_path: Path) -> None:
    new = file_of(web.root, 3).read_bytes().replace(b'"mean"', b' "mean"', 1)
    late = file_of(web.root, 6)
    hidden = late.with_suffix(".hidden")
    late.rename(hidden)
    build(lake, web.url, selection=LAYER_0)
    hidden.rename(late)
    file_of(web.root, 3).write_bytes(new)
    file_of(web.root, 5).unlink()
    summary, _ = ask(web, lake, is_refresh=True)
    assert (summary.ok, summary.absent, summary.unchanged) == (2, 1, 5)
    assert content(lake) == undisturbed(web, tmp_path)


def test_without_etags_a_refresh_compares_the_bytes(web: Web, lake: Lake) -> None:
    web.default = type(web)(web.root).default
    build(lake, web.url, selection=LAYER_0)
    before = modification_times(lake)
    summary, _ = ask(web, lake, is_refresh=True)
    assert (summary.unchanged, summary.ok) == (8, 0)
    assert modification_times(lake) == before


def test_a_refresh_keeps_what_fails_and_says_so(web: Web, lake: Lake) -> None:
    build(lake, web.url, selection=LAYER_0)
    before = content(lake)
    web.faults[path_of(4)] = answer(503)
    summary, _ = ask(web, lake, is_refresh=True)
    assert (summary.failed, summary.unchanged) == (1, 7)
    assert content(lake) == before


# raw packs -----------------------------------------------------------------------------------------------------------


def test_a_raw_pack_holds_every_file_byte_for_byte_and_flattens_to_the_same_lake(
    web: Web, lake: Lake, tmp_path: Path
) -> None:
    build(lake, web.url, selection=LAYER_0, keep_raw=True)
    (shard,) = lake.shards("raw")
    packed = {row["unit"]: row["content"] for row in read_part(lake, "raw", shard)}
    assert packed == {unit: file_of(web.root, unit).read_bytes() for unit in range(8)}
    before = read_lake(lake)
    lake.remove_shard(shard)
    web.requests.clear()
    (job,) = plan_flatten(lake, [XL.key], force=False).jobs
    flatten_shard(job)
    assert web.requests == []
    assert read_lake(lake) == before


def test_a_raw_pack_follows_its_shard(web: Web, lake: Lake, tmp_path: Path) -> None:
    web.faults[path_of(2)] = answer(500)
    build(lake, web.url, selection=Selection((0,), tuple(range(6))), keep_raw=True)
    web.faults.clear()
    file_of(web.root, 4).write_bytes(file_of(web.root, 4).read_bytes() + b" ")
    ask(web, lake, is_refresh=True)  # without --keep-raw: a pack that is there is kept true
    assert content(lake) == undisturbed(web, tmp_path, keep_raw=True)
    assert plan_flatten(lake, [XL.key], force=False).jobs == ()


def test_raw_packs_are_added_to_a_lake_that_was_built_without(web: Web, lake: Lake, tmp_path: Path) -> None:
    build(lake, web.url, selection=LAYER_0)
    summary, asked = ask(web, lake, keep_raw=True)
    assert (summary.ok, len(asked)) == (8, 8)
    assert content(lake) == undisturbed(web, tmp_path, keep_raw=True)
    assert plan(lake, web.url, selection=LAYER_0, keep_raw=True).jobs == ()
