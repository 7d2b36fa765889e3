"""Interning of tokens in raw JSON text: each distinct one gets a number, at a few nanoseconds an occurrence.

Tokens are compared as they stand in the file, escapes and all: the few distinct ones are unescaped later, once.
Nearly all tokens are shorter than 16 bytes, so a slot of the hash table holds them whole, and one look decides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

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
_LOW_HALF = np.uint64(0xFFFFFFFF)

_jit = njit(cache=True, nogil=True)


class Vocabulary:
    """Interns tokens of raw JSON text: a hash table over an arena of the distinct tokens' bytes.

    Attributes:
        table: [n_slots, 3] a token's first 8 bytes as a little-endian integer; its next 8, or a mix of all later ones
            where there are more; its id and length, as (id + 1) << 32 | length, 0 where the slot is free.
        arena: the distinct tokens' bytes, each followed by a newline, which no JSON string holds.
        starts: [n_ids] offset of each token in the arena.
        used: [2] number of ids, and bytes used in the arena.
    """

    def __init__(self, n_slots: int = 1 << 15, n_bytes: int = 1 << 19) -> None:
        self.table = np.zeros((n_slots, 3), np.uint64)
        self.arena = np.zeros(n_bytes, np.uint8)
        self.starts = np.zeros(n_slots // 2, np.int64)
        self.used = np.zeros(2, np.int64)

    def __len__(self) -> int:
        return int(self.used[0])

    def grow(self) -> None:
        """Double the table and the arena."""
        table = np.zeros((2 * len(self.table), 3), np.uint64)
        _rehash(self.table, table)
        self.table = table
        self.arena = np.concatenate([self.arena, np.zeros_like(self.arena)])
        self.starts = np.concatenate([self.starts, np.zeros_like(self.starts)])

    def raw_bytes(self, first: int = 0) -> bytes:
        """Give the interned tokens from id `first` on, each followed by a newline."""
        if first >= len(self):
            return b""
        return self.arena[self.starts[first] : self.used[1]].tobytes()


@intrinsic  # type: ignore[untyped-decorator]
def _load_8(_: Any, data: Any, i: Any) -> Any:
    """Load 8 bytes at any place of a uint8 array, as a little-endian integer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(64).as_pointer())
        load = builder.load(pointer)
        load.align = 1
        return load

    return types.uint64(data, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def _count_trailing_zeros(_: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


@_jit
def _hash(low: int, high: int, length: int) -> int:
    mixed = (low ^ (high * np.uint64(0xC2B2AE3D27D4EB4F)) ^ np.uint64(length)) * np.uint64(0x9E3779B97F4A7C15)
    return mixed ^ (mixed >> np.uint64(32))


@_jit
def _rehash(table: NDArray[np.uint64], larger: NDArray[np.uint64]) -> None:
    mask = np.uint64(len(larger) - 1)
    for old in range(len(table)):
        if table[old, 2] != 0:
            slot = _hash(table[old, 0], table[old, 1], table[old, 2] & _LOW_HALF) & mask
            while larger[slot, 2] != 0:
                slot = (slot + np.uint64(1)) & mask
            larger[slot] = table[old]


@_jit
def intern(
    data: NDArray[np.uint8],
    start: int,
    table: NDArray[np.uint64],
    arena: NDArray[np.uint8],
    starts: NDArray[np.int64],
    used: NDArray[np.int64],
) -> tuple[int, int]:
    """Intern the string that begins at `start`, after its quote; give its id and the place after its closing quote."""
    low = _load_8(data, start)
    quotes = low ^ _EVERY_QUOTE
    escapes = low ^ _EVERY_BACKSLASH
    ends = (quotes - _EVERY_1) & ~quotes
    ends |= (escapes - _EVERY_1) & ~escapes
    ends |= (low - _EVERY_SPACE) & ~low
    ends &= _EVERY_128
    i = start + 8
    if ends != 0:
        i = start + np.int64(_count_trailing_zeros(ends) >> np.uint64(3))
    high = np.uint64(0)
    if ends == 0 or data[i] != _QUOTE:  # longer than 7 bytes, or with an escape
        while data[i] != _QUOTE:
            if data[i] < _SPACE:
                return INVALID, i
            if data[i] == _BACKSLASH:
                i += 1
                if data[i] < _SPACE:
                    return INVALID, i
            i += 1
        if i - start > 16:
            if i - start > _MAX_TOKEN_BYTES:
                return INVALID, i
            for k in range(start + 8, i):
                high = (high ^ np.uint64(data[k])) * np.uint64(0x100000001B3)
        elif i - start > 8:
            high = _load_8(data, i - 8) >> np.uint64(8 * (16 - (i - start)))
    length = i - start
    if length < 8:
        low &= (np.uint64(1) << np.uint64(8 * length)) - np.uint64(1)
    mask = np.uint64(len(table) - 1)
    slot = _hash(low, high, length) & mask
    while table[slot, 2] != 0:
        if table[slot, 0] == low and table[slot, 1] == high and table[slot, 2] & _LOW_HALF == length:
            token = np.int64(table[slot, 2] >> np.uint64(32)) - 1
            is_same = True
            if length > 16:
                at = starts[token]
                for k in range(8, length):
                    if arena[at + k] != data[start + k]:
                        is_same = False
                        break
            if is_same:
                return token, i + 1
        slot = (slot + np.uint64(1)) & mask
    token = used[0]
    at = used[1]
    if token >= len(starts) or at + length + 1 > len(arena):
        return FULL, i
    table[slot, 0] = low
    table[slot, 1] = high
    table[slot, 2] = (np.uint64(token + 1) << np.uint64(32)) | np.uint64(length)
    starts[token] = at
    arena[at : at + length] = data[start:i]
    arena[at + length] = _NEWLINE
    used[0] = token + 1
    used[1] = at + length + 1
    return token, i + 1
