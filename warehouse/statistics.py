"""Figures over the columns of many units at once: per record, per (unit, token) and per (unit, token pair).

Everything here is arithmetic on arrays. `records` is [n_records, 5] int32: section, quantile, rank, n_tokens and
n_values; `tokens` and `values` hold the records' tokens and activations one after the other; `first_records` is
[n_units + 1], the records at which each unit begins. Active means > 0. Sums are taken in float64 and kept as float32;
one that float32 cannot hold is infinite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from warehouse.decode.scan import RANDOM, TOP
from warehouse.records import FloatArray, IntArray

MAX_PAIRS = 1000
"""Rows that pair_stats keeps of a unit: the strongest by absolute activation."""

_jit = njit(cache=True, nogil=True)

_N, _N_ACTIVE, _N_RANDOM = 0, 1, 2
_MAX, _MIN, _SUM, _SUM_RANDOM, _SUM_POSITIVE = 0, 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class Statistics:
    """Rows of token_stats or pair_stats.

    Attributes:
        units: [n_rows] index of the unit.
        tokens: [n_rows] token ids, of the query in pair_stats.
        keys: [n_rows] token ids of the key; in token_stats unused.
        counts: [n_rows, 3] n, n_active, n_random.
        figures: [n_rows, 5] max, min, sum, sum over the random sample, sum of the positive activations.
    """

    units: IntArray
    tokens: IntArray
    keys: IntArray
    counts: IntArray
    figures: FloatArray


@_jit
def count_numbers(numbers: IntArray, first: int, n_numbers: int) -> NDArray[np.int64]:
    """Count how often each of the numbers from `first` on occurs.

    Args:
        numbers: [n] from first to first + n_numbers - 1.
        first: the smallest number there can be.
        n_numbers: how many there can be.
    """
    counts = np.zeros(n_numbers, np.int64)
    for k in range(len(numbers)):
        counts[numbers[k] - first] += 1
    return counts


@_jit
def renumber(numbers: IntArray, first: int, new_numbers: IntArray) -> IntArray:
    """Replace each number by the one that `new_numbers` has for it, counted from `first`."""
    renumbered = np.empty(len(numbers), np.int32)
    for k in range(len(numbers)):
        renumbered[k] = new_numbers[numbers[k] - first]
    return renumbered


@_jit
def summarise_records(values: FloatArray, records: IntArray) -> tuple[FloatArray, IntArray, IntArray]:
    """Give each record's largest activation (NaN if empty), its first place (-1 if empty) and its active positions."""
    n_records = len(records)
    largest = np.full(n_records, np.nan, np.float32)
    place = np.full(n_records, -1, np.int32)
    n_active = np.zeros(n_records, np.int32)
    at = 0
    for record in range(n_records):
        for k in range(records[record, 4]):
            value = values[at + k]
            if k == 0 or value > largest[record]:
                largest[record] = value
                place[record] = k
            n_active[record] += value > 0
        at += records[record, 4]
    return largest, place, n_active


@_jit
def summarise_units(
    records: IntArray, first_records: NDArray[np.int64], largest: FloatArray, n_active: IntArray
) -> tuple[FloatArray, NDArray[np.float64], IntArray]:
    """Give each unit's largest activation over its top records, its active fraction, and its records by section.

    Returns:
        [n_units] float32, NaN without top activations; [n_units] 0 to 1, NaN without random activations;
        [n_units, 3] counts of top, random and quantile records.
    """
    n_units = len(first_records) - 1
    unit_largest = np.full(n_units, np.nan, np.float32)
    active_fraction = np.full(n_units, np.nan, np.float64)
    counts = np.zeros((n_units, 3), np.int32)
    for unit in range(n_units):
        n_values = 0
        n_positive = 0
        for record in range(first_records[unit], first_records[unit + 1]):
            section = records[record, 0]
            counts[unit, section] += 1
            if section == TOP and not largest[record] <= unit_largest[unit] and records[record, 4] > 0:
                unit_largest[unit] = largest[record]
            if section == RANDOM:
                n_values += records[record, 4]
                n_positive += n_active[record]
        if n_values > 0:
            active_fraction[unit] = n_positive / n_values
    return unit_largest, active_fraction, counts


