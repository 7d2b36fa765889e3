"""Which units resemble one another: profiles, shared texts and firing together, against a recount in plain Python."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import indexes
from tests.sql.lakes import (
    HEADS,
    LATENTS,
    NEURONS,
    PAIR_LATENTS,
    XL,
    Content,
    count_figures,
    list_records,
    make_content,
    make_unit,
    write_lake,
)
from warehouse import catalogue
from warehouse.catalogue import build_catalogue
from warehouse.lake import Lake
from warehouse.parts import Shard
from warehouse.records import ActivationRecord, NeuronRecord, UnitId

V1 = "gpt2-small/mlp_post_act_ae_v1"
LIKENESS = "SELECT unit_id, score, n_shared_tokens, shared_tokens FROM similar_units($u, k := 1000)"

Profile = dict[str, np.float32]
Texts = dict[tuple[str, ...], tuple[bool, frozenset[int]]]


def build(lake: Lake) -> Lake:
    build_catalogue(lake)
    return lake


def make_lake(root: Path, units: Mapping[UnitId, NeuronRecord]) -> Lake:
    return build(write_lake(Lake(root), Content(dict(units))))


def ask(lake: Lake, query: str, **parameters: object) -> list[tuple[object, ...]]:
    with indexes.open_indexed(lake) as connection:
        return connection.execute(query, parameters).fetchall()


def order(name: UnitId) -> tuple[object, ...]:
    return name.model, name.component, name.layer, name.unit


def is_per_token(name: UnitId) -> bool:
    return f"{name.model}/{name.component}" not in (HEADS, PAIR_LATENTS)


def count_profile(unit: NeuronRecord) -> Profile:
    """Weigh a unit's tokens as the comment on unit_profiles says."""
    figures = count_figures(unit, "token")
    weights = {token: np.float32(f.sum_positive / (f.n + 3)) for (token,), f in figures.items()}
    kept = sorted(weights, key=lambda token: (-weights[token], token))[:32]
    norm = np.sqrt(sum(float(weights[token]) ** 2 for token in kept))
    return {token: np.float32(weights[token] / norm) for token in kept}


def rank_by_tokens(units: Mapping[UnitId, NeuronRecord], asked: UnitId) -> list[tuple[object, ...]]:
    """Rank all units by the cosine of their profiles with one unit's."""
    own = count_profile(units[asked])
    rows = []
    for name, unit in units.items():
        if name == asked or not is_per_token(name):
            continue
        other = count_profile(unit)
        products = {token: float(own[token]) * float(other[token]) for token in own.keys() & other.keys()}
        if products:
            strongest = sorted(products, key=lambda token: (-products[token], token))[:5]
            rows.append((name, round(sum(products.values()), 6), len(products), strongest))
    rows.sort(key=lambda row: (-row[1], order(row[0])))
    return [(str(name), pytest.approx(score, abs=2e-6), n, strongest) for name, score, n, strongest in rows]


def list_texts(unit: NeuronRecord) -> Texts:
    """Give each text of a unit with whether it is a top record's, and where the unit fires in it."""
    records = [(section, record) for section, _, _, record in list_records(unit)]
    largest = max((float(a) for _, record in records for a in record.activations), default=0.0)
    texts: Texts = {}
    for section, record in records:
        fired = frozenset(i for i, a in enumerate(record.activations) if a > 0 and 10 * float(a) >= largest)
        is_top, others = texts.get(tuple(record.tokens), (False, frozenset()))
        texts[tuple(record.tokens)] = (is_top or section == "top", others | fired)
    return texts


def rank_by_firing(units: Mapping[UnitId, NeuronRecord], asked: UnitId, by: str) -> list[tuple[object, ...]]:
    """Rank all units by the positions at which they fire with one unit."""
    own = list_texts(units[asked])
    rows = []
    for name, unit in units.items():
        other = list_texts(unit)
        pairs = [(own[text][1], other[text][1]) for text in own.keys() & other.keys()]
        n_both = sum(len(a & b) for a, b in pairs)
        if name != asked and is_per_token(name) and n_both:
            share = n_both / sum(len(a | b) for a, b in pairs)
            rows.append((name, n_both, share, sum(bool(a & b) for a, b in pairs), len(pairs)))
    rows.sort(key=lambda row: (-(row[1] if by == "count" else row[2]), order(row[0])))
    return [(str(name), *figures) for name, *figures in rows]


