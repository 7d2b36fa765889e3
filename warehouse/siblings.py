"""The siblings of the activations: explanations of units, related units and related tokens, from bytes to tables.

A sibling's file is about one unit of another dataset on the same root. Its rows stand in the lake under the sibling's
own component, which is how they came, and say in `about` which component they are about. Of an explanation's
simulations, token by token, only the scores become rows: the rest is in the raw packs alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import pyarrow as pa

from warehouse.datasets import Dataset
from warehouse.decode.siblings import (
    MOST_ENTRIES,
    Reader,
    Row,
    load_objects,
    read_explanations,
    read_related_tokens,
    read_related_units,
)
from warehouse.errors import MalformedFile
from warehouse.flatten import Flattener
from warehouse.records import LIMITS, Limits
from warehouse.schema import arrow_schema

_ROW_GROUP_ROWS = 500_000
_ROW_GROUP_CHARACTERS = 64 * 2**20
_MOST_ROWS = 4 * MOST_ENTRIES
"""Rows of one file: four full lists, or explanations with three scores each."""
_READERS: Mapping[str, tuple[Reader, tuple[str, ...]]] = {
    "explanations": (read_explanations, ("explanations", "explanation_scores")),
    "related_units": (read_related_units, ("related_units",)),
    "related_tokens": (read_related_tokens, ("related_tokens",)),
}


class ShardFlattener(Protocol):
    """What a shard needs to turn files into tables, whatever they hold: see `flatten.Flattener`."""

    tables: tuple[str, ...]

    @property
    def is_full(self) -> bool:
        """Whether enough is gathered for a row group."""

    def add(self, layer: int, unit: int, data: bytes) -> str:
        """Append one unit's file, and give the form that was found."""

    def flush(self) -> dict[str, pa.Table]:
        """Give all that was gathered as tables, and begin anew."""


def flattener_for(dataset: Dataset) -> ShardFlattener:
    """Make the flattener of what a dataset's files hold."""
    return Flattener(dataset) if dataset.holds == "activations" else SiblingFlattener(dataset)


class SiblingFlattener:
    """Gathers what the files of a sibling dataset say as rows, and gives them as the lake's tables.

    Use: `add` files until `is_full`, then `flush`, and so on.

    Attributes:
        tables: the tables that `flush` gives, the one with a row for each thing in the files first.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._read, self.tables = _READERS[dataset.holds]
        self._start()

    def _start(self) -> None:
        self._rows: dict[str, list[Row]] = {table: [] for table in self.tables}
        self._n_characters = 0

    @property
    def is_full(self) -> bool:
        """Whether enough is gathered for a row group, of rows or of text."""
        n_rows = max(map(len, self._rows.values()))
        return n_rows >= _ROW_GROUP_ROWS or self._n_characters >= _ROW_GROUP_CHARACTERS

    def add(self, layer: int, unit: int, data: bytes, limits: Limits = LIMITS) -> str:
        """Decode one unit's file and append its rows.

        Args:
            layer: the unit's layer.
            unit: the unit's index in its layer.
            data: the file's bytes as stored.
            limits: bounds on the file, unpacked, and on what it holds.

        Returns:
            The form that was found, as `files.format` gives it.

        Raises:
            MalformedFile: the content is not what the dataset holds, or another unit's; nothing is appended.
        """
        objects, form = load_objects(data, limits)
        found: list[tuple[str, Row]] = []
        n_entries = 0
        for fields in objects:
            rows = list(self._read(fields, self._dataset, layer, unit, n_entries, limits))
            n_entries += sum(table == self.tables[0] for table, _ in rows)
            found += rows
            if len(found) > _MOST_ROWS:
                raise MalformedFile(f"a file of {len(found)} rows, beyond {_MOST_ROWS}")
        about = self._dataset.about_component
        for table, row in found:
            self._rows[table].append((unit, about, *row))
            self._n_characters += sum(len(value) for value in row if isinstance(value, str))
        return form

    def flush(self) -> dict[str, pa.Table]:
        """Give all that was gathered as tables, in the order of the files, and begin anew.

        Returns:
            The tables of `self.tables`, with the columns of `schema.TABLES`.
        """
        tables = {}
        for table, rows in self._rows.items():
            schema = arrow_schema(table)
            columns = zip(*rows, strict=True) if rows else [()] * len(schema)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            tables[table] = pa.Table.from_arrays(arrays, schema=schema)
        self._start()
        return tables
