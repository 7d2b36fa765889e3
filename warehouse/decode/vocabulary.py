"""Interning of tokens in raw JSON text: each distinct one gets a number, at a few nanoseconds an occurrence.

Tokens are compared as they stand in the file, escapes and all: the few distinct ones are unescaped later, once. Most
are shorter than 8 bytes, so a slot of the hash table holds them whole, and one look decides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from warehouse.decode.machine import cached, count_trailing_zeros, inlined, load_8
from warehouse.records import LIMITS

INVALID, FULL = -1, -2
"""What `intern` gives instead of a token's number: no JSON string; no room (grow the vocabulary and come again)."""

_MAX_TOKEN_BYTES = LIMITS.token_bytes
_SPACE, _QUOTE, _BACKSLASH, _NEWLINE = 32, 34, 92, 10
_EVERY_1 = np.uint64(0x0101010101010101)
_EVERY_SPACE = np.uint64(0x2020202020202020)
_EVERY_QUOTE = np.uint64(0x2222222222222222)
_EVERY_BACKSLASH = np.uint64(0x5C5C5C5C5C5C5C5C)
_EVERY_128 = np.uint64(0x8080808080808080)
_LOWER_HALF = np.uint64(0xFFFFFFFF)
_UPPER_HALF = np.uint64(0xFFFFFFFF << 32)
_LONG = np.uint64(0xFF << 56)


class Vocabulary:
    """Interns tokens of raw JSON text: a hash table over an arena of the distinct tokens' bytes.

    Attributes:
        table: [n_slots] half of a key's hash and the token's number + 1, or 0 where the slot is free. Eight bytes a
            slot and nothing else, so that the table stays in a core's own cache.
        keys: [n_tokens] of a token of up to 7 bytes, those bytes and its length: equal keys are equal tokens; of a
            longer one, a hash. Tokens that come early are frequent, so the part in use is small.
        arena: the distinct tokens' bytes, each followed by a newline, which no JSON string holds.
        starts: [n_tokens] offset of each token in the arena.
        used: [2] number of tokens, and bytes used in the arena.
    """

    def __init__(self, n_slots: int = 1 << 16, n_bytes: int = 1 << 19) -> None:
        self.table = np.zeros(n_slots, np.uint64)
        self.keys = np.zeros(n_slots // 2, np.uint64)
        self.arena = np.zeros(n_bytes, np.uint8)
        self.starts = np.zeros(n_slots // 2, np.int64)
        self.used = np.zeros(2, np.int64)

    def __len__(self) -> int:
        return int(self.used[0])

    def grow(self) -> None:
        """Double the table and the arena."""
        self.table = np.zeros(2 * len(self.table), np.uint64)
        _fill(self.table, self.keys[: len(self)])
        self.keys = np.concatenate([self.keys, np.zeros_like(self.keys)])
        self.arena = np.concatenate([self.arena, np.zeros_like(self.arena)])
        self.starts = np.concatenate([self.starts, np.zeros_like(self.starts)])

    def raw_text(self, first: int = 0) -> bytes:
        """Give the interned tokens from number `first` on, each followed by a newline."""
        if first >= len(self):
            return b""
        return self.arena[self.starts[first] : self.used[1]].tobytes()


@inlined
def _hash(key: Any) -> Any:
    mixed = key * np.uint64(0x9E3779B97F4A7C15)
    return mixed ^ (mixed >> np.uint64(32))


@cached
def _fill(table: NDArray[np.uint64], keys: NDArray[np.uint64]) -> None:
    mask = np.uint64(len(table) - 1)
    for token in range(len(keys)):
        mixed = _hash(keys[token])
        slot = mixed & mask
        while table[slot] != 0:
            slot = (slot + np.uint64(1)) & mask
        table[slot] = (mixed & _UPPER_HALF) | np.uint64(token + 1)


@inlined
def end_of_string(data: NDArray[np.uint8], i: int) -> int:
    """Give the place of the quote that ends a string, or INVALID."""
    while data[i] != _QUOTE:
        if data[i] == _BACKSLASH:
            i += 1
        if data[i] < _SPACE:
            return INVALID
        i += 1
    return i


@inlined
def _is_same(data: NDArray[np.uint8], start: int, end: int, arena: NDArray[np.uint8], first: int) -> Any:
    for k in range(end - start):
        if arena[first + k] != data[start + k]:
            return False
    return arena[first + end - start] == _NEWLINE


@inlined
def intern(
    data: NDArray[np.uint8],
    start: int,
    table: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    arena: NDArray[np.uint8],
    starts: NDArray[np.int64],
    used: NDArray[np.int64],
) -> tuple[int, int]:
    """Number the string at a place.

    Args:
        data: text, with 8 bytes to spare after its end.
        start: where the string begins, after its quote.
        table: of a Vocabulary.
        keys: of a Vocabulary.
        arena: of a Vocabulary.
        starts: of a Vocabulary.
        used: of a Vocabulary.

    Returns:
        The token's number, INVALID or FULL; and the place after the closing quote.
    """
    head: Any = load_8(data, start)  # type: ignore[call-arg]
    # The usual way to find a byte in a word: its difference to the wanted one is zero, and only zero borrows.
    quotes = head ^ _EVERY_QUOTE
    escapes = head ^ _EVERY_BACKSLASH
    ends = ((quotes - _EVERY_1) & ~quotes) | ((escapes - _EVERY_1) & ~escapes) | ((head - _EVERY_SPACE) & ~head)
    ends &= _EVERY_128
    end = start + 8
    if ends != 0:
        end = start + np.int64(count_trailing_zeros(ends) >> np.uint64(3))
    if ends == 0 or data[end] != _QUOTE:
        end = end_of_string(data, end)
        if end < 0 or end - start > _MAX_TOKEN_BYTES:
            return INVALID, start
    length = end - start
    is_short = length < 8
    if is_short:
        key = (head & ((np.uint64(1) << np.uint64(8 * length)) - np.uint64(1))) | (np.uint64(length) << np.uint64(56))
    else:
        key = head
        for k in range(start + 8, end):
            key = (key ^ np.uint64(data[k])) * np.uint64(0x9E3779B97F4A7C15)
            key ^= key >> np.uint64(29)
        key |= _LONG
    mixed = _hash(key)
    mask = np.uint64(len(table) - 1)
    slot = mixed & mask
    while table[slot] != 0:
        if (table[slot] ^ mixed) & _UPPER_HALF == 0:
            token = np.int64(table[slot] & _LOWER_HALF) - 1
            if keys[token] == key and (is_short or _is_same(data, start, end, arena, starts[token])):
                return token, end + 1
        slot = (slot + np.uint64(1)) & mask
    token = used[0]
    first = used[1]
    if token >= len(starts) or first + length + 1 > len(arena):
        return FULL, start
    table[slot] = (mixed & _UPPER_HALF) | np.uint64(token + 1)
    keys[token] = key
    starts[token] = first
    for k in range(length):
        arena[first + k] = data[start + k]
    arena[first + length] = _NEWLINE
    used[0] = token + 1
    used[1] = first + length + 1
    return token, end + 1
