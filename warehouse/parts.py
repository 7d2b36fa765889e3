"""What a lake is made of: shards, their parts' names, and how parts are written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from warehouse.datasets import Dataset

PARQUET_OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 3,
    "data_page_size": 8 * 2**20,
    "dictionary_pagesize_limit": 2 * 2**20,
    "write_statistics": ["unit"],
    "store_schema": False,
}
"""How parts are written, each measured on XL-like records: large pages let zstd see repeated text (-7 % of the tokens'
bytes); statistics of any column but `unit` find nothing and cost half the time; without Arrow's own schema, readers
get plain strings for the tokens rather than dictionaries.
"""
GROUP_VALUES = 600_000
"""Activations in a row group of records, about: 64 units of GPT-2 XL. Who wants one unit reads its row group whole."""
_PART = re.compile(r"model=([^/]+)/component=([^/]+)/layer=(\d+)/units-(\d+)-(\d+)\.parquet")


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """A run of units of one layer, from `first` to `last` inclusive: the grain of work and of commit."""

    model: str
    component: str
    layer: int
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.model}/{self.component}/{self.layer}/{self.first}-{self.last}"

    @classmethod
    def of_part(cls, part_name: str) -> Shard | None:
        """Read a shard from the path of a part under its table's folder; None where that is no part's."""
        match = _PART.fullmatch(part_name)
        if match is None:
            return None
        model, component, layer, first, last = match.groups()
        return cls(model, component, int(layer), int(first), int(last))

    @property
    def part_name(self) -> str:
        """The shard's path under each table's folder."""
        return (
            f"model={self.model}/component={self.component}/layer={self.layer}/"
            f"units-{self.first:06d}-{self.last:06d}.parquet"
        )


def shard_of(dataset: Dataset, layer: int, unit: int) -> Shard:
    """Give the shard that a unit belongs to."""
    first = unit - unit % dataset.shard_units
    return Shard(dataset.model, dataset.component, layer, first, first + dataset.shard_units - 1)


@dataclass(frozen=True, slots=True)
class Commit:
    """What a committed shard says of itself.

    Attributes:
        source: root URL its files came from.
        path: the path template that answered, or "" where none did.
        units: [n] the units that were asked for, in order.
        statuses: [n] what came of each file.
        hashes: [n] SHA-256 of each file, None without one.
        marks: [n] the source's mark of each file's version, None without one.
    """

    source: str
    path: str
    units: tuple[int, ...]
    statuses: tuple[str, ...]
    hashes: tuple[str | None, ...]
    marks: tuple[str | None, ...]


def split_records(rows: pa.Table) -> Iterator[pa.Table]:
    """Cut records into row groups of whole units, each with a dictionary of its own tokens.

    Args:
        rows: some records, in the order of units.

    Yields:
        The records of as many units as have `GROUP_VALUES` activations together, or of one that has more.
    """
    ends = rows["activations"].combine_chunks().offsets.to_numpy()
    starts = np.flatnonzero(np.diff(rows["unit"].to_numpy(), prepend=-1))
    groups = (ends[starts] - ends[0]) // GROUP_VALUES
    firsts = starts[np.flatnonzero(np.diff(groups, prepend=-1))].tolist()
    for first, after in zip(firsts, [*firsts[1:], rows.num_rows], strict=True):
        yield _shrink_dictionary(rows.slice(first, after - first))


def _shrink_dictionary(rows: pa.Table) -> pa.Table:
    """Leave out of the tokens' dictionary, where they have one, what these rows do not use: Parquet writes it whole."""
    lists = rows["tokens"].combine_chunks()
    tokens = lists.flatten()
    if not isinstance(tokens, pa.DictionaryArray):
        return rows
    numbers = tokens.indices.to_numpy()
    used = np.flatnonzero(np.bincount(numbers, minlength=len(tokens.dictionary)))
    renumbered = np.empty(len(tokens.dictionary), np.int32)
    renumbered[used] = np.arange(len(used), dtype=np.int32)
    shrunk = pa.DictionaryArray.from_arrays(pa.array(renumbered[numbers]), tokens.dictionary.take(pa.array(used)))
    offsets = lists.offsets.to_numpy()
    column = pa.ListArray.from_arrays(pa.array(offsets - offsets[0]), shrunk)
    return rows.set_column(rows.schema.get_field_index("tokens"), "tokens", column)
