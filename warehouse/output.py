"""Frames on stdout: tables for people, JSON, CSV and Parquet for machines."""

from __future__ import annotations

import sys
from enum import StrEnum

import polars as pl
from rich.console import Console

from warehouse.drawing import printable as printable  # the fronts take both from here
from warehouse.drawing import render as render
from warehouse.errors import WarehouseError

_PIPE_WIDTH = 200


class Format(StrEnum):
    """How a command prints what it found."""

    table = "table"
    json = "json"
    csv = "csv"
    parquet = "parquet"


def console(width: int = _PIPE_WIDTH) -> Console:
    """Give a console for stdout; one that is not a terminal has the width that is asked for."""
    found = Console()
    return found if found.is_terminal else Console(width=width)


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
        rows = render(frame, title)
        console(max(rows.width, _PIPE_WIDTH)).print(rows)


def _nested_as_json(frame: pl.DataFrame, names: list[str]) -> list[pl.Series]:
    return [
        pl.Series(name, [pl.DataFrame({"v": [value]}).write_json()[6:-2] for value in frame[name].to_list()])
        for name in names
    ]
