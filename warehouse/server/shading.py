"""Records as text shaded by activation: which of a few classes each token has, and where a pair's cell stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from warehouse.pairs import unflatten_pairs
from warehouse.records import FloatArray

LEVELS = 20
"""Steps of shade, each a class of the style sheet: l1 … l20, and n beside it where the activation is negative."""
_POSITIVE = ("", *(f"l{level}" for level in range(1, LEVELS + 1)))
_NEGATIVE = ("", *(f"l{level} n" for level in range(1, LEVELS + 1)))
_MOST_TOKENS = 256
"""Tokens of one record that a page shows, around the strongest."""
_MOST_MAPPED = 96
"""Tokens on each side of a map of pairs."""
_PAIRS_LISTED = 6
_PAIRS_POINTED = 24
"""Cells of a map that show their value when pointed at, beside a list of records; a record's own page has all."""
_PAIRS_TABLED = 5_000
"""Pairs in the table of a record's own page: all of a record of 99 tokens, the strongest of a longer one."""


@dataclass(frozen=True, slots=True)
class PairCell:
    """One cell of a map: its column (key), row (query), class, and both tokens' texts with the value."""

    key: int
    query: int
    shade: str
    value: str


@dataclass(frozen=True, slots=True)
class PairMap:
    """A matrix of queries by keys, from position `first` on, shaded by the square root so that weak pairs are seen.

    Attributes:
        first: position of the first row and column.
        n: rows and columns.
        tokens: [n] texts.
        areas: for each class an SVG path over all of its cells.
        cells: the strongest ones, to point at.
        strongest: the strongest pairs of the whole record, as (query, key, class, value).
        n_active: pairs of the whole record whose activation is not 0.
        table: those, strongest first and up to a bound, with the texts of query and key; empty in a list of records.
    """

    first: int
    n: int
    tokens: list[str]
    areas: list[tuple[str, str]]
    cells: list[PairCell]
    strongest: list[PairCell]
    n_active: int
    table: list[tuple[PairCell, str, str]]


@dataclass(frozen=True, slots=True)
class ShownRecord:
    """One record as a page shows it.

    Attributes:
        section: the list of the file that it is in.
        quantile: its quantile bucket, in section quantile.
        rank: its place in the list, from 0.
        peak: its largest activation.
        argmax: position of the strongest token.
        n_tokens: tokens of the whole record.
        first: position of the first token that is shown.
        spans: class, exact value and text of each token shown.
        pairs: for token pairs the map; the spans then have each query's strongest activation.
    """

    section: str
    quantile: int | None
    rank: int
    peak: float | None
    argmax: int
    n_tokens: int
    first: int
    spans: list[tuple[str, str, str]]
    pairs: PairMap | None


def shade_of(activation: float | None, largest: float) -> str:
    """Give the class of one activation, as a part of the largest one."""
    (shade,) = _shade(np.array([activation or 0.0], np.float32), largest)
    return shade


def show_record(row: Mapping[str, Any], largest: float, is_pair: bool, is_alone: bool = False) -> ShownRecord:
    """Prepare a record for a page.

    Args:
        row: of the view `records`.
        largest: the absolute activation that is shaded darkest.
        is_pair: whether activations belong to token pairs.
        is_alone: the record has a page to itself, where every cell can be pointed at, and stands in a table.

    Source: the layout of pairs is that of TDB neuron_explainer/activations/attention_utils.py
    """
    tokens: list[str] = row["tokens"]
    activations = np.asarray(row["activations"], np.float32)
    pairs = None
    per_token = activations
    if is_pair and len(tokens):
        per_token = _strongest_by_query(len(tokens), activations)
        pairs = _map_pairs(tokens, activations, largest, is_alone)
    argmax = int(np.abs(per_token).argmax()) if len(per_token) else 0
    first = _window(len(tokens), argmax, _MOST_TOKENS)
    shown = slice(first, first + _MOST_TOKENS)
    return ShownRecord(
        section=row["section"],
        quantile=row["quantile"],
        rank=row["rank"],
        peak=row["max_activation"],
        argmax=argmax,
        n_tokens=len(tokens),
        first=first,
        spans=list(zip(_shade(per_token[shown], largest), map(str, per_token[shown]), tokens[shown], strict=True)),
        pairs=pairs,
    )


def _shade(activations: FloatArray, largest: float) -> Iterable[str]:
    if largest <= 0:
        return [""] * len(activations)
    levels = np.rint(np.abs(activations) * (LEVELS / largest)).clip(0, LEVELS).astype(np.int64)
    return [
        (_NEGATIVE if is_negative else _POSITIVE)[level]
        for level, is_negative in zip(levels.tolist(), (activations < 0).tolist(), strict=True)
    ]


def _window(n: int, place: int, most: int) -> int:
    return max(0, min(place - most // 2, n - most))


def _strongest_by_query(n_tokens: int, activations: FloatArray) -> FloatArray:
    """Give each query's activation of largest absolute value, with its sign."""
    queries, _ = unflatten_pairs(n_tokens, len(activations))
    high, low = np.zeros(n_tokens, np.float32), np.zeros(n_tokens, np.float32)
    np.maximum.at(high, queries, activations)
    np.minimum.at(low, queries, activations)
    strongest: FloatArray = np.where(high >= -low, high, low)
    return strongest


def _map_pairs(tokens: list[str], activations: FloatArray, largest: float, is_alone: bool) -> PairMap:
    queries, keys = unflatten_pairs(len(tokens), len(activations))
    strengths = np.abs(activations)
    order = np.argsort(-strengths, kind="stable")
    centre = int(queries[order[0]]) if len(order) else 0
    first = _window(len(tokens), centre, _MOST_MAPPED)
    n = min(len(tokens) - first, _MOST_MAPPED)
    is_inside = (keys >= first) & (queries >= first) & (queries < first + n)

    def cell(place: int) -> PairCell:
        (shade,) = _shade(activations[place : place + 1], largest)
        return PairCell(int(keys[place]), int(queries[place]), shade, str(activations[place]))

    areas: dict[str, list[str]] = {}
    inside = np.flatnonzero(is_inside)
    roots = np.sqrt(strengths[inside]) * np.sign(activations[inside])
    for place, shade in zip(inside.tolist(), _shade(roots, largest**0.5), strict=True):
        if shade:
            areas.setdefault(shade, []).append(f"M{keys[place] - first} {queries[place] - first}h1v1h-1z")
    active = order[strengths[order] > 0]
    pointed = active[is_inside[active]][: None if is_alone else _PAIRS_POINTED]
    tabled = [cell(place) for place in active[: _PAIRS_TABLED if is_alone else 0].tolist()]
    return PairMap(
        first=first,
        n=n,
        tokens=tokens[first : first + n],
        areas=[(shade, "".join(paths)) for shade, paths in sorted(areas.items())],
        cells=[cell(place) for place in pointed.tolist()],
        strongest=[cell(place) for place in active[:_PAIRS_LISTED].tolist()],
        n_active=len(active),
        table=[(pair, tokens[pair.query], tokens[pair.key]) for pair in tabled],
    )
