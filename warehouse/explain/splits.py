"""OpenAI's splits of a unit's records: strided slices of the ordered list of top records and of the random sample."""

from __future__ import annotations

from warehouse.errors import WarehouseError
from warehouse.explain.examples import SPLITS, SplitName

TOP_STRIDE = 4
RANDOM_STRIDE = 3


class UnfitUnit(WarehouseError):
    """A unit cannot be explained as was asked; the message says what it needs and what it has."""


def slice_list(n_records: int, stride: int, n: int | None) -> list[range]:
    """Deal an ordered list out to as many splits as the stride, each as strong as the others.

    Args:
        n_records: length of the list.
        stride: number of splits.
        n: records of a split; as many as there are by default, so that a remainder is in none.

    Returns:
        For each split the places in the list that it takes.

    Source: TDB neuron_explainer/activations/activations.py:46-130
    """
    end = stride * (n_records // stride if n is None else n)
    return [range(split, end, stride) for split in range(stride)]


def slice_openai(n_top: int, n_random: int, n: int | None) -> dict[SplitName, tuple[range, range]]:
    """Give the top and the random records of each split: train has top records alone, the others as many of both.

    Args:
        n_top: top records of the unit.
        n_random: records of its random sample.
        n: records of a split from each list; as many as there are by default.

    Returns:
        For each split the ranks of its top and of its random records.

    Raises:
        UnfitUnit: not one record of a list for each split, or fewer than n.

    Source: TDB neuron_explainer/activations/activations.py:132-220
    """
    needed_top, needed_random = TOP_STRIDE * (n or 1), RANDOM_STRIDE * (n or 1)
    if n_top < needed_top or n_random < needed_random:
        raise UnfitUnit(f"needs {needed_top} top records and {needed_random} random ones, has {n_top} and {n_random}")
    top = slice_list(n_top, TOP_STRIDE, n)
    random = [range(0), *slice_list(n_random, RANDOM_STRIDE, n)]
    return dict(zip(SPLITS, zip(top, random, strict=True), strict=True))