@_jit
def _add(value: float, is_random: bool, counts: IntArray, sums: NDArray[np.float64]) -> None:
    """Count one activation of a token or pair; where it is the first, the caller has zeroed both rows."""
    if counts[_N] == 0:
        sums[_MAX] = value
        sums[_MIN] = value
    counts[_N] += 1
    sums[_SUM] += value
    sums[_MAX] = max(sums[_MAX], value)
    sums[_MIN] = min(sums[_MIN], value)
    if value > 0:
        counts[_N_ACTIVE] += 1
        sums[_SUM_POSITIVE] += value
    if is_random:
        counts[_N_RANDOM] += 1
        sums[_SUM_RANDOM] += value


@_jit
def _count_tokens(
    tokens: IntArray,
    values: FloatArray,
    records: IntArray,
    first_records: NDArray[np.int64],
    n_vocabulary: int,
    n_rows: int,
    max_tokens: int,
) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
    units = np.empty(n_rows, np.int32)
    row_tokens = np.empty(n_rows, np.int32)
    row_counts = np.empty((n_rows, 3), np.int32)
    row_figures = np.empty((n_rows, 5), np.float32)
    places = np.full(n_vocabulary, -1, np.int32)  # a token's row in the unit's own small tables, which stay in cache
    seen = np.empty(max_tokens, np.int32)
    counts = np.zeros((max_tokens, 3), np.int32)
    sums = np.zeros((max_tokens, 5), np.float64)
    row = 0
    at = 0
    for unit in range(len(first_records) - 1):
        n_seen = 0
        for record in range(first_records[unit], first_records[unit + 1]):
            is_random = records[record, 0] == RANDOM
            for k in range(at, at + records[record, 3]):
                place = places[tokens[k]]
                if place < 0:
                    place = n_seen
                    places[tokens[k]] = n_seen
                    seen[n_seen] = tokens[k]
                    n_seen += 1
                value = np.float64(values[k])
                counts[place, _N] += 1
                sums[place, _SUM] += value
                if value > 0:  # only rows with a positive activation are kept, so these bound the largest
                    counts[place, _N_ACTIVE] += 1
                    sums[place, _SUM_POSITIVE] += value
                    sums[place, _MAX] = max(sums[place, _MAX], value)
                if is_random:
                    counts[place, _N_RANDOM] += 1
                    sums[place, _SUM_RANDOM] += value
            at += records[record, 3]
        for place in range(n_seen):
            if counts[place, _N_ACTIVE] > 0:
                units[row] = unit
                row_tokens[row] = seen[place]
                row_counts[row] = counts[place]
                for figure in range(5):
                    row_figures[row, figure] = np.float32(sums[place, figure])
                row += 1
            places[seen[place]] = -1
        counts[:n_seen] = 0
        sums[:n_seen] = 0.0
    return units[:row], row_tokens[:row], row_counts[:row], row_figures[:row]


def token_statistics(
    tokens: IntArray, values: FloatArray, records: IntArray, first_records: NDArray[np.int64], n_vocabulary: int
) -> Statistics:
    """Count every token of every unit; a token that is never active in a unit has no row.

    Args:
        tokens: [n_positions] token ids below n_vocabulary.
        values: [n_positions] activations.
        records: [n_records, 5].
        first_records: [n_units + 1].
        n_vocabulary: number of distinct tokens.

    Returns:
        Rows unit after unit, each unit's tokens in the order in which they first occur.
    """
    n_rows = int(np.count_nonzero(values > 0))
    positions = np.concatenate([[0], np.cumsum(records[:, 3], dtype=np.int64)])[first_records]
    max_tokens = min(n_vocabulary, int(np.diff(positions).max(initial=0)))
    units, row_tokens, counts, figures = _count_tokens(
        tokens, values, records, first_records, n_vocabulary, n_rows, max_tokens
    )
    return Statistics(units, row_tokens, row_tokens, counts, figures)


