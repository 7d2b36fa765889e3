"""A warehouse of collated activations: every neuron, attention head and autoencoder latent in Parquet and DuckDB."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warehouse.reader import LakeReader


def open(path: str | os.PathLike[str]) -> LakeReader:  # noqa: A001  (read as warehouse.open)
    """Open a lake for reading.

    Args:
        path: the lake's folder.

    Raises:
        LakeError: there is no lake at this place.
    """
    # Imported here, as the workers that only fetch and decode import this package without DuckDB and Polars.
    from warehouse.lake import Lake
    from warehouse.reader import LakeReader

    lake = Lake(path)
    lake.require()
    return LakeReader(lake)
