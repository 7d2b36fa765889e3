"""What a person who waits is told, by a clock that the test moves."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from flows.progress import Progress, show_progress
from warehouse.parts import Shard
from warehouse.shard import ShardSummary


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def end(ok: int = 0, absent: int = 0, seconds: float = 1.0, **other: int) -> ShardSummary:
    shard = Shard("gpt2-xl", "mlp_post_act", 7, 0, 511)
    rejected, failed, unchanged = (other.get(name, 0) for name in ("rejected", "failed", "unchanged"))
    return ShardSummary(shard, ok, absent, rejected, failed, unchanged, 150_000 * ok, 0, seconds)


def test_every_file_that_was_asked_for_counts_whatever_came_of_it() -> None:
    progress = Progress(10, 2, 1, Clock())
    progress.add(end(ok=1, absent=2, rejected=3, failed=1, unchanged=1))
    assert (progress.n_files_done, progress.n_shards_done) == (8, 1)
    assert progress.line().startswith("gpt2-xl/mlp_post_act layer 7: 8 of 10 files (80%), 1 of 2 shards, ")
    assert progress.line().endswith(", 2 absent, 3 rejected, 1 failed")


def test_the_time_left_is_what_the_files_left_cost_over_the_workers() -> None:
    clock = Clock()
    progress = Progress(1_000, 10, 4, clock)
    assert progress.seconds_left() is None
    clock.now += 8
    progress.add(end(ok=100, seconds=8.0))
    assert progress.seconds_left() == pytest.approx(900 * 0.08 / 4)
    assert "about 0:00:18 left" in progress.line()


def test_absentees_that_answer_at_once_do_not_make_the_time_left_too_good_to_be_true() -> None:
    clock = Clock()
    progress = Progress(3_000, 30, 1, clock)
    clock.now += 10
    progress.add(end(ok=100, seconds=10.0))
    for _ in range(10):
        clock.now += 0.1
        progress.add(end(absent=99, ok=1, seconds=0.1))
    assert progress.seconds_left() == pytest.approx(1_900 * 0.1)


def test_the_time_left_among_absentees_alone_is_by_their_own_speed() -> None:
    clock = Clock()
    progress = Progress(300, 3, 1, clock)
    clock.now += 2
    progress.add(end(absent=100, seconds=2.0))
    assert progress.seconds_left() == pytest.approx(4.0)


def test_speeds_are_of_late_and_fall_while_nothing_ends() -> None:
    clock = Clock()
    progress = Progress(100_000, 1_000, 1, clock)
    for _ in range(50):
        clock.now += 10
        progress.add(end(ok=100, seconds=10.0))
    for _ in range(50):
        clock.now += 1
        progress.add(end(ok=100, seconds=1.0))
    assert progress.speeds() == pytest.approx((100, 15e6))
    assert progress.seconds_left() == pytest.approx(90_000 / 100)
    clock.now += 15
    assert progress.speeds()[0] == pytest.approx(50)


def test_a_log_gets_a_line_each_half_minute_and_one_at_the_end() -> None:
    clock, log = Clock(), io.StringIO()
    with show_progress(Progress(500, 5, 1, clock), False, Console(file=log), clock) as advance:
        for _ in range(4):
            clock.now += 12
            advance(end(ok=100, seconds=12.0))
    lines = log.getvalue().splitlines()
    assert [line.partition(" files (")[0] for line in lines] == [
        "gpt2-xl/mlp_post_act layer 7: 300 of 500",
        "gpt2-xl/mlp_post_act layer 7: 400 of 500",
    ]


def test_a_terminal_gets_a_bar_that_ends_full() -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=100)
    with show_progress(Progress(100, 1, 1, Clock()), False, console) as advance:
        advance(end(ok=90, absent=10))
    assert "100 of 100 files" in shown.getvalue()
    assert "10 absent" in shown.getvalue()
    assert "\x1b[" in shown.getvalue()


def test_quiet_is_quiet() -> None:
    shown = io.StringIO()
    with show_progress(Progress(1, 1, 1, Clock()), True, Console(file=shown, force_terminal=True)) as advance:
        advance(end(ok=1))
    assert shown.getvalue() == ""