@_jit
def _count_pairs(
    tokens: IntArray, values: FloatArray, records: IntArray, n_vocabulary: int, n_slots: int
) -> tuple[NDArray[np.int64], IntArray, NDArray[np.float64]]:
    """Count the token pairs of one unit in a hash table of n_slots, a power of two over twice the pairs there are."""
    slots = np.full(n_slots, -1, np.int32)
    mask = n_slots - 1
    pairs = np.empty(n_slots // 2, np.int64)
    counts = np.zeros((n_slots // 2, 3), np.int32)
    sums = np.zeros((n_slots // 2, 5), np.float64)
    n_pairs = 0
    first_token = 0
    at = 0
    for record in range(len(records)):
        is_random = records[record, 0] == RANDOM
        n_tokens = records[record, 3]
        missing = n_tokens * (n_tokens + 1) // 2 - records[record, 4]
        n_keys = n_tokens - int((np.sqrt(8.0 * missing + 1.0) - 1.0) / 2.0 + 0.5)
        for query in range(n_tokens):
            row = np.int64(tokens[first_token + query]) * n_vocabulary
            for key in range(min(query + 1, n_keys)):
                pair = row + tokens[first_token + key]
                slot = ((np.uint64(pair) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & np.uint64(mask)
                while slots[slot] >= 0 and pairs[slots[slot]] != pair:
                    slot = (slot + np.uint64(1)) & np.uint64(mask)
                if slots[slot] < 0:
                    slots[slot] = n_pairs
                    pairs[n_pairs] = pair
                    n_pairs += 1
                place = slots[slot]
                _add(np.float64(values[at]), is_random, counts[place], sums[place])
                at += 1
        first_token += n_tokens
    return pairs[:n_pairs], counts[:n_pairs], sums[:n_pairs]


def _narrow(sums: NDArray[np.float64]) -> FloatArray:
    with np.errstate(over="ignore"):
        return sums.astype(np.float32)


def pair_statistics(
    tokens: IntArray, values: FloatArray, records: IntArray, first_records: NDArray[np.int64], n_vocabulary: int
) -> Statistics:
    """Count every (query token, key token) of every unit, and keep each unit's MAX_PAIRS strongest pairs.

    Strongest is by largest absolute activation, since attributions are signed; ties go to the pair met first.
    A pair whose activations are all zero has no row.

    Args:
        tokens: [n_positions] token ids below n_vocabulary.
        values: [n_pairs] activations, the records' flattened lower triangles one after the other.
        records: [n_records, 5].
        first_records: [n_units + 1].
        n_vocabulary: number of distinct tokens.

    Returns:
        Rows unit after unit, each unit's pairs strongest first.
    """
    token_at = np.concatenate([[0], np.cumsum(records[:, 3], dtype=np.int64)])[first_records]
    value_at = np.concatenate([[0], np.cumsum(records[:, 4], dtype=np.int64)])[first_records]
    kept: list[tuple[IntArray, NDArray[np.int64], IntArray, FloatArray]] = []
    for unit in range(len(first_records) - 1):
        unit_values = values[value_at[unit] : value_at[unit + 1]]
        unit_tokens = tokens[token_at[unit] : token_at[unit + 1]]
        most_pairs = min(len(unit_values), len(np.unique(unit_tokens)) ** 2)
        pairs, counts, sums = _count_pairs(
            unit_tokens,
            unit_values,
            records[first_records[unit] : first_records[unit + 1]],
            n_vocabulary,
            1 << (2 * most_pairs + 2).bit_length(),
        )
        strength = np.maximum(sums[:, _MAX], -sums[:, _MIN])
        if len(pairs) > MAX_PAIRS:
            weakest = np.partition(strength, len(pairs) - MAX_PAIRS)[len(pairs) - MAX_PAIRS]
            candidates = np.flatnonzero(strength >= weakest)
        else:
            candidates = np.arange(len(pairs))
        candidates = candidates[strength[candidates] > 0]
        strongest = candidates[np.argsort(-strength[candidates], kind="stable")][:MAX_PAIRS]
        kept.append(
            (
                np.full(len(strongest), unit, np.int32),
                pairs[strongest],
                counts[strongest],
                _narrow(sums[strongest]),
            )
        )
    if not kept:
        nothing = np.zeros(0, np.int32)
        return Statistics(nothing, nothing, nothing, np.zeros((0, 3), np.int32), np.zeros((0, 5), np.float32))
    pairs = np.concatenate([rows[1] for rows in kept])
    return Statistics(
        np.concatenate([rows[0] for rows in kept]),
        (pairs // n_vocabulary).astype(np.int32),
        (pairs % n_vocabulary).astype(np.int32),
        np.concatenate([rows[2] for rows in kept]),
        np.concatenate([rows[3] for rows in kept]),
    )
