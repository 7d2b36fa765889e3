"""How far a run of explanations is: on a terminal a line that moves, in a log a line now and then."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from warehouse.explain.answers import Answer

_SECONDS_BETWEEN_LINES = 30.0


class ExplainProgress:
    """What is known of a run under way.

    Attributes:
        console: where lines go in a log, None for nowhere.
    """

    def __init__(self, n_units: int, console: Console | None = None) -> None:
        self.console = console
        self._n_units = n_units
        self._statuses: Counter[str] = Counter()
        self._n_tokens, self._cost, self._is_priced = 0, 0.0, False
        self._began = self._told = time.monotonic()

    def add(self, answer: Answer) -> None:
        """Take in what came of a unit."""
        self._statuses[answer.status] += 1
        self._n_tokens += (answer.prompt_tokens or 0) + (answer.completion_tokens or 0)
        self._cost += answer.cost or 0.0
        self._is_priced |= answer.cost is not None
        if self.console is not None and time.monotonic() - self._told >= _SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            self.console.print(self.line(), markup=False, highlight=False, soft_wrap=True)

    def line(self) -> str:
        """Give all of it as one line."""
        n_done = self._statuses.total()
        parts = [f"{n_done:,} of {self._n_units:,} units ({n_done / max(self._n_units, 1):.0%})"]
        parts += [f"{n:,} {status.replace('_', ' ')}" for status, n in self._statuses.items()]
        parts.append(f"{self._n_tokens:,} tokens" + (f" for {self._cost:,.4g}" if self._is_priced else ""))
        if 0 < n_done < self._n_units:
            seconds = (time.monotonic() - self._began) / n_done * (self._n_units - n_done)
            parts.append(f"about {timedelta(seconds=round(seconds))} left")
        return ", ".join(parts)

    def __rich__(self) -> RenderableType:
        return Text(self.line(), style="dim")


@contextmanager
def show_progress(progress: ExplainProgress, is_quiet: bool) -> Iterator[ExplainProgress]:
    """Show progress on stderr until the end of the block, unless it is to be quiet."""
    console = Console(stderr=True)
    if is_quiet:
        yield progress
    elif console.is_terminal and not console.is_dumb_terminal:
        with Live(progress, console=console, refresh_per_second=2):
            yield progress
    else:
        progress.console = console
        yield progress
