"""From files' bytes to the lake's tables, many units at a time: a shard's columns and how they become Arrow.

The columns are plain arrays that grow: every token as a number, every activation, and a row of five numbers for each
record. Plain JSON is scanned straight into them; every other form is decoded to a NeuronRecord first. Token numbers
below zero belong to the strings of such records, the others to the scanner's vocabulary; both meet in one dictionary,
most frequent token first, when the columns become tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TypeVar, cast

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from warehouse.datasets import Dataset
from warehouse.decode import Decoded, decode, sniff, unpack
from warehouse.decode.scan import NOT_PLAIN, PADDING, QUANTILE, VOCABULARY_FULL, load_scanner
from warehouse.decode.vocabulary import Vocabulary
from warehouse.errors import MalformedFile
from warehouse.records import SECTIONS, ActivationRecord, FloatArray, IntArray, NeuronRecord
from warehouse.schema import arrow_schema
from warehouse.statistics import (
    Statistics,
    count_numbers,
    pair_statistics,
    renumber,
    summarise_records,
    summarise_units,
    token_statistics,
)

Number = TypeVar("Number", np.int32, np.float32)

ROW_GROUP_VALUES = 2_500_000
"""Activations that a flattener holds before it wants to be flushed: 256 units of GPT-2 XL, and a bound on memory."""

_ROW_GROUP_RECORDS = 250_000
_ROW_GROUP_TEXTS = 500_000
_ROW_GROUP_BYTES = 64 * 2**20

_HEADER = ("mean", "variance", "skewness", "kurtosis", "quantile_boundaries")


class Flattener:
    """Gathers the records of units of one dataset as columns, and gives them as the lake's tables.

    Use: `add` files until `is_full`, then `flush`, and so on.

    Attributes:
        tables: the tables that `flush` gives, the one with a row for each thing in the files first.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._is_pair = dataset.per == "token_pair"
        self.tables: tuple[str, ...] = ("records", "units", "pair_stats" if self._is_pair else "token_stats")
        self._scan = load_scanner()
        self._tokens: IntArray = np.empty(1 << 20, np.int32)
        self._values: FloatArray = np.empty(1 << 20, np.float32)
        self._records: IntArray = np.empty((1 << 14, 5), np.int32)
        self._start()

    def _start(self) -> None:
        self._cursors = np.zeros(3, np.int64)
        self._vocabulary = Vocabulary()
        self._texts: list[str | None] = []
        self._odd: list[int] = []
        self._strings: dict[str, int] = {}
        self._units: list[int] = []
        self._headers: list[NeuronRecord] = []
        self._n_buckets: list[int | None] = []
        self._first_records: list[int] = [0]

    @property
    def is_full(self) -> bool:
        """Whether enough is gathered for a row group, of whatever there is most of: files can be odd on purpose."""
        n_texts, n_bytes = self._vocabulary.used
        return bool(
            self._cursors[1] >= ROW_GROUP_VALUES
            or self._cursors[2] >= _ROW_GROUP_RECORDS
            or n_texts + len(self._strings) >= _ROW_GROUP_TEXTS
            or n_bytes >= _ROW_GROUP_BYTES
        )

    def add(self, layer: int, unit: int, data: bytes) -> str:
        """Decode one unit's file and append its records.

        Args:
            layer: the unit's layer.
            unit: the unit's index in its layer.
            data: the file's bytes as stored.

        Returns:
            The form that was found, as `files.format` gives it.

        Raises:
            MalformedFile: the content is no NeuronRecord of this unit; nothing is appended.
        """
        decoded = self._add_plain(layer, unit, data)
        if decoded is None:
            decoded = decode(data, self._dataset, layer, unit)
            record = decoded.record
            self._append(record.most_positive_activation_records, 0, -1)
            self._append(record.random_sample, 1, -1)
            for bucket, records in enumerate(record.random_sample_by_quantile or ()):
                self._append(records, QUANTILE, bucket)
            buckets = record.random_sample_by_quantile
            self._n_buckets.append(None if buckets is None else len(buckets))
        self._units.append(unit)
        self._headers.append(decoded.record)
        self._first_records.append(int(self._cursors[2]))
        return decoded.format

    def _add_plain(self, layer: int, unit: int, data: bytes) -> Decoded | None:
        """Append a plain JSON file by the scanner; or None, and nothing is appended, where it is not plain."""
        content = unpack(data) if sniff(data) == "gzip" else data
        if sniff(content) != "json":
            return None
        self._reserve(len(content) // 3, len(content) // 2, len(content) // 16)
        padded = np.frombuffer(content + PADDING, np.uint8)
        spans = np.empty((3, 3), np.int64)
        v = self._vocabulary
        while True:
            cursors = self._cursors.copy()
            outcome = self._scan(
                padded, self._is_pair, self._tokens, self._values, self._records, cursors, spans,
                v.table, v.keys, v.arena, v.starts, v.used,
            )  # fmt: skip
            if outcome != VOCABULARY_FULL:
                break
            v.grow()
        self._learn_texts()
        used = self._tokens[self._cursors[0] : cursors[0]]
        if outcome == NOT_PLAIN or (self._odd and np.isin(used, self._odd).any()):
            return None
        try:
            decoded = decode(_header(content, spans), self._dataset, layer, unit)
        except MalformedFile:
            return None  # the general decoder says where in the whole file
        self._cursors = cursors
        self._n_buckets.append(None if spans[QUANTILE, 2] < 0 else int(spans[QUANTILE, 2]))
        return Decoded(decoded.record, "json" if content is data else "json+gzip")

    def _learn_texts(self) -> None:
        """Unescape the tokens that are new in the vocabulary; the odd ones are for the general decoder to judge."""
        raw = self._vocabulary.raw_text(len(self._texts))
        try:
            texts: list[str | None] = list(raw.decode("utf-8").split("\n")[:-1])
        except UnicodeDecodeError:
            texts = [_decode(token) for token in raw.split(b"\n")[:-1]]
        if b"\\" in raw:
            texts = [_unescape(text) if text and "\\" in text else text for text in texts]
        self._odd += [len(self._texts) + k for k, text in enumerate(texts) if text is None]
        self._texts += texts

    def _append(self, records: Sequence[ActivationRecord], section: int, bucket: int) -> None:
        if not records:
            return
        strings = self._strings
        tokens = list(chain.from_iterable(record.tokens for record in records))
        for token in dict.fromkeys(tokens):
            if token not in strings:
                strings[token] = ~len(strings)
        numbers = np.fromiter(map(strings.__getitem__, tokens), np.int32, len(tokens))
        values = np.concatenate([record.activations for record in records])
        self._reserve(len(tokens), len(values), len(records))
        token_at, value_at, row = self._cursors
        self._tokens[token_at : token_at + len(tokens)] = numbers
        self._values[value_at : value_at + len(values)] = values
        self._records[row : row + len(records)] = [
            (section, bucket, rank, len(record.tokens), len(record.activations)) for rank, record in enumerate(records)
        ]
        self._cursors += (len(tokens), len(values), len(records))

    def _reserve(self, n_tokens: int, n_values: int, n_records: int) -> None:
        self._tokens = _with_room(self._tokens, self._cursors[0] + n_tokens)
        self._values = _with_room(self._values, self._cursors[1] + n_values)
        self._records = _with_room(self._records, self._cursors[2] + n_records)

    def flush(self) -> dict[str, pa.Table]:
        """Give all that was gathered as tables, and begin anew.

        Returns:
            records, units and token_stats or pair_stats, with the columns of `schema.TABLES`; records in the order of
            their files.
        """
        n_tokens, n_values, n_records = self._cursors
        values, records = self._values[:n_values].copy(), self._records[:n_records].copy()
        tokens, vocabulary = self._encode(self._tokens[:n_tokens])
        first_records = np.array(self._first_records, np.int64)
        units = np.array(self._units, np.int32)
        record_units = np.repeat(units, np.diff(first_records))

        largest, place, n_active = summarise_records(values, records)
        statistics = (pair_statistics if self._is_pair else token_statistics)(
            tokens, values, records, first_records, len(vocabulary)
        )
        tables = {
            "records": _records_table(record_units, records, tokens, vocabulary, values, largest, place),
            "units": self._units_table(units, *summarise_units(records, first_records, largest, n_active)),
            "pair_stats" if self._is_pair else "token_stats": _statistics_table(
                statistics, units, vocabulary, self._is_pair
            ),
        }
        self._start()
        return tables

    def _encode(self, tokens: IntArray) -> tuple[IntArray, pa.StringArray]:
        """Number the tokens anew, most frequent first, and give their strings in that order."""
        first = -len(self._strings)
        counts = count_numbers(tokens, first, len(self._vocabulary) - first)
        strings = [*reversed(self._strings), *self._texts]
        order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
        texts = [strings[old] for old in order.tolist()]
        numbers = np.zeros(len(counts), np.int32)
        if len(set(texts)) == len(texts):
            numbers[order] = np.arange(len(order), dtype=np.int32)
        else:  # one token in several spellings
            distinct = {text: number for number, text in enumerate(dict.fromkeys(texts))}
            numbers[order] = [distinct[text] for text in texts]
            texts = list(distinct)
        return renumber(tokens, first, numbers), pa.array(texts, pa.string())

    def _units_table(
        self, units: IntArray, largest: FloatArray, active_fraction: NDArray[np.float64], counts: IntArray
    ) -> pa.Table:
        header = {name: [getattr(record, name) for record in self._headers] for name in _HEADER}
        return pa.Table.from_pydict(
            {
                "unit": units,
                **header,
                "n_buckets": self._n_buckets,
                "max_activation": pa.array(largest, from_pandas=True),
                "active_fraction": pa.array(active_fraction, from_pandas=True),
                "n_top": counts[:, 0].copy(),
                "n_random": counts[:, 1].copy(),
                "n_quantile": counts[:, 2].copy(),
            },
            schema=arrow_schema("units"),
        )


def _with_room(array: NDArray[Number], n: int) -> NDArray[Number]:
    if n <= len(array):
        return array
    larger = np.empty((max(int(n), 2 * len(array)), *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger


def _header(content: bytes, spans: NDArray[np.int64]) -> bytes:
    """Cut the record lists out of a plain JSON file, so that what is left can be decoded like any other."""
    kept, end = [], 0
    for first, last, _ in sorted(span for span in spans.tolist() if span[0] >= 0):
        kept += [content[end:first], b"[]"]
        end = last
    return b"".join([*kept, content[end:]])


def _decode(raw: bytes) -> str | None:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _unescape(raw: str) -> str | None:
    """Give the text of a JSON string's inside; None where it has a wrong escape or half of a surrogate pair."""
    try:
        return cast(str, orjson.loads(f'"{raw}"'))
    except orjson.JSONDecodeError:
        return None


def _dictionary(numbers: IntArray, vocabulary: pa.StringArray) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(numbers), vocabulary)


def _records_table(
    units: IntArray,
    records: IntArray,
    tokens: IntArray,
    vocabulary: pa.StringArray,
    values: FloatArray,
    largest: FloatArray,
    place: IntArray,
) -> pa.Table:
    token_offsets = np.concatenate([[0], np.cumsum(records[:, 3])]).astype(np.int32)
    value_offsets = np.concatenate([[0], np.cumsum(records[:, 4])]).astype(np.int32)
    is_quantile = records[:, 0] == QUANTILE
    return pa.table(
        {
            "unit": units,
            "section": _dictionary(records[:, 0].copy(), pa.array(SECTIONS)),
            "quantile": pa.array(records[:, 1].copy(), mask=~is_quantile),
            "rank": records[:, 2].copy(),
            "tokens": pa.ListArray.from_arrays(token_offsets, _dictionary(tokens, vocabulary)),
            "activations": pa.ListArray.from_arrays(value_offsets, pa.array(values)),
            "max_activation": pa.array(largest, from_pandas=True),
            "argmax": pa.array(place, mask=place < 0),
        }
    )


def _statistics_table(statistics: Statistics, units: IntArray, vocabulary: pa.StringArray, is_pair: bool) -> pa.Table:
    counts, figures = statistics.counts, statistics.figures
    columns = {
        "unit": units[statistics.units],
        "token": _dictionary(statistics.tokens, vocabulary),
        "query_token": _dictionary(statistics.tokens, vocabulary),
        "key_token": _dictionary(statistics.keys, vocabulary),
        "n": counts[:, 0].copy(),
        "n_active": counts[:, 1].copy(),
        "n_random": counts[:, 2].copy(),
        "max_activation": figures[:, 0].copy(),
        "min_activation": figures[:, 1].copy(),
        "sum_activation": figures[:, 2].copy(),
        "sum_random": figures[:, 3].copy(),
        "sum_positive": figures[:, 4].copy(),
    }
    names = arrow_schema("pair_stats" if is_pair else "token_stats").names
    return pa.table({name: columns[name] for name in names})
