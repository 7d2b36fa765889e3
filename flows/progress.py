"""Progress for the person who waits: on a terminal a line that moves, in a log a line now and then."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from warehouse.shard import ShardSummary

_SECONDS_BETWEEN_LINES = 30.0
_MIN_RECENT = 16
_OUTCOMES = ("absent", "rejected", "failed")


class Progress:
    """What is known of a flow under way.

    Speeds are over the shards that ended last. The time left takes every file that is left for one that is there:
    it is their number times the time that a file took in recent shards of which most files were there, over the
    workers. So layers of absentees, which answer sooner, make it fall faster, and never promise too much.
    """

    def __init__(self, n_files: int, n_shards: int, n_workers: int, clock: Callable[[], float]) -> None:
        """Begin.

        Args:
            n_files: files that the shards ask for.
            n_shards: shards to do.
            n_workers: shards done at once.
            clock: gives seconds, from any origin.
        """
        self.n_files, self.n_shards, self._n_workers, self._clock = n_files, n_shards, n_workers, clock
        self.n_files_done = self.n_shards_done = 0
        self.layer = "starting"
        self._outcomes: Counter[str] = Counter()
        n_recent = max(_MIN_RECENT, 4 * n_workers)
        self._ended: deque[tuple[float, int, int]] = deque([(clock(), 0, 0)], n_recent)
        """When each shard ended, its files and bytes; the first only says when the window begins."""
        self._costs: deque[tuple[int, float]] = deque(maxlen=n_recent)
        """Files and seconds of shards that tell what a file costs."""

    def add(self, summary: ShardSummary) -> None:
        """Take in a shard that ended."""
        n_files = _count_files(summary)
        self.n_files_done += n_files
        self.n_shards_done += 1
        self.layer = f"{summary.shard.model}/{summary.shard.component} layer {summary.shard.layer}"
        self._outcomes.update({name: getattr(summary, name) for name in _OUTCOMES})
        self._ended.append((self._clock(), n_files, summary.bytes_in))
        if 2 * summary.absent <= n_files:
            self._costs.append((n_files, summary.seconds))

    def speeds(self) -> tuple[float, float]:
        """Give files and bytes a second of late."""
        (began, *_), *ended = tuple(self._ended)
        seconds = max(self._clock() - began, 1e-3)
        return sum(files for _, files, _ in ended) / seconds, sum(size for *_, size in ended) / seconds

    def seconds_left(self) -> float | None:
        """Estimate the time to the end, None where nothing is known yet."""
        left = self.n_files - self.n_files_done
        costs = tuple(self._costs)
        n_files = sum(files for files, _ in costs)
        if left and n_files:
            return left * sum(seconds for _, seconds in costs) / n_files / self._n_workers
        files_per_second, _ = self.speeds()
        return left / files_per_second if files_per_second else None

    def describe(self) -> str:
        """Say shards, speeds, time left, and what did not come."""
        files_per_second, bytes_per_second = self.speeds()
        left = self.seconds_left()
        parts = [f"{self.n_shards_done:,} of {self.n_shards:,} shards", f"{files_per_second:,.0f} files/s"]
        parts.append(f"{bytes_per_second / 1e6:,.1f} MB/s")
        if left:
            parts.append(f"about {timedelta(seconds=round(left))} left")
        parts += [f"{self._outcomes[name]:,} {name}" for name in _OUTCOMES if self._outcomes[name]]
        return ", ".join(parts)

    def line(self) -> str:
        """Give all of it as one line for a log."""
        share = self.n_files_done / max(self.n_files, 1)
        files = f"{self.n_files_done:,} of {self.n_files:,} files ({share:.0%})"
        return f"{self.layer}: {files}, {self.describe()}"

    def __rich__(self) -> RenderableType:
        bar = Table.grid(padding=(0, 2), expand=True)
        bar.add_column(no_wrap=True)
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True)
        files = f"{self.n_files_done:,} of {self.n_files:,} files"
        bar.add_row(Text(self.layer), ProgressBar(max(self.n_files, 1), self.n_files_done), Text(files))
        return Group(bar, Text(self.describe(), style="dim"))


@contextmanager
def show_progress(
    progress: Progress, is_quiet: bool, console: Console, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[ShardSummary], None]]:
    """Show progress until the end of the block, where it is shown a last time.

    Args:
        progress: what to show.
        is_quiet: show nothing.
        console: where to; one that is no terminal gets a line at most every half minute.
        clock: gives seconds, from any origin.

    Yields:
        The function that takes in a shard that ended.
    """
    if is_quiet:
        yield progress.add
    elif console.is_terminal and not console.is_dumb_terminal:
        with Live(progress, console=console, refresh_per_second=2):
            yield progress.add
    else:
        last = clock()

        def add(summary: ShardSummary) -> None:
            nonlocal last
            progress.add(summary)
            if clock() - last >= _SECONDS_BETWEEN_LINES:
                last = clock()
                console.print(progress.line(), markup=False, highlight=False, soft_wrap=True)

        try:
            yield add
        finally:
            console.print(progress.line(), markup=False, highlight=False, soft_wrap=True)


def _count_files(summary: ShardSummary) -> int:
    return summary.ok + summary.absent + summary.rejected + summary.failed + summary.unchanged