def rank_by_texts(units: Mapping[UnitId, NeuronRecord], asked: UnitId) -> list[tuple[object, ...]]:
    """Rank all units by the texts that their top records share with one unit's."""
    tops = {name: {text for text, (is_top, _) in list_texts(unit).items() if is_top} for name, unit in units.items()}
    counts = [(name, len(texts & tops[asked])) for name, texts in tops.items() if name != asked and is_per_token(name)]
    rows = sorted((row for row in counts if row[1]), key=lambda row: (-row[1], order(row[0])))
    return [(str(name), n, n / len(tops[asked])) for name, n in rows]


def draw_unit(draw: random.Random, texts: Sequence[Sequence[str]]) -> NeuronRecord:
    """Make up a unit that has records of some of these texts, the same one perhaps twice."""

    def record() -> ActivationRecord:
        tokens = list(draw.choice(texts))
        values = [max(draw.randint(-300, 200), -30) / 64 for _ in tokens]
        return ActivationRecord(tokens, np.array(values, np.float32))

    return NeuronRecord(
        most_positive_activation_records=[record() for _ in range(draw.randint(0, 3))],
        random_sample=[record() for _ in range(draw.randint(0, 3))],
    )


def draw_units(seed: int, n_tokens: int) -> dict[UnitId, NeuronRecord]:
    """Make up units of three datasets that share a few texts of a vocabulary of so many tokens."""
    draw = random.Random(seed)
    vocabulary = [f" t{number}" for number in range(n_tokens)] + ["", "\0"]
    texts = [draw.choices(vocabulary, k=draw.randint(1, 40)) for _ in range(6)]
    names = [
        UnitId.parse(f"{key}/{layer}/{unit}") for key in (NEURONS, LATENTS, XL) for layer in (0, 1) for unit in (0, 7)
    ]
    return {name: draw_unit(draw, texts) for name in names}


def plant(draw: random.Random, tokens: Sequence[str], scale: float, *, has_tails: bool) -> NeuronRecord:
    """Make up a unit that responds to some tokens, among frequent ones, with noise and perhaps a GELU's tails."""

    def record(n_planted: int) -> ActivationRecord:
        text = [f" common{int(draw.paretovariate(1)) % 60}" for _ in range(20)]
        for place in draw.sample(range(20), n_planted):
            text[place] = draw.choice(tokens)
        values = [
            draw.uniform(0.6, 1) if token in tokens else draw.uniform(-0.17, 0.25) if has_tails else 0.0
            for token in text
        ]
        return ActivationRecord(text, np.array(values, np.float32) * np.float32(scale))

    return NeuronRecord(
        most_positive_activation_records=[record(3) for _ in range(8)], random_sample=[record(0) for _ in range(8)]
    )


@pytest.fixture(scope="module")
def content() -> Content:
    return make_content()


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, content: Content) -> Lake:
    """The lake of every kind of dataset; do not write to it."""
    return build(write_lake(Lake(tmp_path_factory.mktemp("similar") / "lake"), content))


@pytest.fixture(scope="module")
def planted() -> dict[UnitId, NeuronRecord]:
    """Latents of two autoencoders and neurons: those of one number respond to the same tokens, at another scale."""
    draw = random.Random(1)
    units = {}
    for number in range(20):
        tokens = [f" rare{draw.randrange(40)}" for _ in range(draw.choice([1, 2, 4]))] + [f" only{number}"]
        for key, scale in ((V1, 0.01), (LATENTS, 30.0), (NEURONS, 1.0)):
            units[UnitId.parse(f"{key}/0/{number}")] = plant(draw, tokens, scale, has_tails=key == NEURONS)
    return units


@pytest.fixture(scope="module")
def planted_lake(tmp_path_factory: pytest.TempPathFactory, planted: dict[UnitId, NeuronRecord]) -> Lake:
    return make_lake(tmp_path_factory.mktemp("planted") / "lake", planted)


def test_similar_units_are_those_of_a_recount(lake: Lake, content: Content) -> None:
    asked = [name for name in content.units if is_per_token(name)]
    for name in asked:
        assert ask(lake, LIKENESS, u=str(name)) == rank_by_tokens(content.units, name)
    assert ask(lake, LIKENESS, u=f"{NEURONS}/1/9")[0][:2] == (f"{NEURONS}/0/3", 1.0)


@settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32), n_tokens=st.sampled_from([3, 30, 90]))
def test_any_lake_answers_as_a_recount_does(tmp_path_factory: pytest.TempPathFactory, seed: int, n_tokens: int) -> None:
    units = draw_units(seed, n_tokens)
    lake = make_lake(tmp_path_factory.mktemp("drawn") / "lake", units)
    texts = "SELECT unit_id, n_shared_texts, share_of_texts FROM units_with_shared_texts($u, k := 1000)"
    firing = (
        "SELECT unit_id, n_shared_positions, share_of_positions, n_coactive_texts, n_shared_texts "
        'FROM coactive_units($u, k := 1000, "by" := $by)'
    )
    active = {name: unit for name, unit in units.items() if count_figures(unit, "token")}
    for name in active:
        assert ask(lake, LIKENESS, u=str(name)) == rank_by_tokens(active, name)
        assert ask(lake, texts, u=str(name)) == rank_by_texts(active, name)
        for by in ("count", "share"):
            assert ask(lake, firing, u=str(name), by=by) == rank_by_firing(active, name, by)


def test_a_planted_twin_is_first_in_another_component_at_any_scale(
    planted_lake: Lake, planted: dict[UnitId, NeuronRecord]
) -> None:
    query = "SELECT unit FROM similar_units($u, k := 1, model := 'gpt2-small', component := $c, layer := 0)"
    for name in planted:
        for component in {"mlp_post_act_ae_v1", "mlp_post_act_ae_v4", "mlp_post_act"} - {name.component}:
            assert ask(planted_lake, query, u=str(name), c=component) == [(name.unit,)]


def test_two_layers_of_planted_twins_match_both_ways(planted_lake: Lake) -> None:
    query = "SELECT unit_id, match_unit_id, is_mutual FROM match_units($a, $b, model := 'gpt2-small', layer := 0)"
    rows = ask(planted_lake, query, a="mlp_post_act_ae_v1", b="mlp_post_act")
    assert rows == [(f"{V1}/0/{unit}", f"{NEURONS}/0/{unit}", True) for unit in range(20)]


def test_a_match_is_the_unit_that_similar_units_ranks_first(lake: Lake, content: Content) -> None:
    found = ask(
        lake, "SELECT unit_id, match_unit_id, score, n_shared_tokens FROM match_units($c, $c)", c="mlp_post_act"
    )
    names = [name for name in content.units if name.component == "mlp_post_act"]
    first = "SELECT unit_id, score, n_shared_tokens FROM similar_units($u, k := 1, component := 'mlp_post_act')"
    assert found == [(str(name), *ask(lake, first, u=str(name))[0]) for name in sorted(names, key=order)]


@pytest.mark.parametrize(
    ("sides", "where_a", "where_b"),
    [
        ("layer_a := 0, layer_b := 1", (None, 0), (None, 1)),
        ("model_a := 'gpt2-small', model_b := 'gpt2-xl'", ("gpt2-small", None), ("gpt2-xl", None)),
        ("model := 'gpt2-small', layer := 0, layer_b := 1", ("gpt2-small", 0), ("gpt2-small", 1)),
        ("model := 'gpt2-small', layer := 0, model_b := 'gpt2-xl', layer_b := 2", ("gpt2-small", 0), ("gpt2-xl", 2)),
    ],
)
def test_each_side_of_a_match_has_its_own_model_and_layer(
    lake: Lake, content: Content, sides: str, where_a: tuple[object, object], where_b: tuple[object, object]
) -> None:
    found = ask(lake, f"SELECT unit_id, match_unit_id, score FROM match_units('mlp_post_act', 'mlp_post_act', {sides})")
    model, layer = where_a
    names = sorted(
        (
            name
            for name in content.units
            if name.component == "mlp_post_act" and model in (None, name.model) and layer in (None, name.layer)
        ),
        key=order,
    )
    first = (
        "SELECT unit_id, score FROM similar_units($u, k := 1, component := 'mlp_post_act', model := $m, layer := $l)"
    )
    best = [ask(lake, first, u=str(name), m=where_b[0], l=where_b[1]) for name in names]
    assert found == [(str(name), *row) for name, (row,) in zip(names, best, strict=True)]


