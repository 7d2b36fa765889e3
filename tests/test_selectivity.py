"""Selectivity, sets of tokens, and the views of odd units, against a plain count."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from tests.indexes import open_indexed
from tests.sql.lakes import (
    HEADS,
    LATENTS,
    NEURONS,
    PAIR_LATENTS,
    Content,
    Figures,
    make_content,
    make_unit,
    write_lake,
)
from warehouse import selectivity
from warehouse.catalogue import build_catalogue
from warehouse.index import IndexedShard
from warehouse.lake import Lake
from warehouse.records import ActivationRecord, NeuronRecord, UnitId

PER_PAIR = {HEADS, PAIR_LATENTS}
Tokens = dict[str, Figures]
SETS = [[" the", "the", " The"], [" cat", "::"], ['"'], ["no such token", "\\"]]


def fire(
    *values: float, tokens: tuple[str, ...] = (" bank", " river", " bank", " a"), top: bool = True
) -> NeuronRecord:
    """Make a unit with these activations on one text, in its random sample and, if wanted, its top records."""
    record = ActivationRecord(list(tokens), np.array(values, np.float32))
    return NeuronRecord(random_sample=[record], most_positive_activation_records=[record] if top else [])


def name_latent(unit: int) -> UnitId:
    return UnitId.parse(f"{LATENTS}/5/{unit}")


ALWAYS, IN_CONTEXT, DEAD, RARE, BOTH, WEAKER, DEAD_PAIRS, SIGNED_PAIRS = range(8)


@pytest.fixture(scope="module")
def content() -> Content:
    """The lake of every kind of dataset, with odd latents in layer 5, and two units that share their top records."""
    made = make_content()
    top = make_unit(77).most_positive_activation_records
    quiet = ActivationRecord([" bank"], np.array([0], np.float32))
    odd = {
        ALWAYS: fire(2, 0, 3, 0),
        IN_CONTEXT: fire(2, -1, 0, 0),
        DEAD: fire(0, 0, -1, 0),
        RARE: NeuronRecord(random_sample=[quiet], most_positive_activation_records=fire(0, 0, 0, 2).random_sample),
        BOTH: fire(50, 40, 0, 0),
        WEAKER: fire(60, 5, 0, 0),
    }
    units = {name_latent(unit): record for unit, record in odd.items()}
    units[UnitId.parse(f"{PAIR_LATENTS}/5/{DEAD_PAIRS}")] = fire(0, 0, 0, tokens=("a", "b"))
    units[UnitId.parse(f"{PAIR_LATENTS}/5/{SIGNED_PAIRS}")] = fire(0, -1, 0, tokens=("a", "b"))
    for unit in (70, 71):
        random_sample = make_unit(unit).random_sample
        units[UnitId.parse(f"{NEURONS}/5/{unit}")] = NeuronRecord(
            most_positive_activation_records=top, random_sample=random_sample
        )
    return Content(made.units | units, made.other_files, made.siblings)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, content: Content) -> Lake:
    """The lake with a catalogue that can be searched; do not write to it."""
    lake = write_lake(Lake(tmp_path_factory.mktemp("selective") / "lake"), content)
    build_catalogue(lake)
    return lake


@pytest.fixture(scope="module")
def catalogue(built: Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_indexed(built) as connection:
        yield connection


def profiles(content: Content) -> dict[UnitId, Tokens]:
    return {
        name: {on[0]: f for on, f in figures.items()}
        for name, figures in content.figures.items()
        if f"{name.model}/{name.component}" not in PER_PAIR
    }


def order(name: UnitId) -> tuple[str, str, int, int]:
    return (name.model, name.component, name.layer, name.unit)


def test_units_show_the_selectivity_that_a_count_gives(catalogue: duckdb.DuckDBPyConnection, content: Content) -> None:
    rows = catalogue.execute("SELECT unit_id, n_tokens, entropy, top_token, top_token_share FROM units").fetchall()
    assert len(rows) == len(content.units)
    counted = {str(name): tokens for name, tokens in profiles(content).items() if tokens}
    for unit_id, n_tokens, entropy, top_token, share in rows:
        if unit_id not in counted:
            assert (n_tokens, entropy, top_token, share) == (None, None, None, None)
            continue
        strengths = {token: f.sum_positive for token, f in counted[unit_id].items()}
        total = sum(strengths.values())
        parts = [strength / total for strength in strengths.values()]
        assert n_tokens == len(strengths)
        assert top_token == min(strengths, key=lambda token: (-strengths[token], token))
        assert share == max(parts)
        assert entropy == pytest.approx(-sum(p * math.log2(p) for p in parts), abs=1e-12)


def test_entropy_of_one_token_is_zero(catalogue: duckdb.DuckDBPyConnection) -> None:
    found = catalogue.execute(f"SELECT entropy FROM units WHERE unit_id = '{name_latent(ALWAYS)}'").fetchall()
    assert found == [(0.0,)]


@pytest.mark.parametrize("by", ["max", "share", "tokens"])
@pytest.mark.parametrize("tokens", SETS, ids=" ".join)
def test_units_of_a_set_of_tokens_are_ranked_by_their_figures_together(
    catalogue: duckdb.DuckDBPyConnection, content: Content, tokens: list[str], by: str
) -> None:
    expected = []
    for name, figures in profiles(content).items():
        met = {token: figures[token] for token in tokens if token in figures}
        if not met:
            continue
        strongest = max(f.max_activation for f in met.values())
        scores = {
            "max": strongest,
            "share": sum(f.sum_positive for f in met.values()) / sum(f.sum_positive for f in figures.values()),
            "tokens": float(len(met)),
        }
        best = min(met, key=lambda token: (-met[token].max_activation, token))
        n_active = sum(f.n_active for f in met.values())
        expected.append((-scores[by], -strongest, *order(name), best, len(met), n_active))
    found = catalogue.execute(
        "SELECT -score, -max_activation, model, component, layer, unit, token, n_tokens, n_active "
        'FROM top_units_of_tokens($tokens, k := 100, "by" := $by)',
        {"tokens": tokens, "by": by},
    ).fetchall()
    assert found == sorted(expected)
    assert found


@pytest.mark.parametrize("by", ["mean", "relative"])
def test_a_set_of_tokens_has_no_mean(catalogue: duckdb.DuckDBPyConnection, by: str) -> None:
    with pytest.raises(duckdb.Error, match="by must be max, share or tokens"):
        catalogue.execute('FROM top_units_of_tokens($tokens, "by" := $by)', {"tokens": SETS[0], "by": by}).fetchall()


@pytest.mark.parametrize("weaker", [0.0, 0.1, 0.5])
@pytest.mark.parametrize(("token", "other"), [(" bank", " river"), (" the", " cat"), ("::", "'s")])
def test_units_but_not_are_those_that_are_much_weaker_on_the_other(
    catalogue: duckdb.DuckDBPyConnection, content: Content, token: str, other: str, weaker: float
) -> None:
    expected = []
    for name, figures in profiles(content).items():
        on_other = figures[other].max_activation if other in figures else 0.0
        if token in figures and on_other <= weaker * figures[token].max_activation:
            expected.append((-figures[token].max_activation, *order(name), on_other))
    found = catalogue.execute(
        "SELECT -max_activation, model, component, layer, unit, max_on_other "
        "FROM top_units_but_not($token, $other, k := 100, weaker := $weaker)",
        {"token": token, "other": other, "weaker": weaker},
    ).fetchall()
    assert found == sorted(expected)


def test_fires_on_bank_not_on_river_finds_the_planted_unit_first(catalogue: duckdb.DuckDBPyConnection) -> None:
    found = catalogue.execute("SELECT unit_id, max_on_other FROM top_units_but_not(' bank', ' river')").fetchall()
    assert found[0] == (str(name_latent(WEAKER)), 5.0)
    assert str(name_latent(BOTH)) not in {unit_id for unit_id, _ in found}


def test_top_tokens_give_the_mean_of_the_random_sample_and_the_share(
    catalogue: duckdb.DuckDBPyConnection, content: Content
) -> None:
    for name, figures in profiles(content).items():
        total = sum(f.sum_positive for f in figures.values())
        found = catalogue.execute(f"SELECT token, random_mean, share FROM top_tokens('{name}', k := 100)").fetchall()
        ranked = sorted(figures, key=lambda token: (-figures[token].max_activation, token))
        assert found == [
            (
                t,
                figures[t].sum_random / figures[t].n_random if figures[t].n_random else None,
                figures[t].sum_positive / total,
            )
            for t in ranked
        ]


def test_dead_units_are_those_that_are_never_active_and_say_why(catalogue: duckdb.DuckDBPyConnection) -> None:
    found = catalogue.execute("SELECT unit_id, why FROM dead_units ORDER BY ALL").fetchall()
    assert found == [
        (f"{LATENTS}/0/0", "no records"),
        (str(name_latent(DEAD)), "never active"),
        (f"{PAIR_LATENTS}/5/{DEAD_PAIRS}", "never active"),
    ]


def test_near_dead_units_are_active_in_no_record_of_their_random_sample(catalogue: duckdb.DuckDBPyConnection) -> None:
    found = catalogue.execute("SELECT unit_id, max_activation, n_random FROM near_dead_units ORDER BY ALL").fetchall()
    assert found == [(str(name_latent(RARE)), 2.0, 1), (f"{PAIR_LATENTS}/5/{SIGNED_PAIRS}", 0.0, 1)]


def test_duplicates_have_the_same_figures_or_the_same_top_records(catalogue: duckdb.DuckDBPyConnection) -> None:
    found = catalogue.execute(
        "SELECT basis, unit_id, first_unit_id, n_same FROM duplicate_units ORDER BY basis, first_unit_id, layer, unit"
    ).fetchall()
    twins = (f"{NEURONS}/0/3", f"{NEURONS}/1/9")
    same_tops = (f"{NEURONS}/5/70", f"{NEURONS}/5/71")
    assert found == [
        *(("token_stats", unit_id, twins[0], 2) for unit_id in twins),
        *(("top records", unit_id, twins[0], 2) for unit_id in twins),
        *(("top records", unit_id, same_tops[0], 2) for unit_id in same_tops),
    ]


def test_units_of_one_token_say_whether_the_context_decides(catalogue: duckdb.DuckDBPyConnection) -> None:
    found = catalogue.execute(
        "SELECT unit, top_token, active_part, is_in_context FROM one_token_units WHERE layer = 5 ORDER BY unit"
    ).fetchall()
    assert found == [
        (ALWAYS, " bank", 1.0, False),
        (IN_CONTEXT, " bank", 0.5, True),
        (RARE, " a", 1.0, False),
    ]


def test_kinds_by_layer_count_the_units_of_the_views(catalogue: duckdb.DuckDBPyConnection, content: Content) -> None:
    rows = catalogue.execute("FROM unit_kinds_by_layer").fetchall()
    layers = Counter((name.model, name.component, name.layer) for name in content.units)
    assert {row[:3]: row[3] for row in rows} == layers
    found = {row[1:3]: row[4:] for row in rows}
    assert found["mlp_post_act_ae_v4", 5] == (1, 1, 0, 2, 1)
    assert found["mlp_post_act", 5] == (0, 0, 2, 0, 0)
    assert found["mlp_post_act", 1] == (0, 0, 1, 0, 0)


def test_a_build_counts_new_shards_alone_and_drops_stale_ones(
    tmp_path: Path, built: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Lake(shutil.copytree(built.root, tmp_path / "lake"))

    def rows() -> list[tuple[Any, ...]]:
        with open_indexed(own) as connection:
            return connection.execute("FROM unit_selectivity ORDER BY ALL").fetchall()

    before = rows()
    shard = own.shards("token_stats")[0]
    own.remove_shard(shard)
    build_catalogue(own)
    assert rows() == [
        row for row in before if not (row[1] == shard.component and row[2] == shard.layer and row[3] <= shard.last)
    ]
    shutil.copytree(built.root, own.root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.duckdb"))
    counted: list[IndexedShard] = []
    run = selectivity._run

    def note(connection: duckdb.DuckDBPyConnection, shards: Sequence[IndexedShard], *statements: str) -> None:
        counted.extend(shards)
        run(connection, shards, *statements)

    monkeypatch.setattr(selectivity, "_run", note)
    build_catalogue(own)
    assert [indexed.shard for indexed in counted] == [shard]
    assert rows() == before
