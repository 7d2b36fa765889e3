"""Ctrl-C in a flow."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from prefect.server.api.server import SubprocessASGIServer


@contextmanager
def stoppable(say: Callable[[str], None]) -> Iterator[None]:
    """Let Ctrl-C end this process at once: shards are whole or not there, and Prefect would wait long for its server.

    Args:
        say: tells the user what happened.
    """

    def stop(_signal: int, _frame: FrameType | None) -> None:
        say("stopped: run the same command again to go on where it was")
        SubprocessASGIServer().stop()
        os._exit(130)  # the workers end when this process is gone

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