def test_only_the_best_match_of_both_is_mutual(tmp_path: Path) -> None:
    draw = random.Random(2)
    names = [f"{V1}/0/0", f"{V1}/0/1", f"{V1}/0/2", f"{LATENTS}/0/5"]
    tokens = [[" a", " b"], [" a", " x", " y"], [" z"], [" a", " b"]]
    units = {UnitId.parse(name): bare(on, draw) for name, on in zip(names, tokens, strict=True)}
    query = "SELECT unit_id, match_unit_id, is_mutual FROM match_units('mlp_post_act_ae_v1', 'mlp_post_act_ae_v4')"
    assert ask(make_lake(tmp_path / "lake", units), query) == [
        (names[0], names[3], True),
        (names[1], names[3], False),
        (names[2], None, None),
    ]


def test_equal_units_stand_in_the_order_of_their_names(tmp_path: Path) -> None:
    unit = make_unit(3)
    names = [f"{LATENTS}/0/9", f"{LATENTS}/0/10", f"{NEURONS}/1/2", f"{V1}/0/0", f"{XL}/0/0"]
    lake = make_lake(tmp_path / "lake", {UnitId.parse(name): unit for name in reversed(names)})
    expected = sorted((UnitId.parse(name) for name in names[1:]), key=order)
    assert ask(lake, "SELECT unit_id, score FROM similar_units($u)", u=names[0]) == [(str(n), 1.0) for n in expected]


def test_of_many_tokens_the_32_strongest_make_the_profile_and_equal_ones_by_their_text(tmp_path: Path) -> None:
    tokens = [f" t{number:02}" for number in range(40)]
    names = [UnitId.parse(f"{LATENTS}/0/{unit}") for unit in range(3)]
    units = {
        names[0]: sharp({token: 2.0 for token in tokens}),
        names[1]: sharp({tokens[31]: 1.0}),
        names[2]: sharp({tokens[32]: 1.0}),
    }
    found = ask(make_lake(tmp_path / "lake", units), LIKENESS, u=str(names[0]))
    assert found == [(str(names[1]), pytest.approx(32**-0.5, abs=1e-6), 1, [tokens[31]])]


def test_a_token_met_once_weighs_less_than_one_met_often_as_strongly(tmp_path: Path) -> None:
    names = [UnitId.parse(f"{LATENTS}/0/{unit}") for unit in range(3)]
    often = ActivationRecord([" often"] * 9 + [" once"], np.full(10, 4.0, np.float32))
    units = {
        names[0]: NeuronRecord(random_sample=[often]),
        names[1]: sharp({" once": 4.0}),
        names[2]: sharp({" often": 4.0}),
    }
    found = ask(make_lake(tmp_path / "lake", units), "SELECT unit_id FROM similar_units($u)", u=str(names[0]))
    assert found == [(str(names[2]),), (str(names[1]),)]


@pytest.mark.parametrize("macro", ["similar_units", "units_with_shared_texts", "coactive_units"])
@pytest.mark.parametrize(
    "unit_id", [f"{HEADS}/0/0", f"{PAIR_LATENTS}/3/64", f"{LATENTS}/0/0", f"{LATENTS}/0/99999999999", "no/such/0/1"]
)
def test_a_unit_per_pair_dead_or_unknown_has_an_empty_answer(lake: Lake, macro: str, unit_id: str) -> None:
    assert ask(lake, f"FROM {macro}($u)", u=unit_id) == []


@pytest.mark.parametrize("macro", ["similar_units", "units_with_shared_texts", "coactive_units"])
def test_what_is_no_unit_id_is_an_error(lake: Lake, macro: str) -> None:
    with pytest.raises(duckdb.Error, match="unit_id must be model/component/layer/unit"):
        ask(lake, f"FROM {macro}('mlp_post_act/5')")


def test_an_unknown_order_of_coactive_units_is_an_error(lake: Lake) -> None:
    with pytest.raises(duckdb.Error, match="by must be count or share"):
        ask(lake, "FROM coactive_units($u, \"by\" := 'most')", u=f"{NEURONS}/0/1")


