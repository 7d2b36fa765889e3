"""What the page that compares units shows: their figures, tokens and strongest texts side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

from warehouse.reader import LakeReader
from warehouse.records import UnitId
from warehouse.server.shading import ShownRecord, shade_of, show_record
from warehouse.server.unit_page import Identity, find_explanations, find_largest

Row = dict[str, Any]
Profile: TypeAlias = dict[int, float]

MOST_UNITS = 6
_N_TOKENS = 12
_N_RECORDS = 4

FIGURES = (
    ("max_activation", "largest activation"),
    ("active_fraction", "active fraction"),
    ("mean", "mean"),
    ("variance", "variance"),
    ("skewness", "skewness"),
    ("kurtosis", "kurtosis"),
    ("n_tokens", "tokens it is active on"),
    ("entropy", "entropy over tokens (bits)"),
)
"""The figures of a unit that are compared, with what they are called."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One of the units."""

    identity: Identity
    explanations: list[Row]
    records: list[ShownRecord]


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token and what each unit does on it: the strongest activation, and its shade by the unit's own largest."""

    token: str
    cells: list[tuple[float | None, str]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that the page shows; likeness[i][j] is the cosine of two units' token profiles, None without profiles."""

    units: list[Compared]
    tokens: list[TokenRow]
    likeness: list[list[float | None]]


def compare_units(reader: LakeReader, identities: Sequence[Identity]) -> Comparison:
    """Read and prepare all that the page shows of units that are there."""
    if not identities:
        return Comparison([], [], [])
    units = [_view(reader, identity) for identity in identities]
    profiles = _read_profiles(reader, [identity.name for identity in identities])
    return Comparison(units, _compare_tokens(reader, identities, profiles), _compare_profiles(profiles))


def _view(reader: LakeReader, identity: Identity) -> Compared:
    records = reader.records(identity.name, "top")
    largest = find_largest(records, identity.is_pair)
    shown = [show_record(row, largest, identity.is_pair) for row in records.head(_N_RECORDS).iter_rows(named=True)]
    return Compared(identity, find_explanations(reader, identity.name), shown)


def _read_profiles(reader: LakeReader, names: Sequence[UnitId]) -> list[Profile]:
    """Give each unit's strongest 32 tokens by number with their weights, strongest first; units by pair have none."""
    rows = reader.sql(
        "SELECT concat_ws('/', model, component, layer, unit), token_numbers, weights FROM unit_profiles "
        "WHERE list_contains($units, unit) AND list_contains($layers, layer)",
        {"units": [name.unit for name in names], "layers": [name.layer for name in names]},
    )
    found: dict[str, Profile] = {
        name: dict(zip(numbers, weights, strict=True)) for name, numbers, weights in rows.rows()
    }
    return [found.get(str(name), {}) for name in names]


def _compare_tokens(reader: LakeReader, identities: Sequence[Identity], profiles: Sequence[Profile]) -> list[TokenRow]:
    """Give the strongest tokens of each unit in turn, and what all of the units do on them."""
    numbers = dict.fromkeys(number for profile in profiles for number in islice(profile, _N_TOKENS))
    if not numbers:
        return []
    names = [identity.name for identity in identities]
    # As literals, the units choose which row groups are read.
    rows = reader.sql_of_units(
        ["token_stats"],
        names,
        "SELECT v.token_number, v.token, s.unit_id, s.max_activation "
        "FROM token_stats AS s INNER JOIN vocabulary AS v USING (token) "
        f"WHERE s.unit IN ({', '.join(str(name.unit) for name in names)}) "
        "AND list_contains($names, s.unit_id) AND list_contains($numbers, v.token_number)",
        {"names": list(map(str, names)), "numbers": list(numbers)},
    ).rows()
    tokens = {number: token for number, token, _, _ in rows}
    peaks = {(number, name): peak for number, _, name, peak in rows}

    def cell(number: int, identity: Identity) -> tuple[float | None, str]:
        peak = peaks.get((number, str(identity.name)))
        return peak, shade_of(peak, float(identity.figures["max_activation"] or 0))

    found = [TokenRow(tokens[number], [cell(number, i) for i in identities]) for number in numbers if number in tokens]
    return sorted(found, key=lambda row: -sum(peak is not None for peak, _ in row.cells))


def _compare_profiles(profiles: Sequence[Profile]) -> list[list[float | None]]:
    """Give the cosine of every two profiles, whose length is 1."""

    def cosine(a: Profile, b: Profile) -> float | None:
        return round(sum(weight * b.get(number, 0.0) for number, weight in a.items()), 6) if a and b else None

    return [[cosine(a, b) for b in profiles] for a in profiles]
