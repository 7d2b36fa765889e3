"""Asking for many files at once: in order, within bounds of memory, number and rate, and patiently."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import fsspec.asyn
import pytest

from warehouse.clients import Answer, Reserve, TransientError
from warehouse.errors import WarehouseError
from warehouse.fetch import Fetcher, in_order
from warehouse.options import FetchOptions
from warehouse.plan import Asking

QUICK = FetchOptions(concurrency=8, attempts=3, timeout_seconds=1, patience_seconds=0.2, backoff_seconds=0.001)


@pytest.fixture
def loop() -> asyncio.AbstractEventLoop:
    """The event loop that fsspec runs in a thread of its own."""
    return fsspec.asyn.get_loop()  # type: ignore[no-any-return]


class ScriptedClient:
    """Answers each path by the next of its outcomes, and by the last one for good."""

    def __init__(self, script: Callable[[str, int], Answer | TransientError]) -> None:
        self.asked: list[tuple[str, float]] = []
        self._script = script

    async def get(self, path: str, etag: str | None, reserve: Reserve) -> Answer:
        n_before = sum(asked == path for asked, _ in self.asked)
        self.asked.append((path, time.monotonic()))
        outcome = self._script(path, n_before)
        if isinstance(outcome, TransientError):
            raise outcome
        return outcome


async def no_bound(_: int) -> None:
    """Have room for anything."""


def ask(client: ScriptedClient, options: FetchOptions, *paths: str) -> tuple[list[Answer | str], Fetcher]:
    """Ask for paths all at once; give the answers, or why there was none."""
    fetcher = Fetcher(client, options, "-1")

    async def get(path: str) -> Answer | str:
        try:
            return await fetcher.get(path, None, no_bound)
        except TransientError as e:
            return str(e)

    async def get_all() -> list[Answer | str]:
        return await asyncio.gather(*map(get, paths))

    return asyncio.run(get_all()), fetcher


# one file after failures ---------------------------------------------------------------------------------------------


def test_a_file_is_asked_for_again_until_it_is_answered() -> None:
    client = ScriptedClient(lambda _, n: Answer("ok", b"x") if n == 2 else TransientError("HTTP 503"))
    answers, fetcher = ask(client, QUICK, "a")
    assert answers == [Answer("ok", b"x")]
    assert len(client.asked) == 3
    assert not fetcher.is_down


def test_a_file_has_failed_after_so_many_attempts_with_the_last_reason() -> None:
    client = ScriptedClient(lambda path, n: Answer("absent") if path == "-1" else TransientError(f"HTTP 50{n}"))
    assert ask(client, QUICK, "a")[0] == ["HTTP 503"]
    assert [path for path, _ in client.asked] == ["a", "a", "a", "-1", "a", "-1"]  # once more, as somebody is there


@pytest.mark.parametrize("status", ["absent", "refused", "rejected", "unchanged"])
def test_an_answer_is_an_answer_and_is_not_asked_for_again(status: str) -> None:
    client = ScriptedClient(lambda *_: Answer(status))  # type: ignore[arg-type]
    assert ask(client, QUICK, "a")[0] == [Answer(status)]  # type: ignore[arg-type]
    assert len(client.asked) == 1


def test_pauses_grow_from_attempt_to_attempt_and_are_not_all_alike() -> None:
    client = ScriptedClient(lambda *_: TransientError("reset"))
    ask(client, replace(QUICK, attempts=5, backoff_seconds=0.02), "a", "b")
    pauses = {}
    for path in "ab":
        times = [moment for asked, moment in client.asked if asked == path]
        pauses[path] = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
        assert all(pause >= 0.02 * 2**k / 2 for k, pause in enumerate(pauses[path]))
    assert pauses["a"] != pauses["b"]


def test_nobody_is_asked_while_the_source_wants_to_be_left_alone() -> None:
    client = ScriptedClient(lambda path, n: TransientError("HTTP 429", 0.15) if (path, n) == ("a", 0) else Answer("ok"))

    async def scenario() -> None:
        fetcher = Fetcher(client, QUICK, "-1")
        first = asyncio.create_task(fetcher.get("a", None, no_bound))
        await asyncio.sleep(0.01)
        await asyncio.gather(first, *(fetcher.get(path, None, no_bound) for path in "bc"))

    asyncio.run(scenario())
    (_, start), *others = client.asked
    assert [path for path, _ in others].count("a") == 1
    assert all(moment >= start + 0.15 for _, moment in others)


# a source that answers nobody ----------------------------------------------------------------------------------------


def test_a_source_that_answers_nobody_is_waited_for_and_then_is_down() -> None:
    client = ScriptedClient(lambda *_: TransientError("refused"))
    started = time.monotonic()
    answers, fetcher = ask(client, QUICK, *map(str, range(40)))
    assert fetcher.is_down
    assert time.monotonic() - started >= QUICK.patience_seconds
    assert {type(answer) for answer in answers} == {str}


def test_a_source_that_comes_back_within_the_patience_is_not_down_and_no_file_fails() -> None:
    back_at = time.monotonic() + 0.3
    client = ScriptedClient(lambda *_: Answer("ok") if time.monotonic() > back_at else TransientError("refused"))
    answers, fetcher = ask(client, replace(QUICK, patience_seconds=5), *map(str, range(40)))
    assert answers == [Answer("ok")] * 40
    assert not fetcher.is_down


def test_failures_while_nobody_is_answered_do_not_count_against_a_file() -> None:
    back_at = time.monotonic() + 0.2
    client = ScriptedClient(lambda *_: Answer("ok") if time.monotonic() > back_at else TransientError("HTTP 500"))
    options = replace(QUICK, attempts=2, patience_seconds=5)  # an attempt more than those that meet its end
    for _ in range(20):
        back_at = time.monotonic() + 0.02
        answers, _ = ask(client, options, *map(str, range(20)))
        assert answers == [Answer("ok")] * 20


def test_a_few_bad_files_of_a_good_source_do_not_make_it_down() -> None:
    client = ScriptedClient(lambda path, _: TransientError("HTTP 500") if int(path) % 3 == 0 else Answer("absent"))
    answers, fetcher = ask(client, QUICK, *map(str, range(90)))
    assert answers.count("HTTP 500") == 30
    assert not fetcher.is_down


def test_a_source_of_which_every_file_is_bad_but_that_answers_is_not_down() -> None:
    client = ScriptedClient(lambda path, _: Answer("absent") if path == "-1" else TransientError("HTTP 500"))
    answers, fetcher = ask(client, QUICK, *map(str, range(90)))
    assert answers == ["HTTP 500"] * 90
    assert not fetcher.is_down


def test_a_source_that_asks_for_more_patience_than_there_is_is_down_at_once() -> None:
    client = ScriptedClient(lambda *_: TransientError("HTTP 503", 3600))
    answers, fetcher = ask(client, QUICK, "a")
    assert (answers, [path for path, _ in client.asked]) == (["HTTP 503"], ["a", "-1"])
    assert fetcher.is_down


def test_a_file_for_which_more_patience_is_asked_than_there_is_fails_alone() -> None:
    client = ScriptedClient(lambda path, _: TransientError("HTTP 503", 3600) if path == "a" else Answer("ok"))
    answers, fetcher = ask(client, QUICK, "a", "b")
    assert answers == ["HTTP 503", Answer("ok")]
    assert not fetcher.is_down


def test_a_single_file_of_a_source_that_answers_nobody_is_waited_for_too() -> None:
    client = ScriptedClient(lambda *_: TransientError("refused"))
    started = time.monotonic()
    answers, fetcher = ask(client, QUICK, "a")
    assert answers == ["refused"]
    assert fetcher.is_down
    assert time.monotonic() - started >= QUICK.patience_seconds


def test_a_rate_is_kept_by_all_requests_together() -> None:
    client = ScriptedClient(lambda *_: Answer("ok"))
    ask(client, replace(QUICK, max_rate=100), *map(str, range(21)))
    times = [moment for _, moment in client.asked]
    assert times[-1] - times[0] >= 0.19


def test_workers_share_what_all_together_may_do() -> None:
    whole = FetchOptions(concurrency=64, max_rate=30)
    assert (whole.share(4).concurrency, whole.share(4).max_rate) == (16, 7.5)
    assert whole.share(1) == whole
    assert (FetchOptions(concurrency=2).share(8).concurrency, FetchOptions().share(8).max_rate) == (1, None)


@pytest.mark.parametrize(
    "wrong", [{"retry": ("ok",)}, {"retry": ("failed",), "force": True}, {"force": True, "is_refresh": True}]
)
def test_what_cannot_be_asked_together_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(WarehouseError, match="--retry"):
        Asking(**wrong)  # type: ignore[arg-type]


# in order ------------------------------------------------------------------------------------------------------------


def test_results_come_in_order_whatever_order_they_are_ready_in(loop: asyncio.AbstractEventLoop) -> None:
    randomness = random.Random(1)
    pauses = [randomness.random() / 100 for _ in range(50)]

    async def work(index: int, _: Reserve) -> int:
        await asyncio.sleep(pauses[index])
        return index

    assert list(in_order(loop, work, 50, 16)) == list(range(50))
    assert list(in_order(loop, work, 0, 16)) == []


def test_no_more_run_at_once_than_are_allowed(loop: asyncio.AbstractEventLoop) -> None:
    running, most = 0, 0

    async def work(index: int, _: Reserve) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return index

    list(in_order(loop, work, 100, 7))
    assert most == 7


@pytest.mark.parametrize("size", [10, 40, 1000])
def test_what_is_held_stays_within_the_room_and_one_file(loop: asyncio.AbstractEventLoop, size: int) -> None:
    held, most = 0, 0

    async def work(_: int, reserve: Reserve) -> int:
        nonlocal held, most
        for part in (size // 2, size):
            await reserve(part)
            await asyncio.sleep(0)
        held += size
        most = max(most, held)
        return size

    def take() -> Iterator[int]:
        nonlocal held
        for n in in_order(loop, work, 60, 16, room_bytes=100):
            time.sleep(0.0005)  # a slow decoder
            held -= n
            yield n

    assert sum(take()) == 60 * size
    assert most <= max(100, size) + size


def test_an_error_of_the_work_reaches_who_takes_the_results(loop: asyncio.AbstractEventLoop) -> None:
    async def work(index: int, _: Reserve) -> int:
        if index == 3:
            raise ZeroDivisionError
        return index

    with pytest.raises(ExceptionGroup) as caught:
        list(in_order(loop, work, 10, 2))
    assert caught.group_contains(ZeroDivisionError)


def test_work_under_way_ends_when_nobody_takes_its_results_any_more(loop: asyncio.AbstractEventLoop) -> None:
    has_ended = threading.Event()

    async def work(index: int, _: Reserve) -> int:
        if index:
            try:
                await asyncio.sleep(60)
            finally:
                has_ended.set()
        return index

    results = in_order(loop, work, 10, 4)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert has_ended.wait(5)
