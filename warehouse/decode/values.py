"""Tokens, activations and single numbers, from whatever holds them: lists, tensors, numpy arrays, token ids.

The records of a list are read together, a column of tokens and a column of activations: where they are tensors, a
numpy call for each would cost more than its numbers. Bounds are checked before anything is made, since a pickle can
name one list a million times.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, TypeAlias, cast

import numpy as np

from warehouse.datasets import Dataset
from warehouse.decode.budget import Budget
from warehouse.decode.describe import describe
from warehouse.decode.gpt2 import N_TOKENS, token_lengths, token_texts
from warehouse.decode.inert import AnyArray, Tensor
from warehouse.errors import MalformedFile
from warehouse.records import FloatArray, Limits

Place: TypeAlias = Callable[[int], str]
"""Says where in the file a record's values are, by the record's index: `random_sample[3].tokens`."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_NUMBER_TYPES = frozenset((int, float))
_LONGEST_INDEX = 20
_MOST_ELEMENTS = 1 << 62


def view_array(tensor: Tensor, n_dimensions: int, where: str, limits: Limits) -> AnyArray:
    """View a tensor's numbers.

    Args:
        tensor: as a pickle holds it.
        n_dimensions: how many it must have; an empty tensor of one counts as empty in two.
        where: its place in the file.
        limits: bounds its elements.

    Raises:
        MalformedFile: another number of dimensions, or not within its storage.
    """
    try:
        array = tensor.to_array(limits)
    except MalformedFile as e:
        raise MalformedFile(f"{where}: {describe(tensor)}: {e}") from e
    if array.ndim == 1 and n_dimensions == 2 and array.size == 0:
        return array.reshape(0, 0)
    if array.ndim != n_dimensions:
        raise MalformedFile(f"{where}: {describe(tensor)}, not of {n_dimensions} dimensions")
    return array


def _view_rows(column: object, what: str, place: Place, budget: Budget) -> list[AnyArray] | None:
    """View the rows of a tensor, or of a list of nothing but tensors; None for a list of lists."""
    if not isinstance(column, (list, tuple, Tensor)):
        raise MalformedFile(f"{place(0)}: {describe(column)}, neither a tensor nor a list with a row for each record")
    # These come before the views: a stride of 0 makes many values of few bytes, and an empty row takes none at all.
    n_rows = _count(column.size[:1]) if isinstance(column, Tensor) else len(column)
    if n_rows > budget.limits.unit_records:
        raise MalformedFile(f"{place(0)}: {n_rows} rows, more than the {budget.limits.unit_records} records of a unit")
    if isinstance(column, Tensor):
        budget.take(_count(column.size), what, place(0))
        return list(view_array(column, 2, place(0), budget.limits))
    if not column or not all(isinstance(row, Tensor) for row in column):
        return None
    for i, row in enumerate(column):
        budget.take(_count(row.size), what, place(i))
    return [view_array(row, 1, place(i), budget.limits) for i, row in enumerate(column)]


def _count(size: tuple[int, ...]) -> int:
    """Count a tensor's elements by its size as the file says it, which can be negative or beyond printing."""
    return min(max(0, math.prod(size)), _MOST_ELEMENTS)


def _join(rows: list[AnyArray], kinds: str, what: str, place: Place) -> AnyArray:
    """Put the values of rows behind each other, whose types must be of one of numpy's kinds; empty ones have none."""
    filled = [row for row in rows if row.size]
    for i, row in enumerate(rows):
        if row.size and row.dtype.kind not in kinds:
            raise MalformedFile(f"{place(i)}: {what} of type {row.dtype}")
    return np.concatenate(filled) if filled else np.empty(0, np.uint8)


def _split(values: Any, rows: list[AnyArray]) -> list[Any]:
    """Undo `_join`."""
    ends = accumulate(map(len, rows))
    return [values[end - len(row) : end] for row, end in zip(rows, ends, strict=True)]


def _locate(index: int, rows: list[AnyArray], place: Place) -> str:
    """Say where in the file a value of joined rows is."""
    row = 0
    while index >= len(rows[row]):
        index -= len(rows[row])
        row += 1
    return f"{place(row)}[{index}]"


