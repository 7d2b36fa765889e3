"""The ledger of paid answers: what is kept is found again, whoever merges, reads or dies meanwhile."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from warehouse.errors import LakeError
from warehouse.explain.chat import Completion, Message, TokenLogprob
from warehouse.explain.ledger import Ledger, Paid, hash_request
from warehouse.lake import Lake
from warehouse.records import UnitId

UNITS = [UnitId("gpt2-small", "mlp_post_act", 0, unit) for unit in range(8)]
ELSEWHERE = UnitId("gpt2-small", "mlp_post_act", 1, 3)
RICH = Completion(
    "tab\there, \U0001f600 and \x00",
    12,
    3,
    "rule-1-0613",
    (TokenLogprob("tab", -0.1, {"tab": -0.1, "\t": -2.302585092994046}), TokenLogprob("", 0.0, {})),
    is_cut=True,
)


@pytest.fixture(params=["folder", "memory://ledger"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lake]:
    lake = Lake(tmp_path / "lake" if request.param == "folder" else f"{request.param}/lake")
    lake.create()
    yield lake
    if not lake.is_local:
        fsspec.filesystem("memory").rm("/ledger", recursive=True)


@pytest.fixture
def folder_lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake")
    lake.create()
    return lake


def paid(unit_id: UnitId, request: str, completion: Completion | None = None) -> Paid:
    completion = completion or Completion(f"said of {request}", 5, 2, "m")
    return Paid(unit_id, request, completion, "explain", "http://host/v1", 0.25, "run-1")


def keep(lake: Lake, *entries: Paid, one_by_one: bool = False, close: bool = False) -> None:
    async def run() -> None:
        ledger = Ledger(lake)
        if one_by_one:
            for entry in entries:
                await ledger.keep(entry)
        else:
            await asyncio.gather(*map(ledger.keep, entries))
        if close:
            await ledger.close()

    asyncio.run(run())


def files(lake: Lake) -> list[str]:
    return sorted(lake.fs.find(f"{lake.root}/completions"))


def test_an_answer_is_found_again_as_it_was_for_its_unit_alone(lake: Lake) -> None:
    keep(lake, paid(UNITS[0], "a", RICH), paid(UNITS[1], "b"), paid(ELSEWHERE, "c"))
    ledger = Ledger(lake)
    assert ledger.load([UNITS[0]]) == {"a": RICH}
    assert set(ledger.load([UNITS[1], ELSEWHERE])) == {"b", "c"}
    assert ledger.load([UNITS[2]]) == {}


def test_an_answer_is_in_the_lake_when_keeping_it_returns(lake: Lake) -> None:
    async def run() -> None:
        ledger = Ledger(lake)
        for i in range(3):
            await ledger.keep(paid(UNITS[i], str(i)))
            assert set(Ledger(lake).load(UNITS)) == {str(j) for j in range(i + 1)}

    asyncio.run(run())


def test_answers_that_come_at_once_are_written_together(lake: Lake) -> None:
    keep(lake, *(paid(UNITS[i % 8], str(i)) for i in range(100)))
    assert len(files(lake)) <= 2
    assert len(Ledger(lake).load(UNITS)) == 100


def test_small_files_are_merged_and_every_row_is_kept(lake: Lake) -> None:
    entries = [paid(UNITS[i % 8], str(i), RICH) for i in range(70)]
    keep(lake, *entries, one_by_one=True)
    assert len(files(lake)) < 35
    keep(lake, paid(UNITS[0], "last"), close=True)
    assert len(files(lake)) == 1
    assert Ledger(lake).load(UNITS) == {entry.request: entry.completion for entry in [*entries, paid(UNITS[0], "last")]}


def test_large_files_are_not_merged_again(folder_lake: Lake) -> None:
    keep(folder_lake, *(paid(UNITS[0], f"a{i}") for i in range(1200)), close=True)
    before = files(folder_lake)
    keep(folder_lake, paid(UNITS[0], "b"), close=True)
    assert {path for path in before if "-1199-" in path or "-1200-" in path} <= set(files(folder_lake))
    assert len(Ledger(folder_lake).load(UNITS)) == 1201


def test_a_reader_misses_nothing_while_others_write_and_merge(folder_lake: Lake) -> None:
    known = [str(i) for i in range(60)]
    for i in range(0, 60, 20):
        keep(folder_lake, *(paid(UNITS[int(each) % 8], each) for each in known[i : i + 20]), one_by_one=True)
    is_over = threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not is_over.is_set():
            seen.append(len(set(known) & set(Ledger(folder_lake).load(UNITS))))

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(12):
        keep(folder_lake, *(paid(UNITS[0], f"more {i} {j}") for j in range(3)), one_by_one=True, close=True)
    is_over.set()
    reader.join()
    assert seen
    assert set(seen) == {60}


def test_two_that_merge_the_same_files_lose_nothing(folder_lake: Lake) -> None:
    keep(folder_lake, *(paid(UNITS[i % 8], str(i)) for i in range(40)), one_by_one=True)

    async def merge_twice() -> None:
        both = [Ledger(folder_lake), Ledger(folder_lake)]
        for i, ledger in enumerate(both):
            await ledger.keep(paid(UNITS[0], f"by {i}"))
        await asyncio.gather(*(ledger.close() for ledger in both))

    for _ in range(5):
        asyncio.run(merge_twice())
        assert set(Ledger(folder_lake).load(UNITS)) == {*map(str, range(40)), "by 0", "by 1"}


def test_whoever_dies_between_merging_and_removing_loses_nothing(folder_lake: Lake, tmp_path: Path) -> None:
    keep(folder_lake, *(paid(UNITS[i], str(i)) for i in range(5)), one_by_one=True)
    before = shutil.copytree(folder_lake.root, tmp_path / "before")
    keep(folder_lake, paid(UNITS[5], "5"), close=True)
    shutil.copytree(before, folder_lake.root, dirs_exist_ok=True)
    assert len(files(folder_lake)) == 6
    assert set(Ledger(folder_lake).load(UNITS)) == set("012345")


def test_a_damaged_file_is_named(folder_lake: Lake) -> None:
    keep(folder_lake, paid(UNITS[0], "a"))
    (path,) = files(folder_lake)
    Path(path).write_bytes(b"PAR1 but not really PAR1")
    with pytest.raises(LakeError, match=rf"^{path} cannot be read: remove it, and what it held is asked again \(\S"):
        Ledger(folder_lake).load(UNITS)


def test_a_lake_that_cannot_be_written_is_one_line(folder_lake: Lake) -> None:
    Path(folder_lake.root, "completions").write_bytes(b"in the way")
    with pytest.raises(LakeError, match=r"^cannot write to the lake [^\n]+$"):
        keep(folder_lake, paid(UNITS[0], "a"))


def test_a_request_is_told_from_others_by_all_that_an_answer_depends_on() -> None:
    asked = [Message("user", "a"), Message("assistant", "b")]
    hashes = {
        hash_request("u", "m", asked, 5, 0.0, 0),
        hash_request("v", "m", asked, 5, 0.0, 0),
        hash_request("u", "n", asked, 5, 0.0, 0),
        hash_request("u", "m", asked[:1], 5, 0.0, 0),
        hash_request("u", "m", asked[::-1], 5, 0.0, 0),
        hash_request("u", "m", [Message("user", "ab")], 5, 0.0, 0),
        hash_request("u", "m", asked, 6, 0.0, 0),
        hash_request("u", "m", asked, 5, 1.0, 0),
        hash_request("u", "m", asked, 5, 0.0, 1),
    }
    assert len(hashes) == 9
    assert hash_request("u", "m", list(asked), 5, 0, 0) in hashes
