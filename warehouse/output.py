"""Frames on stdout: tables for people, JSON, CSV and Parquet for machines."""

from __future__ import annotations

import sys
import unicodedata
from enum import StrEnum

import polars as pl
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from warehouse.errors import WarehouseError

_SIGNS = {"\n": "↵", "\t": "⇥", "\r": "␍", "\0": "␀"}
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_MAX_CELL = 200
_PIPE_WIDTH = 200
_PROSE = {"notes", "error", "holds", "comment", "sql"}


class Format(StrEnum):
    """How a command prints what it found."""

    table = "table"
    json = "json"
    csv = "csv"
    parquet = "parquet"


def printable(text: str) -> str:
    """Make any text safe for a terminal: controls, bidi marks and other unseen characters become signs or escapes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_SIGNS.get(c) or (f"\\u{ord(c):04x}" if unicodedata.category(c) in _HIDDEN else c) for c in text)


def console() -> Console:
    """Give a console for stdout; one that is not a terminal is wide enough for any table."""
    found = Console()
    return found if found.is_terminal else Console(width=_PIPE_WIDTH)


def emit(frame: pl.DataFrame, form: Format, title: str = "") -> None:
    """Print a frame on stdout.

    Raises:
        WarehouseError: Parquet was asked for and stdout is a terminal, or a column's type cannot be printed so.
    """
    try:
        _emit(frame, form, title)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, TypeError, ValueError, OverflowError) as e:
        types = ", ".join(f"{name} {kind}" for name, kind in frame.schema.items())
        raise WarehouseError(f"cannot print these columns as {form}, cast the odd one to VARCHAR: {types}") from e


def _emit(frame: pl.DataFrame, form: Format, title: str) -> None:
    if form is Format.json:
        sys.stdout.write(frame.write_json() + "\n")
    elif form is Format.csv:
        flat = [name for name, kind in frame.schema.items() if kind.is_nested()]
        sys.stdout.write(frame.with_columns(_nested_as_json(frame, flat)).write_csv())
    elif form is Format.parquet:
        if sys.stdout.isatty():
            raise WarehouseError("Parquet is binary: send it to a file, as --format parquet > rows.parquet")
        frame.write_parquet(sys.stdout.buffer)
    else:
        console().print(render(frame, title))


def render(frame: pl.DataFrame, title: str = "") -> Table:
    """Draw a frame as a table for people: numbers to the right, tokens with a sign for what cannot be seen.

    A unit_id stands for the columns that it is made of.
    """
    if "unit_id" in frame.columns:
        frame = frame.drop("model", "component", "layer", "unit", strict=False)
    table = Table(title=title or None, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, kind in frame.schema.items():
        is_prose = kind.is_nested() or name in _PROSE
        table.add_column(name, justify="right" if kind.is_numeric() else "left", overflow="fold", no_wrap=not is_prose)
    for row in frame.iter_rows():
        table.add_row(*(_cell(value, name) for value, name in zip(row, frame.columns, strict=True)))
    return table


def _nested_as_json(frame: pl.DataFrame, names: list[str]) -> list[pl.Series]:
    return [
        pl.Series(name, [pl.DataFrame({"v": [value]}).write_json()[6:-2] for value in frame[name].to_list()])
        for name in names
    ]


def _cell(value: object, name: str) -> Text:
    if value is None:
        return Text("-", style="dim")
    if isinstance(value, float):
        return Text(f"{value:,.4g}" if abs(value) < 1e6 else f"{value:.4g}")
    if isinstance(value, int) and not isinstance(value, bool):
        return Text(f"{value:,}" if name not in ("layer", "unit") else str(value))
    text = printable(value if isinstance(value, str) else str(value))
    if "token" in name and isinstance(value, str):
        text = f"'{text}'"
    return Text(text if len(text) <= _MAX_CELL else text[: _MAX_CELL - 1] + "…")
