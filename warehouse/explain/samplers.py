"""Which of a unit's records are for which split: OpenAI's slices, and samplers of which none shows a text twice.

Every sampler but OpenAI's puts records in an order and deals them out in fours, one each to train, calibration, valid
and test: so the splits are alike, and disjoint by text. A remainder of fewer than four is in no split.

`top` deals the top records in their order. `random` deals the random sample, drawn: the only one without bias to
strong records. `quantile` takes fours from the quantile buckets in turn, strongest bucket first; `stratified` takes
them in turn from tenths (n-ths, where n is less) of the range from 0 to the unit's largest activation, over the
records of all sections; a part of the range with fewer than four texts is joined with the next weaker one.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence

from warehouse.explain.examples import SPLITS, SplitName, SplitOptions
from warehouse.explain.splits import UnfitUnit, slice_list, slice_openai
from warehouse.explain.units import UnitRecords
from warehouse.records import UnitId

_N_STRATA = 10
_FOUR = len(SPLITS)


def sample(unit: UnitRecords, how: SplitOptions) -> dict[SplitName, list[int]]:
    """Choose the records of each split.

    Returns:
        For train, calibration, valid and test the indices of their records, never none.

    Raises:
        UnfitUnit: the unit has too few records.
    """
    if how.n is not None and how.n < 1:
        raise UnfitUnit(f"n is {how.n}: a split needs at least 1 record")
    draw = seeded(how.seed, "splits", unit.unit_id)
    match how.sampler:
        case "openai":
            return _sample_openai(unit, how.n)
        case "top":
            order = unit.first_of_each_text(_indices(unit, "top"))
        case "random":
            order = _shuffled(draw, unit.first_of_each_text(_indices(unit, "random")))
        case "quantile":
            order = _take_in_turn(draw, _buckets(unit))
        case "stratified":
            order = _take_in_turn(draw, _strata(unit, min(how.n or _N_STRATA, _N_STRATA)))
    needed = _FOUR * (how.n or 1)
    if len(order) < needed:
        among = " (fours of one bucket)" if how.sampler == "quantile" else ""
        raise UnfitUnit(f"needs {needed} texts for the sampler {how.sampler}{among}, has {len(order)}")
    dealt = slice_list(len(order), _FOUR, how.n)
    return {split: [order[i] for i in places] for split, places in zip(SPLITS, dealt, strict=True)}


def seeded(seed: int, purpose: str, unit_id: UnitId | str) -> random.Random:
    """Give a generator that depends on nothing but these, so that a unit's draws are those of no other's."""
    return random.Random(hashlib.sha256(f"{seed} {purpose} {unit_id}".encode()).digest())


def _sample_openai(unit: UnitRecords, n: int | None) -> dict[SplitName, list[int]]:
    top, drawn = _indices(unit, "top"), _indices(unit, "random")
    slices = slice_openai(len(top), len(drawn), n)
    return {split: [top[i] for i in tops] + [drawn[i] for i in randoms] for split, (tops, randoms) in slices.items()}


def _indices(unit: UnitRecords, section: str) -> list[int]:
    return [i for i, of in enumerate(unit.sections) if of == section]


def _shuffled(draw: random.Random, indices: Sequence[int]) -> list[int]:
    return draw.sample(indices, len(indices))


def _buckets(unit: UnitRecords) -> list[list[int]]:
    buckets: dict[int, list[int]] = {}
    for i in unit.first_of_each_text(_indices(unit, "quantile")):
        buckets.setdefault(unit.quantiles[i] or 0, []).append(i)
    return [buckets[quantile] for quantile in sorted(buckets, reverse=True)]


def _strata(unit: UnitRecords, n_strata: int) -> list[list[int]]:
    largest = {i: unit.largest(i) for i in unit.first_of_each_text(range(len(unit)))}
    scale = max(largest.values(), default=0.0)
    parts: list[list[int]] = [[] for _ in range(n_strata)]
    for i, value in largest.items():
        parts[min(int(n_strata * value / scale), n_strata - 1) if value > 0 else 0].append(i)
    strata: list[list[int]] = [[]]
    for part in reversed(parts):
        if len(strata[-1]) >= _FOUR:
            strata.append([])
        strata[-1] += part
    return strata


def _take_in_turn(draw: random.Random, groups: Iterable[Sequence[int]]) -> list[int]:
    """Order the indices of groups: four drawn from each in turn, while it has four."""
    waiting = [_shuffled(draw, group) for group in groups]
    order: list[int] = []
    while waiting := [group for group in waiting if len(group) >= _FOUR]:
        for group in waiting:
            order += group[:_FOUR]
            del group[:_FOUR]
    return order