def test_units_fire_at_a_tenth_of_their_largest_activation(tmp_path: Path) -> None:
    text = [" a", " b", " c", " d"]
    names = [UnitId.parse(f"{LATENTS}/0/{unit}") for unit in range(2)]
    values = ([10.0, 1.0, 0.99, -10.0], [0.5, 5.0, 5.0, 5.0])
    units = {
        name: NeuronRecord(random_sample=[ActivationRecord(text, np.array(v, np.float32))])
        for name, v in zip(names, values, strict=True)
    }
    query = "SELECT n_shared_positions, share_of_positions, n_coactive_texts, n_shared_texts FROM coactive_units($u)"
    assert ask(make_lake(tmp_path / "lake", units), query, u=str(names[0])) == [(2, 0.5, 1, 1)]


def test_after_shards_were_dropped_replaced_and_added_answers_are_those_of_a_build_from_nothing(
    tmp_path: Path, lake: Lake
) -> None:
    own = Lake(shutil.copytree(lake.root, tmp_path / "lake"))
    own.remove_shard(own.shards("token_stats")[0])
    replace_part(own, own.shards("token_stats")[1])
    build(own)
    assert answers(own) != answers(lake)
    assert answers(own) == answers(built_anew(own, tmp_path / "again"))
    shutil.copytree(lake.root, own.root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.duckdb"))
    build(own)
    assert {run for (run,) in ask(own, "SELECT run FROM index_shards")} != {0}
    assert answers(own) == answers(lake)
    assert failing(own) == []


def test_with_nothing_new_the_profiles_stay(tmp_path: Path, lake: Lake) -> None:
    own = Lake(shutil.copytree(lake.root, tmp_path / "lake"))
    build(own)
    assert answers(own) == answers(lake)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE unit_profiles SET weights = list_reverse(weights) WHERE unit_number = 2",
        "UPDATE profile_rows SET weight = 0.5 WHERE rowid = 3",
        "DELETE FROM unit_profiles WHERE unit_number = 2",
    ],
)
def test_a_profile_that_differs_from_the_parquet_fails_the_check(tmp_path: Path, lake: Lake, damage: str) -> None:
    own = Lake(shutil.copytree(lake.root, tmp_path / "lake"))
    assert failing(own) == []
    with duckdb.connect(str(own.catalogue_path)) as connection:
        connection.execute(damage)
    assert len(failing(own)) == 1


def bare(tokens: Sequence[str], draw: random.Random) -> NeuronRecord:
    return NeuronRecord(
        random_sample=[ActivationRecord([t], np.array([draw.uniform(1, 1.1)], np.float32)) for t in tokens]
    )


def sharp(activations: Mapping[str, float]) -> NeuronRecord:
    """Make up a unit of one record, with one activation on each token."""
    return NeuronRecord(
        random_sample=[ActivationRecord(list(activations), np.array(list(activations.values()), np.float32))]
    )


def replace_part(lake: Lake, shard: Shard) -> None:
    """Commit a shard anew, with the statistics of one of its units alone."""
    for table in ("token_stats", "files"):
        groups = list(lake.iterate_part(table, shard))
        with lake.write_part(table, shard) as part:
            if table == "files":
                part.commit_facts = {"source": "memory://later", "path": "{layer}/{unit}.json"}
            for group in groups if table == "files" else groups[:1]:
                part.write(group)


def built_anew(lake: Lake, root: Path) -> Lake:
    return build(Lake(shutil.copytree(lake.root, root, ignore=shutil.ignore_patterns("*.duckdb"))))


def answers(lake: Lake) -> list[list[tuple[object, ...]]]:
    """Ask everything about every unit."""
    units = [
        unit for (unit,) in ask(lake, "SELECT unit_id FROM units WHERE component <> 'attn_write_norm' ORDER BY ALL")
    ]
    macros = ("similar_units", "units_with_shared_texts", "coactive_units")
    matches = ask(lake, "FROM match_units('mlp_post_act', 'mlp_post_act')")
    return [matches, *(ask(lake, f"FROM {macro}($u)", u=unit) for macro in macros for unit in units)]


def failing(lake: Lake) -> list[tuple[object, ...]]:
    query = catalogue.read_sql("checks")["profiles_agree"].rstrip().removesuffix(";")
    return ask(lake, f"SELECT model, component, layer, unit FROM ({query})")
