"""JSON, read by orjson, and by the standard library what only that reads: bare NaN, and lone surrogate escapes."""

from __future__ import annotations

import json
import re

import numpy as np
import orjson
from numpy.typing import NDArray

from warehouse.decode.container import BYTE_ORDER_MARK
from warehouse.decode.describe import one_line
from warehouse.decode.machine import cached
from warehouse.errors import MalformedFile
from warehouse.records import Limits

_LENIENT = re.compile(rb"NaN|Infinity|\\u[dD][89a-fA-F]")
_QUOTE, _BACKSLASH, _COMMA = ord('"'), ord("\\"), ord(",")
_OPEN_LIST, _CLOSE_LIST, _OPEN_MAP, _CLOSE_MAP = map(ord, "[]{}")
_ALWAYS = 10_000  # containers that cost nothing, whatever the limits are


def load_json(data: bytes, limits: Limits) -> object:
    """Read a JSON text.

    Args:
        data: UTF-8, with or without a byte order mark.
        limits: bounds its nesting, and how many values it has.

    Returns:
        Dicts (of equal keys the last one counts), lists, strings, ints, floats, booleans and None. Strings may hold
        lone surrogates, floats may be NaN or infinite.

    Raises:
        MalformedFile: not JSON, not UTF-8, truncated, or beyond the limits.
    """
    depth, n_containers, n_commas = _measure(np.frombuffer(data, np.uint8))
    if depth > limits.nesting:
        raise MalformedFile(f"JSON nested {depth} deep, beyond {limits.nesting}")
    most_containers = _ALWAYS + 8 * limits.unit_records
    if n_containers > most_containers or n_commas > most_containers + 2 * limits.unit_values:
        raise MalformedFile(f"JSON of {n_containers} lists and mappings and {n_commas} commas, which no unit has")
    data = data.removeprefix(BYTE_ORDER_MARK)
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as e:
        if not _LENIENT.search(data):
            raise MalformedFile(f"broken JSON: {one_line(e)}") from e
    try:
        return json.loads(data.decode("utf-8"))
    except ValueError as e:
        raise MalformedFile(f"broken JSON: {one_line(e)}") from e


@cached
def _measure(text: NDArray[np.uint8]) -> tuple[int, int, int]:
    """Count how deep a JSON text is nested, its containers, and its commas outside strings."""
    depth = deepest = n_containers = n_commas = 0
    in_string = False
    at = 0
    while at < len(text):
        byte = text[at]
        if in_string:
            if byte == _BACKSLASH:
                at += 1
            elif byte == _QUOTE:
                in_string = False
        elif byte == _QUOTE:
            in_string = True
        elif byte == _COMMA:
            n_commas += 1
        elif byte in (_OPEN_LIST, _OPEN_MAP):
            n_containers += 1
            depth += 1
            deepest = max(deepest, depth)
        elif byte in (_CLOSE_LIST, _CLOSE_MAP):
            depth -= 1
        at += 1
    return deepest, n_containers, n_commas
