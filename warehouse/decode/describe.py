"""Words for what was found in a file: on one line, printable, and short whatever the file holds."""

from __future__ import annotations

from warehouse.decode.inert import Tensor, as_mapping

_QUOTED = 40
_LONGEST_QUOTE = 60
_KEYS = 8
_LONGEST_INT = 64


def quote(text: str | bytes) -> str:
    """Quote the beginning of a text of the file, with everything unprintable escaped."""
    quoted = repr(text[:_QUOTED]).removeprefix("b")
    is_cut = len(text) > _QUOTED or len(quoted) > _LONGEST_QUOTE
    return f"{quoted[:_LONGEST_QUOTE]}…" if is_cut else quoted


def one_line(message: object) -> str:
    """Make the message of a foreign error short and printable."""
    return "".join(c if c.isprintable() else " " for c in str(message)[:200])


def describe(value: object) -> str:
    """Say what a value is: its type, and its keys and shape so far as a person needs them to add a layout."""
    if (fields := as_mapping(value)) is not None:
        named = [f"{quote(key)} ({_describe_member(fields[key])})" for key in list(fields)[:_KEYS]]
        more = [f"{len(fields) - _KEYS} more"] if len(fields) > _KEYS else []
        return f"a mapping of {', '.join(named + more)}" if named else "an empty mapping"
    if isinstance(value, (list, tuple)) and value:
        return f"{_describe_member(value)}, the first {_describe_first(value[0])}"
    return _describe_member(value)


def _describe_first(value: object) -> str:
    fields = as_mapping(value)
    return _describe_member(value) if fields is None else f"with keys {', '.join(map(quote, list(fields)[:_KEYS]))}"


def _describe_member(value: object) -> str:
    """Describe a value without looking into it: this is what keeps a description of any graph short."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() if value.bit_length() > _LONGEST_INT:
            return f"an integer of {value.bit_length()} bits"
        case int() | float():
            return f"{value}"
        case str() | bytes():
            return quote(value)
        case list() | tuple():
            return f"list of {len(value)}"
        case Tensor():
            return f"{value.dtype} tensor [{', '.join(map(_describe_member, value.size))}]"
        case _ if (fields := as_mapping(value)) is not None:
            return f"mapping of {len(fields)}"
        case _:
            return type(value).__name__
