"""How a source is asked for files, as the command line and the flows pass it on."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How a worker asks for files.

    Attributes:
        concurrency: requests under way at once.
        max_rate: requests a second; None for as many as there can be.
        attempts: requests for one file, before it has failed, to a source that answers others.
        timeout_seconds: how long a source may be silent, when connecting and within an answer.
        patience_seconds: how long to wait for a source that answers nobody.
        backoff_seconds: the first pause before a file is asked for again; each further one is twice as long.
    """

    concurrency: int = 64
    max_rate: float | None = None
    attempts: int = 6
    timeout_seconds: float = 60.0
    patience_seconds: float = 300.0
    backoff_seconds: float = 0.5

    def share(self, n_workers: int) -> FetchOptions:
        """Give the part of one of n workers, so that all together keep to these."""
        rate = None if self.max_rate is None else self.max_rate / n_workers
        return replace(self, concurrency=max(1, self.concurrency // n_workers), max_rate=rate)
