"""What units per token pair do by distance and by token, against a plain count over their pairs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from statistics import fmean

import duckdb
import numpy as np
import pytest

from tests.indexes import open_indexed
from tests.sql.lakes import HEADS, PAIR_LATENTS, Content, list_pairs, list_records, make_content, write_lake
from tests.sql.test_macros import score
from warehouse.catalogue import build_catalogue
from warehouse.lake import Lake
from warehouse.records import ActivationRecord, NeuronRecord, UnitId

Figures = tuple[float | None, ...]
TEXT = ["A", "b", "c", "A", "b", "d", "A"]
KINDS = ("first_token", "previous_token", "same_token", "induction")


def attend(picks: dict[int, int]) -> NeuronRecord:
    """Make a head that attends, in TEXT, from each query to one key alone (by default the query itself)."""
    values = [float(picks.get(q, q) == k) for q in range(len(TEXT)) for k in range(q + 1)]
    record = ActivationRecord(TEXT, np.array(values, np.float32))
    return NeuronRecord(random_sample=[record], most_positive_activation_records=[record])


PLANTED = {
    "first_token": UnitId.parse(f"{HEADS}/7/0"),
    "previous_token": UnitId.parse(f"{HEADS}/7/1"),
    "same_token": UnitId.parse(f"{HEADS}/7/2"),
    "induction": UnitId.parse(f"{HEADS}/7/3"),
}


@pytest.fixture(scope="module")
def content() -> Content:
    """The lake of every kind of dataset, with a head of each pattern."""
    queries = range(len(TEXT))
    heads = {
        "first_token": attend(dict.fromkeys(queries, 0)),
        "previous_token": attend({q: max(q - 1, 0) for q in queries}),
        "same_token": attend({}),
        "induction": attend({3: 1, 4: 2, 6: 4}),
    }
    made = make_content()
    return Content(made.units | {PLANTED[kind]: heads[kind] for kind in KINDS}, made.other_files, made.siblings)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory, content: Content) -> Iterator[duckdb.DuckDBPyConnection]:
    lake = write_lake(Lake(tmp_path_factory.mktemp("heads") / "lake"), content)
    build_catalogue(lake)
    with open_indexed(lake) as connection:
        yield connection


def pair_units(content: Content) -> dict[UnitId, NeuronRecord]:
    return {name: u for name, u in content.units.items() if f"{name.model}/{name.component}" in (HEADS, PAIR_LATENTS)}


def pairs_of(unit: NeuronRecord, section: str | None) -> Iterator[tuple[int, int, float]]:
    for found, _, _, record in list_records(unit):
        if section in (None, found):
            yield from list_pairs(record)


@pytest.mark.parametrize("section", [None, "random", "top", "quantile"])
def test_the_profile_and_the_map_are_a_count_over_the_pairs(
    catalogue: duckdb.DuckDBPyConnection, content: Content, section: str | None
) -> None:
    for name, unit in pair_units(content).items():
        by_distance, by_place = defaultdict(list), defaultdict(list)
        for query, key, activation in pairs_of(unit, section):
            by_distance[query - key].append(activation)
            by_place[query, key].append(activation)
        total = sum(abs(a) for values in by_distance.values() for a in values)
        profile = catalogue.execute(f"FROM head_profile('{name}', section := $s)", {"s": section}).fetchall()
        assert [row[:5] for row in profile] == [
            (distance, len(values), sum(a > 0 for a in values), fmean(values), max(values))
            for distance, values in sorted(by_distance.items())
        ]
        assert [row[5] for row in profile] == pytest.approx(
            [sum(map(abs, values)) / total for _, values in sorted(by_distance.items())]
        )
        found = catalogue.execute(f"FROM pair_map('{name}', section := $s)", {"s": section}).fetchall()
        assert found == [
            (*place, len(values), fmean(values), max(values), min(values)) for place, values in sorted(by_place.items())
        ]


def count_patterns(unit: NeuronRecord, section: str | None) -> Figures:
    """Give the number of queries, the mean part for each pattern, and the number of queries that induction has."""
    totals, parts = [], defaultdict(list)
    for found, _, _, record in list_records(unit):
        if section not in (None, found):
            continue
        rows: dict[int, dict[int, float]] = defaultdict(dict)
        for query, key, activation in list_pairs(record):
            rows[query][key] = abs(activation)
        for query, keys in rows.items():
            total = sum(keys.values())
            if query < 2 or not total:
                continue
            totals.append(total)
            tokens = record.tokens
            chosen = {
                "first_token": [0],
                "previous_token": [query - 1],
                "same_token": [query],
                "induction": [key for key in keys if 0 < key < query and tokens[key - 1] == tokens[query]],
            }
            for kind, wanted in chosen.items():
                if present := [keys[key] for key in wanted if key in keys]:
                    parts[kind].append(sum(present) / total)
    means = (fmean(parts[kind]) if parts[kind] else None for kind in KINDS)
    return (len(totals), *means, len(parts["induction"]))


@pytest.mark.parametrize("section", [None, "random", "quantile"])
def test_patterns_are_a_count_over_the_queries(
    catalogue: duckdb.DuckDBPyConnection, content: Content, section: str | None
) -> None:
    found = catalogue.execute(
        f"SELECT unit_id, n_queries, {', '.join(KINDS)}, n_induction_queries FROM head_patterns(section := $s)",
        {"s": section},
    ).fetchall()
    expected = {
        str(name): count_patterns(unit, section)
        for name, unit in pair_units(content).items()
        if any(query >= 2 for query, _, _ in pairs_of(unit, section))
    }
    assert len(found) == len(expected)
    for unit_id, *figures in found:
        assert figures == pytest.approx(list(expected[unit_id]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_head_is_first_by_its_pattern(catalogue: duckdb.DuckDBPyConnection, kind: str) -> None:
    rows = catalogue.execute(
        f"SELECT unit_id, {kind} FROM head_patterns(component := 'attn_write_norm') "
        f"ORDER BY {kind} DESC NULLS LAST LIMIT 2"
    ).fetchall()
    assert rows[0] == (str(PLANTED[kind]), 1.0)
    assert rows[1][1] < 1.0


@pytest.mark.parametrize(
    ("side", "token", "by"), [*product(["query", "key"], [" the", "::", "A"], ["max", "mean", "relative", "abs"])]
)
def test_units_by_query_or_key_are_ranked_as_a_scan_of_all_pairs_does(
    catalogue: duckdb.DuckDBPyConnection, content: Content, side: str, token: str, by: str
) -> None:
    place = 0 if side == "query" else 1
    expected = []
    for name in pair_units(content):
        scored = [
            (-value, on[1 - place])
            for on in content.figures[name]
            if on[place] == token and (value := score(content, name, on, by)) is not None
        ]
        if scored:
            expected.append(
                (min(scored)[0], name.model, name.component, name.layer, name.unit, min(scored)[1], len(scored))
            )
    found = catalogue.execute(
        f"SELECT -score, model, component, layer, unit, {'key' if side == 'query' else 'query'}_token, n_pairs "
        f'FROM top_units_by_{side}($t, k := 100, "by" := $by)',
        {"t": token, "by": by},
    ).fetchall()
    assert found == sorted(expected)
    assert found or by == "mean"


@pytest.mark.parametrize("macro", ["head_profile", "pair_map"])
def test_a_wrong_section_is_an_error_that_names_the_right_ones(
    catalogue: duckdb.DuckDBPyConnection, macro: str
) -> None:
    with pytest.raises(duckdb.Error, match="section must be top, random or quantile"):
        catalogue.execute(f"FROM {macro}('{HEADS}/0/0', section := 'best')").fetchall()
    with pytest.raises(duckdb.Error, match="section must be top, random or quantile"):
        catalogue.execute("FROM head_patterns(section := 'best')").fetchall()
