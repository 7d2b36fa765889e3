"""Builds from a server that goes wrong in every way a bucket can: each file gets its true end, and none is lost."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import faults
from tests.builds import (
    LAYER_0,
    XL,
    Mirror,
    Rows,
    build,
    file_rows,
    leftovers,
    modification_times,
    read_lake,
    register_small,
    statuses,
)
from tests.faults import Fault
from tests.web import Web, serve
from warehouse.datasets import builtin_datasets
from warehouse.lake import Lake
from warehouse.mirror import make_mirror
from warehouse.options import FetchOptions
from warehouse.plan import Selection
from warehouse.shard import ShardSummary

TRIES = FetchOptions(attempts=4, timeout_seconds=0.4, patience_seconds=1.5, backoff_seconds=0.01, concurrency=16)
HURRIED = replace(TRIES, patience_seconds=0.5)
PATIENT = replace(TRIES, patience_seconds=20, backoff_seconds=0.05)
"""Its attempts alone take less time than the storms below."""
TOY = Selection((0, 1), tuple(range(32)))
"""Units of a small dataset, in four shards."""
STATUSES = ("ok", "absent", "rejected", "failed", "unchanged")
HEADS = builtin_datasets()["gpt2-small/attn_write_norm"]
"""A dataset with two paths."""
LATENTS = builtin_datasets()["gpt2-small/mlp_post_act_ae_v4"]
"""One with four."""


@pytest.fixture
def web(xl_mirror: Mirror) -> Iterator[Web]:
    """The eight XL neurons of layer 0, one shard."""
    with serve(xl_mirror.root) as web:
        yield web


@pytest.fixture(scope="module")
def toy_tree(tmp_path_factory: pytest.TempPathFactory, xl_mirror: Mirror) -> Path:
    """The 64 files of `TOY`."""
    assert TOY.layers is not None
    assert TOY.units is not None
    spec = replace(xl_mirror.spec, layers=TOY.layers, units=TOY.units, path="acts/{layer}/{unit}.json")
    root = tmp_path_factory.mktemp("toy")
    make_mirror(root, spec, seed=9)
    return root


@pytest.fixture
def toy_web(toy_tree: Path) -> Iterator[Web]:
    with serve(toy_tree) as web:
        yield web


def path_of(unit: int) -> str:
    return XL.paths[0].format(layer=0, unit=unit)


def build_xl(lake: Lake, web: Web, options: FetchOptions = TRIES, **how: Any) -> ShardSummary:
    (summary,) = build(lake, web.url, selection=LAYER_0, options=options, **how)
    return summary


def build_toy(lake: Lake, web: Web, options: FetchOptions = TRIES, **how: Any) -> Counter[str]:
    """Build the small dataset, and count its files by what came of those that were asked for."""
    if "toy/mlp" not in lake.datasets():
        register_small(lake, shard_units=16)
    counts: Counter[str] = Counter()
    for summary in build(lake, web.url, ["toy"], TOY, options=options, **how):
        counts.update({name: getattr(summary, name) for name in STATUSES})
    return +counts


def undisturbed(folder: Path, web: Web, how: Callable[[Lake, Web], object] = build_xl) -> dict[str, Rows]:
    """Give the content of a lake that is built from the same server while nothing is wrong with it."""
    lake = Lake(folder / "undisturbed")
    wrong, web.faults = web.faults, {}
    how(lake, web)
    web.faults = wrong
    web.forget()
    assert set(statuses(lake).values()) == {"ok"}
    return read_lake(lake)


# what passes ---------------------------------------------------------------------------------------------------------

PASSING: dict[str, Fault] = {
    "HTTP 408": faults.answer(408),
    "HTTP 425": faults.answer(425),
    "HTTP 429": faults.answer(429),
    "HTTP 500": faults.answer(500),
    "HTTP 502": faults.answer(502),
    "HTTP 503": faults.answer(503),
    "HTTP 504": faults.answer(504),
    "closed before the answer": faults.close,
    "reset before the answer": faults.reset,
    "reset in the body": faults.reset_in_body,
    "cut short": faults.cut_short,
    "cut short in chunks": faults.cut_short_in_chunks,
    "silent": faults.silent,
    "silent in the body": faults.silent_in_body,
    "headers too slow": faults.slow_head(40),
    "headers without end": faults.endless_head,
    "body too slow": faults.drip(0.02),
    "Content-Length too long": faults.claim_length(100),
    "Content-Length too short": faults.claim_length(-100),
    "shortened, with the MD5 of the whole": faults.shortened_with_md5,
    "wrong MD5": faults.wrong_md5,
    "no HTTP": faults.gibberish,
}
SLOW = ("headers without end", "body too slow")


@pytest.mark.parametrize("name", PASSING)
def test_a_trouble_that_passes_leaves_no_trace_in_the_lake(tmp_path: Path, web: Web, name: str) -> None:
    n = 1 if name in SLOW else 2
    options = replace(TRIES, timeout_seconds=0.1) if name in SLOW else TRIES
    lake, expected = Lake(tmp_path / "lake"), undisturbed(tmp_path, web)
    web.faults = {path_of(3): [PASSING[name]] * n}
    assert build_xl(lake, web, options).ok == 8
    assert read_lake(lake) == expected
    asked = Counter(request.path for request in web.requests)
    assert asked[path_of(3)] == n + 1
    assert sum(asked.values()) == 8 + n


@pytest.mark.parametrize("name", [name for name in PASSING if name not in SLOW])
def test_a_trouble_that_stays_fails_its_file_after_so_many_attempts_and_no_other(
    tmp_path: Path, web: Web, name: str
) -> None:
    lake, expected = Lake(tmp_path / "lake"), undisturbed(tmp_path, web)
    web.faults = {path_of(3): PASSING[name]}
    summary = build_xl(lake, web, replace(TRIES, attempts=3))
    assert (summary.ok, summary.failed, summary.is_source_down) == (7, 1, False)
    rows = file_rows(lake)
    assert [unit for unit, row in rows.items() if row["status"] != "ok"] == [3]
    assert (rows[3]["status"], rows[3]["bytes"], rows[3]["sha256"]) == ("failed", None, None)
    assert rows[3]["error"]
    # aiohttp itself asks once more where a connection that was kept open is found to be gone.
    assert len(web.requests_of(path_of(3))) in ((3, 4, 5, 6) if "before the answer" in name else (3,))
    web.faults = {}
    web.forget()
    assert build_xl(lake, web).ok == 1
    assert [request.path for request in web.requests] == [path_of(3)]
    assert read_lake(lake) == expected


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("HTTP 503", "HTTP 503 Service Unavailable"),
        ("HTTP 429", "HTTP 429 Too Many Requests"),
        ("reset before the answer", "reset|Disconnected"),
        ("cut short", "not enough|payload|incomplete|Payload"),
        ("silent", "[Tt]imeout"),
        ("wrong MD5", "MD5"),
    ],
)
def test_the_row_of_a_failed_file_says_why(tmp_path: Path, web: Web, name: str, reason: str) -> None:
    lake = Lake(tmp_path / "lake")
    web.faults = {path_of(3): PASSING[name]}
    build_xl(lake, web, replace(TRIES, attempts=2))
    row = file_rows(lake)[3]
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(row["error"])
    assert row["uri"] == f"{web.url}/{path_of(3)}"


# what stays ----------------------------------------------------------------------------------------------------------

ENDS: dict[str, tuple[Fault, str, str, int]] = {
    "HTTP 404": (faults.answer(404), "absent", "", 1),
    "HTTP 410": (faults.answer(410), "absent", "", 1),
    "HTTP 404 with a page": (faults.answer(404, faults.HTML), "absent", "", 1),
    "HTTP 400": (faults.answer(400), "failed", "HTTP 400", 1),
    "HTTP 401": (faults.answer(401), "failed", "HTTP 401", 1),
    "HTTP 403": (faults.answer(403, faults.XML), "failed", "HTTP 403", 1),
    "redirected to itself": (faults.redirect_to_itself, "failed", "TooManyRedirects", 10),
    "HTML with 200": (faults.page(faults.HTML, "text/html"), "rejected", "", 1),
    "XML with 200": (faults.page(faults.XML, "application/xml"), "rejected", "", 1),
    "nothing with 200": (faults.answer(200), "rejected", "", 1),
    "shortened": (faults.shortened, "rejected", "", 1),
    "chunks without end": (faults.endless, "rejected", "67,108,864", 1),
}
"""What is wrong, the status it must end in, a part of the reason, and the requests it takes."""


@pytest.mark.parametrize("name", ENDS)
def test_an_answer_that_is_an_answer_is_not_asked_for_again(tmp_path: Path, web: Web, name: str) -> None:
    fault, status, reason, n_requests = ENDS[name]
    web.faults = {path_of(3): fault}
    lake = Lake(tmp_path / "lake")
    build_xl(lake, web, replace(TRIES, timeout_seconds=5))
    rows = file_rows(lake)
    assert Counter(row["status"] for row in rows.values()) == {"ok": 7, status: 1}
    assert rows[3]["status"] == status
    assert reason in (rows[3]["error"] or "")
    assert bool(rows[3]["error"]) == (status != "absent")
    assert len(web.requests_of(path_of(3))) == n_requests


def test_redirects_without_end_fail_their_file_alone(tmp_path: Path, web: Web) -> None:
    web.weather = lambda request: faults.redirect_for_ever if path_of(3) in request.path else None
    lake = Lake(tmp_path / "lake")
    assert (build_xl(lake, web).failed, file_rows(lake)[3]["status"]) == (1, "failed")
    assert len(web.requests) < 50


@pytest.mark.parametrize(
    "fault", [faults.chunked, faults.drip(0), faults.slow_head(0.1)], ids=["chunked", "drip", "slow headers"]
)
def test_an_odd_way_to_give_a_file_gives_the_file(tmp_path: Path, web: Web, fault: Fault) -> None:
    lake, expected = Lake(tmp_path / "lake"), undisturbed(tmp_path, web)
    web.faults = {path_of(3): fault}
    assert build_xl(lake, web, replace(TRIES, timeout_seconds=5)).ok == 8
    assert read_lake(lake) == expected


def test_a_redirect_is_followed(tmp_path: Path, web: Web) -> None:
    lake, expected = Lake(tmp_path / "lake"), undisturbed(tmp_path, web)
    web.faults = {path_of(3): faults.redirect(f"/{path_of(3)}?elsewhere")}
    web.faults = {path_of(3): [faults.redirect(f"{web.url}/{path_of(3)}?again", 307)]}
    assert build_xl(lake, web).ok == 8
    assert read_lake(lake) == expected


def test_a_file_that_comes_packed_is_unpacked_and_recorded_as_it_came(tmp_path: Path, web: Web) -> None:
    lake, expected = Lake(tmp_path / "lake"), undisturbed(tmp_path, web)
    web.faults = {path_of(3): faults.gzipped}
    assert build_xl(lake, web).ok == 8
    found = read_lake(lake)
    assert {name: rows for name, rows in found.items() if not name.startswith("files/")} == {
        name: rows for name, rows in expected.items() if not name.startswith("files/")
    }
    assert file_rows(lake)[3]["bytes"] == len(gzip.compress((web.root / path_of(3)).read_bytes()))


# patience ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [faults.later(1, 429), faults.later(1, 503), faults.later_by_date(2)])
def test_retry_after_is_obeyed(tmp_path: Path, web: Web, fault: Fault) -> None:
    lake = Lake(tmp_path / "lake")
    web.faults = {path_of(3): [fault]}
    assert build_xl(lake, web, replace(TRIES, patience_seconds=10)).ok == 8
    first, second = web.requests_of(path_of(3))
    assert second.time - first.time >= 0.95


def test_who_asks_to_be_left_alone_for_longer_than_the_patience_ends_the_shard_and_nothing_is_absent(
    tmp_path: Path, web: Web
) -> None:
    lake, expected = Lake(tmp_path / "lake"), undisturbed(tmp_path, web)
    web.weather = lambda _: faults.later(3600)
    summary = build_xl(lake, web)
    assert (summary.failed, summary.ok, summary.absent, summary.is_source_down) == (8, 0, 0, True)
    web.weather = None
    assert build_xl(lake, web).ok == 8
    assert read_lake(lake) == expected


def test_a_retry_after_that_makes_no_sense_is_no_reason_to_wait_or_to_fail(tmp_path: Path, web: Web) -> None:
    lake = Lake(tmp_path / "lake")
    for unit, header in enumerate(["soon", "-5", "", "1e9", "Mon, 99 Foo 2020", "0", "Wed, 21 Oct 2015 07:28:00 GMT"]):
        web.faults[path_of(unit)] = [faults.answer(503, headers={"Retry-After": header})]
    assert build_xl(lake, web).ok == 8


def test_a_server_that_answers_nobody_for_a_while_is_waited_for(tmp_path: Path, toy_web: Web) -> None:
    lake, expected = Lake(tmp_path / "lake"), undisturbed(tmp_path, toy_web, build_toy)
    register_small(lake, shard_units=16)
    with toy_web.down_for(0.7):  # connections are refused
        assert build_toy(lake, toy_web, PATIENT) == {"ok": 64}
    assert read_lake(lake) == expected


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_storm_over_every_request_is_waited_for(tmp_path: Path, toy_web: Web, status: int) -> None:
    lake, expected = Lake(tmp_path / "lake"), undisturbed(tmp_path, toy_web, build_toy)
    toy_web.weather = faults.storm_for(0.7, faults.answer(status))
    assert build_toy(lake, toy_web, PATIENT) == {"ok": 64}
    assert read_lake(lake) == expected


# a server that is down -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["refuses", "HTTP 503", "reset before the answer", "silent", "HTTP 500"])
def test_a_server_that_is_down_is_never_a_layer_of_absentees(tmp_path: Path, toy_web: Web, name: str) -> None:
    lake, expected = Lake(tmp_path / "lake"), undisturbed(tmp_path, toy_web, build_toy)
    register_small(lake, shard_units=16)
    if name == "refuses":
        toy_web.go_down()
    else:
        toy_web.weather = lambda _: PASSING[name]
    (summary,) = build(lake, toy_web.url, ["toy"], Selection((0,), tuple(range(16))), options=HURRIED)
    assert (summary.failed, summary.absent, summary.ok) == (16, 0, 0)
    assert summary.is_source_down
    assert set(statuses(lake).values()) == {"failed"}
    if name == "refuses":
        toy_web.come_back()
    toy_web.weather = None
    assert build_toy(lake, toy_web) == {"ok": 64}
    assert read_lake(lake) == expected


def test_a_server_that_goes_down_in_the_middle_leaves_what_came_and_only_the_rest_is_asked_for_again(
    tmp_path: Path, toy_web: Web
) -> None:
    lake, expected = Lake(tmp_path / "lake"), undisturbed(tmp_path, toy_web, build_toy)
    toy_web.weather = lambda _: faults.reset if len(toy_web.requests) > 40 else None
    counts = build_toy(lake, toy_web, HURRIED)
    assert counts["ok"] + counts["failed"] == 64
    assert counts["absent"] == 0
    assert counts["ok"] <= 40
    came = {str(unit_id) for unit_id, status in statuses(lake).items() if status == "ok"}
    toy_web.weather = None
    toy_web.forget()
    assert build_toy(lake, toy_web) == {"ok": 64 - len(came)}
    again = {"toy/mlp/{}/{}".format(*request.path[5:-5].split("/")) for request in toy_web.requests}
    assert again.isdisjoint(came)
    assert read_lake(lake) == expected


def test_good_files_stay_where_the_server_fails_when_they_are_asked_for_again(tmp_path: Path, web: Web) -> None:
    lake, expected = Lake(tmp_path / "lake"), undisturbed(tmp_path, web)
    build_xl(lake, web)
    before = modification_times(lake)
    web.weather = lambda _: faults.answer(503)
    assert build_xl(lake, web, replace(TRIES, attempts=2), force=True).failed == 8
    assert read_lake(lake) == expected
    assert modification_times(lake) == before


# path variants -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["HTTP 503", "reset before the answer", "silent", "HTTP 403"])
def test_a_file_is_failed_and_not_absent_where_one_path_fails_and_the_others_say_there_is_none(
    tmp_path: Path, xl_mirror: Mirror, name: str
) -> None:
    fault = (PASSING | {"HTTP 403": faults.answer(403)})[name]
    root = tmp_path / "tree"
    for unit in (0, 5):
        file = root / LATENTS.paths[1].format(layer=0, unit=unit)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes((xl_mirror.root / path_of(unit)).read_bytes())
    with serve(root) as web:
        for place in range(4):  # each unit fails under another of the four paths, and unit 4 under none
            web.faults[LATENTS.paths[place].format(layer=0, unit=place + 1 if place < 3 else 6)] = fault
        lake = Lake(tmp_path / "lake")
        selection = Selection((0,), tuple(range(7)))
        build(lake, web.url, [LATENTS.key], selection, options=replace(TRIES, attempts=2))
        found = {unit: row["status"] for unit, row in file_rows(lake).items()}
    assert {unit: found[unit] for unit in (1, 2, 3, 4, 6)} == {
        1: "failed", 2: "failed", 3: "failed", 4: "absent", 6: "failed",
    }  # fmt: skip
    assert found[0] == found[5] != "absent"


def test_a_file_that_one_path_has_is_ok_though_another_path_fails(tmp_path: Path, nine_mirror: Mirror) -> None:
    with serve(nine_mirror.root) as web:
        unit = next(u.unit for u in nine_mirror.report.forms if (u.component, u.layer) == (HEADS.component, 0))
        path = HEADS.paths[0].format(layer=0, unit=unit)
        moved = (web.root / path).read_bytes()
        web.faults[path] = faults.answer(500)
        web.faults[HEADS.paths[1].format(layer=0, unit=unit)] = faults.answer(200, moved)
        lake = Lake(tmp_path / "lake")
        (summary,) = build(lake, web.url, [HEADS.key], Selection((0,), (unit,)), options=replace(TRIES, attempts=2))
    assert summary.ok == 1


def test_no_file_is_absent_on_the_word_of_a_server_that_gives_none_and_fails_for_some(tmp_path: Path, web: Web) -> None:
    web.weather = lambda request: faults.answer(500 if request.path == path_of(3) else 404)
    lake = Lake(tmp_path / "lake")
    summary = build_xl(lake, web)
    assert (summary.failed, summary.absent) == (8, 0)


# storms --------------------------------------------------------------------------------------------------------------

STORM: dict[Fault, float] = {
    faults.answer(503): 0.10,
    faults.answer(429, headers={"Retry-After": "0"}): 0.05,
    faults.reset: 0.05,
    faults.reset_in_body: 0.05,
    faults.cut_short: 0.05,
    faults.cut_short_in_chunks: 0.03,
    faults.close: 0.05,
    faults.wrong_md5: 0.05,
    faults.claim_length(50): 0.03,
    faults.claim_length(-50): 0.02,
    faults.shortened_with_md5: 0.02,
    faults.silent: 0.01,
    faults.gibberish: 0.02,
}
"""What goes wrong, and in which share of requests: half of all."""


@pytest.mark.parametrize(
    ("seed", "default"), list(enumerate((faults.well, faults.marked, faults.chunked, faults.well)))
)
def test_a_storm_of_every_fault_ends_in_the_lake_of_an_undisturbed_build(
    tmp_path: Path, toy_web: Web, seed: int, default: Fault
) -> None:
    toy_web.default = default
    lake, expected = Lake(tmp_path / "lake"), undisturbed(tmp_path, toy_web, build_toy)
    toy_web.weather = faults.storm_of(STORM, seed)
    counts = build_toy(lake, toy_web)
    n_ok = 0
    for _ in range(8):
        assert set(counts) <= {"ok", "failed"}
        n_ok += counts["ok"]
        assert counts["failed"] == 64 - n_ok == Counter(statuses(lake).values())["failed"]
        if not counts["failed"]:
            break
        counts = build_toy(lake, toy_web, retry=("failed",))
    assert read_lake(lake) == expected
    assert leftovers(lake) == []
    assert max(Counter(request.path for request in toy_web.requests).values()) > 1


def test_a_refresh_in_a_storm_leaves_a_lake_that_is_current_as_it_is(tmp_path: Path, toy_web: Web) -> None:
    toy_web.default = faults.marked
    lake, expected = Lake(tmp_path / "lake"), undisturbed(tmp_path, toy_web, build_toy)
    build_toy(lake, toy_web)
    before = modification_times(lake)
    assert build_toy(lake, toy_web, is_refresh=True) == {"unchanged": 64}
    toy_web.forget()
    toy_web.weather = faults.storm_of(STORM, 5)
    counts = build_toy(lake, toy_web, is_refresh=True)
    assert counts["unchanged"] + counts["failed"] == 64
    assert counts["unchanged"] > 32
    asked = [request for request in toy_web.requests if request.path != "nothing-is-here"]
    assert all("if-none-match" in request.headers for request in asked)
    assert read_lake(lake) == expected
    assert modification_times(lake) == before


def test_no_more_requests_than_the_concurrency_are_under_way_at_once(tmp_path: Path, toy_web: Web) -> None:
    n_open = most = 0

    async def slowly(exchange: faults.Exchange) -> None:
        nonlocal n_open, most
        n_open += 1
        most = max(most, n_open)
        await faults.slow_head(0.05)(exchange)
        n_open -= 1

    toy_web.default = slowly
    assert build_toy(Lake(tmp_path / "lake"), toy_web, replace(TRIES, concurrency=5, timeout_seconds=5)) == {"ok": 64}
    assert most == 5


def test_the_requests_of_a_second_are_no_more_than_the_rate(tmp_path: Path, web: Web) -> None:
    build_xl(Lake(tmp_path / "lake"), web, replace(TRIES, max_rate=20))
    times = [request.time for request in web.requests]
    assert len(times) == 8
    assert times[-1] - times[0] >= 7 / 20 * 0.95
