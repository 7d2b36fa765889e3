"""The flow that makes a lake's catalogue anew, from the parts that are committed."""

from __future__ import annotations

from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from warehouse.catalogue import build_catalogue
from warehouse.lake import Lake


@task(name="catalogue", cache_policy=NO_CACHE, persist_result=False)
def make_catalogue(lake: str) -> Path:
    """Make the catalogue, in this process: it reads names, not rows."""
    return build_catalogue(Lake(lake))


@flow(name="catalogue")
def catalogue(lake: str) -> Path:
    """Make a lake's catalogue.

    Returns:
        The DuckDB file.

    Raises:
        LakeError: there is no lake, or it cannot be written.
    """
    Lake(lake).require()
    return make_catalogue(lake)
