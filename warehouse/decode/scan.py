"""The fast way through a plain JSON file: one pass over its bytes, straight into a shard's columns.

A file is plain where its records hold nothing but `tokens`, `activations` and `dataclass_name`, and its numbers are
such that `parse_float` takes them. Whatever else is met makes `scan_records` stop and say so; the caller then takes
the general decoder, which alone judges files and words the reasons. The header (everything but the record lists) is
always left to that decoder.

Each scanning function takes the place where a value begins and gives the place after it, or a negative outcome.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warehouse.decode.machine import cached, compiled, inlined
from warehouse.decode.numbers import parse_float
from warehouse.decode.vocabulary import FULL, end_of_string, intern
from warehouse.records import LIMITS, FloatArray, IntArray

PADDING = b"\0" * 24
"""What must follow a file's bytes: NUL is legal nowhere in JSON, so every loop of the scanner ends at it."""

SCANNED, NOT_PLAIN, VOCABULARY_FULL = 0, -1, FULL
TOP, RANDOM, QUANTILE = 0, 1, 2
"""Sections by number, as in `records.SECTIONS`."""

_N_PADDING = len(PADDING)
_MAX_RECORD_TOKENS = LIMITS.record_tokens
_MAX_UNIT_VALUES = LIMITS.unit_values
_MAX_UNIT_RECORDS = LIMITS.unit_records
_MAX_NESTING = LIMITS.nesting

_SPACE, _QUOTE, _COMMA, _COLON, _BACKSLASH = 32, 34, 44, 58, 92
_OPEN_LIST, _CLOSE_LIST, _OPEN_MAP, _CLOSE_MAP = 91, 93, 123, 125
_RECORD_NAME = b'"ActivationRecord"'

_SOURCES = ("scan.py", "vocabulary.py", "numbers.py", "machine.py")


@inlined
def _skip_space(data: NDArray[np.uint8], i: int) -> int:
    while data[i] <= _SPACE and (data[i] == 32 or data[i] == 10 or data[i] == 13 or data[i] == 9):
        i += 1
    return i


@compiled
def _skip_value(data: NDArray[np.uint8], i: int) -> int:
    """Pass any value, with an eye for brackets and strings alone: the general decoder reads it."""
    depth = 0
    while True:
        byte = data[i]
        if byte == _QUOTE:
            i = end_of_string(data, i + 1)
            if i < 0:
                return NOT_PLAIN
            if depth == 0:
                return i + 1
        elif byte == _OPEN_MAP or byte == _OPEN_LIST:
            depth += 1
            if depth > _MAX_NESTING:
                return NOT_PLAIN
        elif byte == _CLOSE_MAP or byte == _CLOSE_LIST:
            if depth == 0:
                return i
            depth -= 1
            if depth == 0:
                return i + 1
        elif byte == _COMMA and depth == 0:
            return i
        elif byte == 0:
            return NOT_PLAIN
        i += 1


@compiled
def _matches(data: NDArray[np.uint8], i: int, word: bytes) -> bool:
    for k in range(len(word)):
        if data[i + k] != word[k]:  # the padding differs from every word, so this ends at it
            return False
    return True


@inlined
def _next_item(data: NDArray[np.uint8], i: int, close: int) -> int:
    """Pass the comma before a next item, or nothing before the closing bracket."""
    i = _skip_space(data, i)
    if data[i] == _COMMA:
        i = _skip_space(data, i + 1)
        return NOT_PLAIN if data[i] == close else i
    return i if data[i] == close else NOT_PLAIN


@compiled
def _skip_key(data: NDArray[np.uint8], i: int) -> int:
    """Pass a key without escapes and its colon."""
    if data[i] != _QUOTE:
        return NOT_PLAIN
    i += 1
    while data[i] != _QUOTE:
        if data[i] < _SPACE or data[i] == _BACKSLASH:
            return NOT_PLAIN
        i += 1
    i = _skip_space(data, i + 1)
    return _skip_space(data, i + 1) if data[i] == _COLON else NOT_PLAIN


@compiled
def _is_legal_length(n_tokens: int, n_values: int, is_pair: bool) -> bool:
    missing = n_tokens * (n_tokens + 1) // 2 - n_values
    if not is_pair or n_tokens == 0 or missing < 0:
        return n_tokens == n_values
    side = int((np.sqrt(8.0 * missing + 1.0) - 1.0) / 2.0 + 0.5)
    return side * (side + 1) // 2 == missing and side < n_tokens


