"""Parsing of JSON numbers in raw text, right to the last bit of a float32, or not at all."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from warehouse.decode.machine import bits_of, count_trailing_zeros, inlined, load_8

INVALID = -1
"""What `parse_float` gives instead of a place: no JSON number, or one that needs more care than this takes."""

_POWERS = np.array([float(f"1e{k}") for k in range(61)])
_MAX_POWER = 60
_EXACT_POWER = 22
_EXACT_MANTISSA = np.uint64(2**53)
_MAX_DIGITS = 18
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_FLOAT32_MIN = float(np.finfo(np.float32).tiny)
_HALF_ULP = np.int64(2**28)
_ULP_MASK = np.int64(2**29 - 1)
_DOUBT = 64

_EVERY_ZERO = np.uint64(0x3030303030303030)
_EVERY_118 = np.uint64(0x7676767676767676)
_EVERY_128 = np.uint64(0x8080808080808080)
_LOW_6 = np.uint64(0x0000FFFFFFFFFFFF)

_PLUS, _MINUS, _DOT, _ZERO, _UPPER_E, _LOWER_E = 43, 45, 46, 48, 69, 101


@inlined
def _is_digit(byte: int) -> Any:
    return np.uint8(byte - np.uint8(_ZERO)) <= np.uint8(9)


@inlined
def _cut_mantissa(data: NDArray[np.uint8], start: int, end: int) -> tuple[Any, int]:
    """Give the first significant digits of a long number as an integer, and how many digits follow them."""
    mantissa = np.uint64(0)
    n_taken = 0
    n_dropped = 0
    for k in range(start, end):
        if data[k] == _DOT:
            continue
        if n_taken < _MAX_DIGITS:
            mantissa = mantissa * np.uint64(10) + np.uint64(data[k] - np.uint8(_ZERO))
            if mantissa != 0:
                n_taken += 1
        else:
            n_dropped += 1
    return mantissa, n_dropped


@inlined
def _parse_short(data: NDArray[np.uint8], i: int) -> tuple[int, Any]:
    """Parse a number of one digit, a point and one to five digits, as published values are; place 0 if it is not such.

    Eight bytes are looked at together: the digits after the point are moved to the end of the word, and three
    multiplications put them together.
    """
    word: Any = load_8(data, i)  # type: ignore[call-arg]
    if (word >> np.uint64(8)) & np.uint64(0xFF) != _DOT or not _is_digit(data[i]):
        return 0, 0.0
    fraction = word >> np.uint64(16)
    digits = fraction ^ _EVERY_ZERO
    others = ((digits + _EVERY_118) | digits) & _EVERY_128 & _LOW_6
    if others == 0:
        return 0, 0.0
    n_bits = count_trailing_zeros(others) & np.uint64(0x78)
    if n_bits == 0:
        return 0, 0.0
    digits = (digits << np.uint64(8)) << (np.uint64(56) - n_bits)
    digits = (digits * np.uint64(10) + (digits >> np.uint64(8))) & np.uint64(0x00FF00FF00FF00FF)
    digits = (digits * np.uint64(100) + (digits >> np.uint64(16))) & np.uint64(0x0000FFFF0000FFFF)
    digits = (digits * np.uint64(10000) + (digits >> np.uint64(32))) & np.uint64(0xFFFFFFFF)
    power = _POWERS[n_bits >> np.uint64(3)]
    value = (np.float64(data[i] - np.uint8(_ZERO)) * power + np.float64(digits)) / power
    return i + 2 + np.int64(n_bits >> np.uint64(3)), value


@inlined
def parse_float(data: NDArray[np.uint8], i: int) -> tuple[int, Any]:
    """Parse the JSON number at a place.

    A decimal of at most 2**53 and a power of ten of at most 10**22 are both exact in float64, so one operation rounds
    right. Any other number carries an error of a few units in float64's last place, which a float32 does not see
    unless it lies between two of them: then the number is left to others.

    Args:
        data: text, ended by a byte that is no part of a number, with 8 bytes to spare.
        i: where the number begins.

    Returns:
        The place after the number, or INVALID; and the value, which float32 holds without overflow or underflow.
    """
    is_negative = data[i] == _MINUS
    if is_negative:
        i += 1
    end, value = _parse_short(data, i)
    if end and data[end] != _LOWER_E and data[end] != _UPPER_E:
        return end, -value if is_negative else value
    mantissa: Any = np.uint64(0)
    start = i
    while _is_digit(data[i]):
        mantissa = mantissa * np.uint64(10) + np.uint64(data[i] - np.uint8(_ZERO))
        i += 1
    if i == start or (data[start] == _ZERO and i > start + 1):
        return INVALID, 0.0
    n_digits = i - start
    exponent = 0
    if data[i] == _DOT:
        i += 1
        fraction = i
        while _is_digit(data[i]):
            mantissa = mantissa * np.uint64(10) + np.uint64(data[i] - np.uint8(_ZERO))
            i += 1
        if i == fraction:
            return INVALID, 0.0
        exponent = fraction - i
        n_digits -= exponent
    n_dropped = 0
    if n_digits > _MAX_DIGITS:
        mantissa, n_dropped = _cut_mantissa(data, start, i)
        exponent += n_dropped
    if data[i] == _LOWER_E or data[i] == _UPPER_E:
        i += 1
        is_small = data[i] == _MINUS
        if is_small or data[i] == _PLUS:
            i += 1
        start = i
        power: Any = 0
        while _is_digit(data[i]):
            power = min(power * 10 + np.int64(data[i] - np.uint8(_ZERO)), 10_000)
            i += 1
        if i == start:
            return INVALID, 0.0
        exponent += -power if is_small else power
    if mantissa == 0:
        return INVALID if n_dropped else i, -0.0 if is_negative else 0.0
    if abs(exponent) > _MAX_POWER:
        return INVALID, 0.0
    value = np.float64(mantissa)
    value = value / _POWERS[-exponent] if exponent < 0 else value * _POWERS[exponent]
    if value > _FLOAT32_MAX or value < _FLOAT32_MIN:
        return INVALID, 0.0
    if n_dropped or mantissa > _EXACT_MANTISSA or abs(exponent) > _EXACT_POWER:
        bits: Any = bits_of(value)  # type: ignore[call-arg]
        if abs((bits & _ULP_MASK) - _HALF_ULP) <= _DOUBT:
            return INVALID, 0.0
    return i, -value if is_negative else value
