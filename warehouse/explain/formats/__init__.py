"""The forms in which units are exported; each module of this package writes one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from warehouse.explain.examples import SplitOptions, Unfit
from warehouse.reader import LakeReader
from warehouse.records import UnitId

FormatName: TypeAlias = Literal["openai", "delphi", "neuronpedia", "jsonl"]
FORMATS: tuple[FormatName, ...] = get_args(FormatName)


@dataclass(frozen=True, slots=True)
class OutputShard:
    """A run of units of one layer whose files are put in place together.

    Attributes:
        number: its place in the export, from 0.
        number_in_layer: its place among those of its layer, from 0.
        units: whose jobs it holds, in order.
    """

    number: int
    number_in_layer: int
    units: Sequence[UnitId]


@dataclass(frozen=True, slots=True)
class FormatOptions:
    """What a form may be asked for.

    Attributes:
        splits: how jsonl chooses examples; the other forms give every record of a unit.
        floor: part of a unit's largest activation below which a position counts as inactive, 0 to 1: for delphi and
            neuronpedia, to which an activation is on or off.
    """

    splits: SplitOptions = SplitOptions()
    floor: float = 0.0


@dataclass(slots=True)
class Written:
    """What came of a shard.

    Attributes:
        n_units: units that were written.
        unfit: units that were not, and why.
        counts: what else was counted, by what it is.
    """

    n_units: int = 0
    unfit: list[Unfit] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


WriteShard: TypeAlias = Callable[[LakeReader, OutputShard, FormatOptions, Path], Written]
"""Writes the files of a shard below a folder that stands for the export's."""


def make_parent(path: Path) -> Path:
    """Make the folder of a file that is to be written, and give the file's path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