@inlined
def _scan_tokens(
    data: NDArray[np.uint8],
    i: int,
    tokens: IntArray,
    cursors: NDArray[np.int64],
    table: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    arena: NDArray[np.uint8],
    starts: NDArray[np.int64],
    used: NDArray[np.int64],
) -> int:
    at = cursors[0]
    i = _skip_space(data, i + 1)
    while data[i] != _CLOSE_LIST:
        if data[i] != _QUOTE:
            return NOT_PLAIN
        token, i = intern(data, i + 1, table, keys, arena, starts, used)
        if token < 0:
            return token
        tokens[at] = token
        at += 1
        i = _next_item(data, i, _CLOSE_LIST)
        if i < 0:
            return i
    cursors[0] = at
    return i + 1


@inlined
def _scan_values(data: NDArray[np.uint8], i: int, values: FloatArray, cursors: NDArray[np.int64]) -> int:
    at = cursors[1]
    i = _skip_space(data, i + 1)
    while data[i] != _CLOSE_LIST:
        i, value = parse_float(data, i)
        if i < 0:
            return NOT_PLAIN
        values[at] = np.float32(value)
        at += 1
        i = _next_item(data, i, _CLOSE_LIST)
        if i < 0:
            return i
    cursors[1] = at
    return i + 1


@compiled
def _scan_list(
    data: NDArray[np.uint8],
    i: int,
    section: Any,
    bucket: Any,
    is_pair: bool,
    tokens: IntArray,
    values: FloatArray,
    records: IntArray,
    cursors: NDArray[np.int64],
    table: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    arena: NDArray[np.uint8],
    starts: NDArray[np.int64],
    used: NDArray[np.int64],
) -> int:
    """Scan one list of records."""
    if data[i] != _OPEN_LIST:
        return NOT_PLAIN
    rank = 0
    i = _skip_space(data, i + 1)
    while data[i] != _CLOSE_LIST:
        if data[i] != _OPEN_MAP:
            return NOT_PLAIN
        first_token = cursors[0]
        first_value = cursors[1]
        has_tokens = False
        has_values = False
        i = _skip_space(data, i + 1)
        while data[i] != _CLOSE_MAP:
            key = i + 1
            i = _skip_key(data, i)
            if i < 0:
                return i
            if _matches(data, key, b'tokens"') and not has_tokens and data[i] == _OPEN_LIST:
                has_tokens = True
                i = _scan_tokens(data, i, tokens, cursors, table, keys, arena, starts, used)
            elif _matches(data, key, b'activations"') and not has_values and data[i] == _OPEN_LIST:
                has_values = True
                i = _scan_values(data, i, values, cursors)
            elif _matches(data, key, b'dataclass_name"') and _matches(data, i, _RECORD_NAME):
                i += len(_RECORD_NAME)
            else:
                return NOT_PLAIN
            if i >= 0:
                i = _next_item(data, i, _CLOSE_MAP)
            if i < 0:
                return i
        n_tokens = cursors[0] - first_token
        n_values = cursors[1] - first_value
        if not (has_tokens and has_values) or n_tokens > _MAX_RECORD_TOKENS:
            return NOT_PLAIN
        if not _is_legal_length(n_tokens, n_values, is_pair):
            return NOT_PLAIN
        row = cursors[2]
        records[row, 0] = section
        records[row, 1] = bucket
        records[row, 2] = rank
        records[row, 3] = n_tokens
        records[row, 4] = n_values
        cursors[2] = row + 1
        rank += 1
        i = _next_item(data, i + 1, _CLOSE_LIST)
        if i < 0:
            return i
    return i + 1


@compiled
def _section_of(data: NDArray[np.uint8], key: int) -> int:
    if _matches(data, key, b'most_positive_activation_records"'):
        return TOP
    if _matches(data, key, b'random_sample"'):
        return RANDOM
    if _matches(data, key, b'random_sample_by_quantile"'):
        return QUANTILE
    return -1