# tokens -----------------------------------------------------------------------------------------------------------


def read_tokens(column: object, place: Place, dataset: Dataset, budget: Budget) -> list[list[str]]:
    """Read the tokens of a list of records.

    Args:
        column: [n_records, n_tokens] GPT-2 ids or texts in a tensor, or a list with one list or tensor for each record.
        place: where the records are.
        dataset: says whether ids can be read.
        budget: what the unit may still hold.

    Returns:
        [n_records] lists of [n_tokens] strings; a lone surrogate reads as U+FFFD.

    Raises:
        MalformedFile: anything else, or too many or too long tokens.
    """
    rows = _view_rows(column, "tokens", place, budget)
    if rows is None:
        return [
            _read_token_list(row, place(i), dataset, budget) for i, row in enumerate(cast(Sequence[object], column))
        ]
    for i, row in enumerate(rows):
        _check_length(len(row), place(i), budget.limits)
    if any(row.dtype.kind == "U" for row in rows):
        return [_check_texts(_list_texts(row, place(i)), place(i), budget) for i, row in enumerate(rows)]
    ids = _join(rows, "iu", "token ids", place)
    return _split(_read_ids(ids, lambda i: _locate(i, rows, place), dataset, budget), rows)


def _read_token_list(value: object, where: str, dataset: Dataset, budget: Budget) -> list[str]:
    if isinstance(value, Tensor):
        return read_tokens([value], lambda _: where, dataset, budget)[0]
    if not isinstance(value, (list, tuple)):
        raise MalformedFile(f"{where}: {describe(value)}, not a list of tokens")
    _check_length(len(value), where, budget.limits)
    budget.take(len(value), "tokens", where)
    types = set(map(type, value))
    if types == {int}:
        try:
            ids = np.array(value, np.int64)
        except OverflowError as e:
            raise MalformedFile(f"{where}: a token id beyond 64 bits") from e
        return _read_ids(ids, lambda i: f"{where}[{i}]", dataset, budget)
    if types - {str}:
        odd = next(i for i, token in enumerate(value) if type(token) is not str)
        raise MalformedFile(f"{where}[{odd}]: {describe(value[odd])}, not a token's text")
    return _check_texts(list(value) if isinstance(value, tuple) else value, where, budget)


def _check_length(n_tokens: int, where: str, limits: Limits) -> None:
    if n_tokens > limits.record_tokens:
        raise MalformedFile(f"{where}: {n_tokens} tokens, beyond {limits.record_tokens}")


def _check_texts(tokens: list[str], where: str, budget: Budget) -> list[str]:
    lengths = list(map(len, tokens))
    budget.take(sum(lengths), "characters", where)
    longest = max(lengths, default=0)
    text = "".join(tokens)
    if not text.isascii():
        if _SURROGATE.search(text):
            tokens = [_SURROGATE.sub("\ufffd", token) for token in tokens]
        if 4 * longest > budget.limits.token_bytes:
            longest = max(len(token.encode()) for token in tokens)
    if longest > budget.limits.token_bytes:
        raise MalformedFile(f"{where}: a token of {longest} bytes, beyond {budget.limits.token_bytes}")
    return tokens


def _read_ids(ids: AnyArray, place: Place, dataset: Dataset, budget: Budget) -> list[str]:
    """Give the texts of [n] token ids; `place` says where each is."""
    if not ids.size:
        return []
    if dataset.tokenizer != "gpt2":
        raise MalformedFile(f"{place(0)}: a token id, but {dataset.key} is not registered with a tokenizer to read it")
    is_odd = (ids < 0) | (ids >= N_TOKENS)
    if is_odd.any():
        odd = int(is_odd.argmax())
        raise MalformedFile(f"{place(odd)}: token id {ids[odd]} is not one of GPT-2's, 0 to {N_TOKENS - 1}")
    budget.take(int(token_lengths()[ids].sum(dtype=np.int64)), "characters", place(0))
    texts: list[str] = token_texts()[ids].tolist()
    return texts


