"""Answers in the terminal."""

from __future__ import annotations

from rich.console import Console

from warehouse.reader import LakeReader


def show_unit(reader: LakeReader, unit_id: str, k: int, console: Console) -> None:
    """Print one unit: what it is, its figures, its top tokens or pairs, and the first records of each section.

    Raises:
        UnknownUnit: it is not in the lake.
    """
    console.print(reader.show(unit_id, k))