@compiled
def scan_records(
    data: NDArray[np.uint8],
    is_pair: bool,
    tokens: IntArray,
    values: FloatArray,
    records: IntArray,
    cursors: NDArray[np.int64],
    spans: NDArray[np.int64],
    table: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    arena: NDArray[np.uint8],
    starts: NDArray[np.int64],
    used: NDArray[np.int64],
) -> int:
    """Append one file's records to a shard's columns.

    The caller provides the room: a file of n bytes has at most n/3 tokens, n/2 values and n/16 records.

    Args:
        data: the file's bytes, then PADDING.
        is_pair: whether activations belong to token pairs, which decides the lengths that are legal.
        tokens: token ids, written from cursors[0] on.
        values: activations, written from cursors[1] on.
        records: [n, 5] section, quantile, rank, n_tokens, n_values, written from row cursors[2] on.
        cursors: [3] moved past what was written; worthless unless the outcome is SCANNED.
        spans: [3, 3] for each section: where its value begins and ends, or -1; and its buckets, -1 where null.
        table: of a Vocabulary.
        keys: of a Vocabulary.
        arena: of a Vocabulary.
        starts: of a Vocabulary.
        used: of a Vocabulary.

    Returns:
        SCANNED, NOT_PLAIN, or VOCABULARY_FULL (grow it and come again).
    """
    first_value = cursors[1]
    first_record = cursors[2]
    spans[:] = -1
    i = _skip_space(data, 0)
    if data[i] != _OPEN_MAP:
        return NOT_PLAIN
    i = _skip_space(data, i + 1)
    while data[i] != _CLOSE_MAP:
        key = i + 1
        i = _skip_key(data, i)
        if i < 0:
            return i
        section = _section_of(data, key)
        begin = i
        if section < 0:
            i = _skip_value(data, i)
        elif spans[section, 0] >= 0:
            return NOT_PLAIN
        elif section != QUANTILE:  # int64() since a literal would have _scan_list compiled for it alone
            i = _scan_list(
                data, i, np.int64(section), np.int64(-1), is_pair, tokens, values, records, cursors,
                table, keys, arena, starts, used,
            )  # fmt: skip
        elif _matches(data, i, b"null"):
            i += 4
        elif data[i] == _OPEN_LIST:
            spans[QUANTILE, 2] = 0
            i = _skip_space(data, i + 1)
            while data[i] != _CLOSE_LIST:
                i = _scan_list(
                    data, i, np.int64(QUANTILE), spans[QUANTILE, 2], is_pair, tokens, values, records, cursors,
                    table, keys, arena, starts, used,
                )  # fmt: skip
                if i >= 0:
                    i = _next_item(data, i, _CLOSE_LIST)
                if i < 0:
                    return i
                spans[QUANTILE, 2] += 1
            i += 1
        else:
            return NOT_PLAIN
        if i < 0:
            return i
        if section >= 0:
            spans[section, 0] = begin
            spans[section, 1] = i
        i = _next_item(data, i, _CLOSE_MAP)
        if i < 0:
            return i
    if _skip_space(data, i + 1) != len(data) - _N_PADDING:
        return NOT_PLAIN
    if cursors[1] - first_value > _MAX_UNIT_VALUES or cursors[2] - first_record > _MAX_UNIT_RECORDS:
        return NOT_PLAIN
    return SCANNED


@functools.cache
def load_scanner() -> Callable[..., int]:
    """Give `scan_records` compiled, from the cache on disk where that holds it.

    Numba's cache knows a function by its own file, and would go on using callees from other files that have changed
    since. What a function closes over is part of its key, so a hash of all the files that the code comes from is that.
    """
    here = Path(__file__).parent
    text = b"".join((here / name).read_bytes() for name in _SOURCES)
    version = int.from_bytes(hashlib.sha256(text).digest()[:7], "little")

    def scan(
        data: NDArray[np.uint8],
        is_pair: bool,
        tokens: IntArray,
        values: FloatArray,
        records: IntArray,
        cursors: NDArray[np.int64],
        spans: NDArray[np.int64],
        table: NDArray[np.uint64],
        keys: NDArray[np.uint64],
        arena: NDArray[np.uint8],
        starts: NDArray[np.int64],
        used: NDArray[np.int64],
    ) -> int:
        if version < 0:
            return NOT_PLAIN
        return scan_records(data, is_pair, tokens, values, records, cursors, spans, table, keys, arena, starts, used)

    return cached(scan)
