"""The layout of token-pair activations: a lower triangle of queries by keys, flattened row by row."""

from __future__ import annotations

import math

import numpy as np

from warehouse.records import IntArray


def n_keys(n_tokens: int, n_values: int) -> int:
    """Find how many tokens at most a record's tokens attend to.

    Row i of the triangle has min(i + 1, m) values, so n_tokens rows miss a smaller triangle of n_tokens - m rows.

    Args:
        n_tokens: tokens in the record, one row each.
        n_values: flattened activations of the record.

    Returns:
        m: n_tokens for a whole triangle, less for a trapezium, 0 for an empty record.

    Raises:
        ValueError: no triangle or trapezium of n_tokens rows has n_values values.

    Source: TDB neuron_explainer/activations/attention_utils.py
    """
    whole = n_tokens * (n_tokens + 1) // 2
    missing = whole - n_values
    if n_tokens == n_values == 0:
        return 0
    if n_tokens > 0 and 0 <= missing < whole:
        missing_rows = (math.isqrt(8 * missing + 1) - 1) // 2
        if missing_rows * (missing_rows + 1) // 2 == missing:
            return n_tokens - missing_rows
    raise ValueError(
        f"{n_values} values for {n_tokens} tokens: a triangle of pairs has {whole}, and no trapezium fits either"
    )


def unflatten_pairs(n_tokens: int, n_values: int) -> tuple[IntArray, IntArray]:
    """Give each value of a flattened lower triangle its query and key position.

    Args:
        n_tokens: tokens in the record, which bounds both positions.
        n_values: flattened activations of the record, row by row, queries outermost.

    Returns:
        Two [n_values] int32 arrays: query positions (the attending, later token) and key positions.

    Raises:
        ValueError: no triangle or trapezium of n_tokens rows has n_values values.

    Source: TDB neuron_explainer/activations/attention_utils.py
    """
    row_lengths = np.minimum(np.arange(1, n_tokens + 1, dtype=np.int32), n_keys(n_tokens, n_values))
    row_starts = np.cumsum(row_lengths, dtype=np.int32) - row_lengths
    query_position = np.repeat(np.arange(n_tokens, dtype=np.int32), row_lengths)
    key_position = np.arange(n_values, dtype=np.int32) - np.repeat(row_starts, row_lengths)
    return query_position, key_position
