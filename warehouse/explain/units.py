"""The units that a SQL condition chooses, and their records, a batch of units in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, overload

import numpy as np
import polars as pl
from numpy.typing import NDArray

from warehouse.condition import find_fault
from warehouse.datasets import Dataset
from warehouse.errors import QueryError
from warehouse.export import rebuild_record
from warehouse.pairs import unflatten_pairs
from warehouse.reader import LakeReader
from warehouse.records import FloatArray, IntArray, NeuronRecord, Section, UnitId

_BATCH = {"token": 64, "token_pair": 8}
"""Units read by one query: a unit per token has some 10,000 values, one per token pair some 300,000."""

_RECORDS = """
SELECT
  unit,
  section,
  quantile,
  rank,
  tokens,
  activations
FROM records
WHERE model = $model AND component = $component AND layer = $layer
  AND unit BETWEEN $first AND $last AND list_contains($units, unit)
ORDER BY
  unit,
  list_position(['top', 'random', 'quantile'], section),
  quantile,
  rank
"""

_UNITS = """
FROM units
WHERE model = $model AND component = $component AND layer = $layer
  AND unit BETWEEN $first AND $last AND list_contains($units, unit)
"""


class Units(Sequence[UnitId]):
    """Names of units in the order of model, component, layer and unit, at 12 bytes a unit: a lake has millions."""

    def __init__(self, names: pl.DataFrame) -> None:
        """Take names.

        Args:
            names: model, component, layer and unit, in their order.
        """
        self._names = names

    def __len__(self) -> int:
        return self._names.height

    @overload
    def __getitem__(self, index: int) -> UnitId: ...
    @overload
    def __getitem__(self, index: slice) -> Units: ...
    def __getitem__(self, index: int | slice) -> UnitId | Units:
        """Give one name, or a run of them."""
        if isinstance(index, slice):
            return Units(self._names[index])
        return UnitId(*self._names.row(index))

    def __iter__(self) -> Iterator[UnitId]:
        return (UnitId(*row) for row in self._names.iter_rows())


def select_units(reader: LakeReader, where: str) -> Units:
    """Choose the units of a lake for which a SQL condition over the view `units` holds.

    Raises:
        QueryError: the condition is wrong SQL or more than a condition, or does more than read.
    """
    query = "SELECT model, component, layer, unit FROM units WHERE"
    try:
        if fault := find_fault(reader.sql, where):
            raise QueryError(f"{fault}: give one as \"component = 'mlp_post_act' AND layer = 5\"")
        names = reader.sql(f"{query} (\n{where}\n) ORDER BY model, component, layer, unit")
    except QueryError as e:
        raise QueryError(f"the condition {where!r} over the view units: {e}") from e
    return Units(names.cast({"model": pl.Categorical, "component": pl.Categorical}))


@dataclass(frozen=True, slots=True)
class UnitRecords:
    """A unit with all of its records, in the order of its file: top, random, then the quantile buckets.

    Attributes:
        unit_id: which unit.
        dataset: the dataset it is of.
        row: its row of `units`, by column.
        sections: [n_records] the list that holds each record.
        quantiles: [n_records] bucket of each, None outside section quantile.
        ranks: [n_records] place of each in its list, from 0.
        codes: [n_records] arrays [n_tokens] of token numbers.
        activations: [n_records] arrays [n_values] of activations.
        vocabulary: token texts by number, of all units of a batch.
    """

    unit_id: UnitId
    dataset: Dataset
    row: Mapping[str, Any]
    sections: Sequence[Section]
    quantiles: Sequence[int | None]
    ranks: Sequence[int]
    codes: Sequence[IntArray]
    activations: Sequence[FloatArray]
    vocabulary: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.ranks)

    def tokens(self, index: int) -> list[str]:
        """Give a record's tokens."""
        texts: list[str] = self.vocabulary[self.codes[index]].tolist()
        return texts

    def text_key(self, index: int) -> bytes:
        """Give what is equal for records of the unit with the same tokens, and for no others."""
        return self.codes[index].tobytes()

    def first_of_each_text(self, indices: Iterable[int]) -> list[int]:
        """Leave out the records whose text one before them has."""
        first: dict[bytes, int] = {}
        for index in indices:
            first.setdefault(self.text_key(index), index)
        return list(first.values())

    def largest(self, index: int) -> float:
        """Give a record's largest activation, 0 where it has none."""
        return float(self.activations[index].max(initial=-np.inf)) if len(self.activations[index]) else 0.0

    def pair_positions(self, index: int) -> tuple[IntArray, IntArray]:
        """Give the query and key position of each value of a record of token pairs."""
        return unflatten_pairs(len(self.codes[index]), len(self.activations[index]))

    def to_neuron_record(self) -> NeuronRecord:
        """Build the unit's NeuronRecord again, every list in the order of its file."""
        rows = zip(self.sections, self.quantiles, map(self.tokens, range(len(self))), self.activations, strict=True)
        return rebuild_record(self.unit_id.layer, self.row, rows)


def iterate_units(reader: LakeReader, unit_ids: Sequence[UnitId]) -> Iterator[UnitRecords]:
    """Read units with their records, a batch in memory at a time; names that are not in the lake give none.

    Args:
        reader: of the lake.
        unit_ids: which, in any order that keeps units of a layer together.

    Yields:
        Units in the order asked for.
    """
    datasets = reader.lake.datasets()
    for (model, component, layer), run in groupby(unit_ids, lambda u: (u.model, u.component, u.layer)):
        dataset = datasets.get(f"{model}/{component}")
        if dataset is None:
            continue
        units = [unit_id.unit for unit_id in run]
        for i in range(0, len(units), _BATCH[dataset.per]):
            yield from _read_batch(reader, dataset, layer, units[i : i + _BATCH[dataset.per]])


def _read_batch(reader: LakeReader, dataset: Dataset, layer: int, units: Sequence[int]) -> Iterator[UnitRecords]:
    place = {
        "model": dataset.model,
        "component": dataset.component,
        "layer": layer,
        "first": min(units),
        "last": max(units),
        "units": list(units),
    }
    rows = {row["unit"]: row for row in reader.sql(_UNITS, place).iter_rows(named=True)}
    records = reader.sql(_RECORDS, place)
    numbers = records["unit"].to_numpy()
    vocabulary, codes = _split_tokens(records["tokens"])
    activations = _split_values(records["activations"])
    sections, quantiles, ranks = (records[name].to_list() for name in ("section", "quantile", "rank"))
    for unit in units:
        if unit in rows:
            here = slice(np.searchsorted(numbers, unit, "left"), np.searchsorted(numbers, unit, "right"))
            yield UnitRecords(
                dataset.unit_id(layer, unit),
                dataset,
                rows[unit],
                sections[here],
                quantiles[here],
                ranks[here],
                codes[here],
                activations[here],
                vocabulary,
            )


def _split_tokens(column: pl.Series) -> tuple[NDArray[np.object_], list[IntArray]]:
    """Number the tokens of a column of lists, so that a text is made once for each distinct token."""
    tokens = column.explode(empty_as_null=False).to_arrow().dictionary_encode()
    vocabulary = np.array(tokens.dictionary.to_pylist(), object)
    return vocabulary, _split(tokens.indices.to_numpy(), column)


def _split_values(column: pl.Series) -> list[FloatArray]:
    return _split(column.explode(empty_as_null=False).to_numpy(), column)


def _split(values: NDArray[Any], column: pl.Series) -> list[NDArray[Any]]:
    ends = np.cumsum(column.list.len().to_numpy(), dtype=np.int64).tolist()
    return [values[start:end] for start, end in pairwise([0, *ends])]