def _list_texts(array: AnyArray, where: str) -> list[str]:
    if array.size and array.dtype.kind != "U":
        raise MalformedFile(f"{where}: tokens of type {array.dtype}, where others are texts")
    if array.size and np.ascontiguousarray(array).view(np.uint32).max() > sys.maxunicode:
        raise MalformedFile(f"{where}: a number that is no character")
    texts: list[str] = array.tolist()
    return texts


# activations ------------------------------------------------------------------------------------------------------


def read_activations(column: object, place: Place, budget: Budget) -> list[FloatArray]:
    """Read the activations of a list of records.

    Args:
        column: an [n_records, n_values] tensor of numbers, or a list with one list or tensor for each record.
        place: where the records are.
        budget: what the unit may still hold.

    Returns:
        [n_records] arrays of [n_values], the nearest float32 of each number.

    Raises:
        MalformedFile: anything else, too many, or a value that is not finite as float32.
    """
    rows = _view_rows(column, "activations", place, budget)
    if rows is None:
        return [_read_activation_list(row, place(i), budget) for i, row in enumerate(cast(Sequence[object], column))]
    with np.errstate(over="ignore"):
        activations = _join(rows, "fiu", "activations", place).astype(np.float32)
    _check_finite(activations, lambda i: _locate(i, rows, place))
    return _split(activations, rows)


def _read_activation_list(value: object, where: str, budget: Budget) -> FloatArray:
    if isinstance(value, Tensor):
        return read_activations([value], lambda _: where, budget)[0]
    if not isinstance(value, (list, tuple)):
        raise MalformedFile(f"{where}: {describe(value)}, not a list of activations")
    budget.take(len(value), "activations", where)
    if not set(map(type, value)) <= _NUMBER_TYPES:
        value = [_read_activation(element, f"{where}[{i}]", budget.limits) for i, element in enumerate(value)]
    try:
        with np.errstate(over="ignore"):
            activations = np.array(value, np.float32)
    except OverflowError as e:
        raise MalformedFile(f"{where}: an integer beyond float32") from e
    _check_finite(activations, lambda i: f"{where}[{i}]")
    return activations


def _read_activation(value: object, where: str, limits: Limits) -> int | float:
    """Read one activation of a list: a scalar of numpy or torch is a tensor without dimensions."""
    number = read_number(value, where, limits)
    if number is None:
        raise MalformedFile(f"{where}: {describe(value)}, not an activation")
    return number


def _check_finite(activations: FloatArray, place: Place) -> None:
    is_finite = np.isfinite(activations)
    if not is_finite.all():
        raise MalformedFile(f"{place(int(is_finite.argmin()))}: NaN, infinite or beyond float32")


# single numbers ---------------------------------------------------------------------------------------------------


def read_number(value: object, where: str, limits: Limits) -> int | float | None:
    """Read a number; None where it is null or NaN.

    Raises:
        MalformedFile: anything that is not a number, or a tensor of one.
    """
    if isinstance(value, Tensor):
        array = view_array(value, len(value.size), where, limits)
        if array.size != 1 or array.dtype.kind not in "fiu":
            raise MalformedFile(f"{where}: {describe(value)}, not a number")
        value = array.item()
    if value is None or (type(value) is float and math.isnan(value)):
        return None
    if type(value) is not float and type(value) is not int:
        raise MalformedFile(f"{where}: {describe(value)}, not a number")
    return value


def read_float(value: object, where: str, limits: Limits) -> float | None:
    """Read a number as a float; None where it is null or NaN.

    Raises:
        MalformedFile: not a number, or an integer that no float holds.
    """
    number = read_number(value, where, limits)
    try:
        return None if number is None else float(number)
    except OverflowError as e:
        raise MalformedFile(f"{where}: {describe(number)} is beyond a float") from e


def read_index(value: object, where: str, limits: Limits) -> int | None:
    """Read a layer's or a unit's index, which may be written as a string; None where it is null.

    Raises:
        MalformedFile: not an integer.
    """
    if isinstance(value, str) and len(value) <= _LONGEST_INDEX and value.isascii() and value.isdigit():
        return int(value)
    number = read_number(value, where, limits)
    if isinstance(number, float) or (number is None and value is not None):
        raise MalformedFile(f"{where}: {describe(value)}, not an index")
    return number
