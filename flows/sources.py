"""A flow's source: Prefect's server keeps a flow's parameters, so one with an access token in it goes there hidden."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import SecretStr

from warehouse.shard import ShardJob
from warehouse.source import Source, without_secrets


def hide_secrets(url: str) -> str | SecretStr:
    """Give a source's URL as a flow takes it: hidden where there is a password or a signature in it."""
    return url if "://" not in url or without_secrets(url) == url.rstrip("/") else SecretStr(url)


def open_source(source: str | SecretStr) -> Source:
    """Open a flow's source.

    Raises:
        SourceError: there is no such folder, or no installed filesystem reads the URL.
    """
    return Source(source.get_secret_value() if isinstance(source, SecretStr) else source)


def require_answers(source: Source, jobs: Sequence[ShardJob]) -> None:
    """Ask for one file before workers are started.

    Raises:
        SourceError: the source cannot be reached, or may not be read.
    """
    if jobs and not source.is_local:
        job = jobs[0]
        Source(source.location, job.options).require(job.dataset, job.shard.layer, job.asked[0])
