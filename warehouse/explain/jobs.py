"""The jobs of any number of units, a batch of units in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from warehouse.explain.contrast import ContrastFinder, is_active, make_example
from warehouse.explain.examples import (
    ACTIVE_PART,
    CONTRAST_SPLITS,
    CONTRASTS,
    SAMPLERS,
    SPLITS,
    Example,
    Job,
    SplitName,
    SplitOptions,
    Unfit,
)
from warehouse.explain.samplers import sample
from warehouse.explain.splits import UnfitUnit
from warehouse.explain.units import UnitRecords, Units, iterate_units, select_units
from warehouse.reader import LakeReader
from warehouse.records import UnitId

__all__ = [
    "ACTIVE_PART",
    "CONTRASTS",
    "CONTRAST_SPLITS",
    "SAMPLERS",
    "SPLITS",
    "Example",
    "Job",
    "SplitOptions",
    "Unfit",
    "UnfitUnit",
    "Units",
    "is_active",
    "iterate_jobs",
    "make_job",
    "select_units",
]

_BATCH = 64
"""Units whose contrasting examples are read together."""


def iterate_jobs(reader: LakeReader, unit_ids: Sequence[UnitId], how: SplitOptions) -> Iterator[Job | Unfit]:
    """Make the jobs of units, or say why there is none.

    Args:
        reader: of the lake.
        unit_ids: which, in any order that keeps the units of a layer together, as `select_units` gives them.
        how: which records are for which split.

    Yields:
        One for each unit that the lake holds, in the order asked for.
    """
    finder = ContrastFinder(reader, how)
    units = iterate_units(reader, unit_ids)
    while batch := list(islice(units, _BATCH)):
        finder.prepare(batch)
        for unit in batch:
            try:
                yield make_job(unit, how, finder)
            except UnfitUnit as e:
                yield Unfit(unit.unit_id, str(e))


def make_job(unit: UnitRecords, how: SplitOptions, finder: ContrastFinder) -> Job:
    """Make the job of a unit.

    Args:
        unit: which.
        how: which of its records are for which split.
        finder: of contrasting examples, prepared for the unit.

    Raises:
        UnfitUnit: it has too few records, is not active in those to train on, or has too few contrasting examples.
    """
    chosen = sample(unit, how)
    max_activation = max(map(unit.largest, chosen["train"]))
    if max_activation <= 0:
        raise UnfitUnit(f"is not active in its train records: their largest activation is {max_activation:g}")
    splits: dict[SplitName, tuple[Example, ...]] = {
        split: tuple(make_example(unit, i, tuple(unit.tokens(i)), unit.activations[i], max_activation) for i in indices)
        for split, indices in chosen.items()
    }
    splits |= dict.fromkeys(CONTRAST_SPLITS, ())
    if how.contrast != "none":
        splits |= finder.find(unit, [i for indices in chosen.values() for i in indices], max_activation)
    return Job(unit.unit_id, unit.dataset.kind, unit.dataset.per, max_activation, splits)
