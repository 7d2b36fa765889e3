"""The views against plain Python over the same records."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

import warehouse
from tests.sql.lakes import (
    HEADS,
    NEURONS,
    PAIR_LATENTS,
    XL,
    Content,
    file_row,
    list_pairs,
    list_records,
    make_unit,
    write_lake,
    write_rows,
)
from warehouse.lake import Lake
from warehouse.parts import Shard
from warehouse.reader import LakeReader
from warehouse.records import UnitId

PLACE = ("section", "quantile", "rank")


def pick(content: Content, component: str) -> list[UnitId]:
    return [name for name in content.units if f"{name.model}/{name.component}" == component]


@pytest.mark.parametrize("dataset", [NEURONS, XL])
def test_activations_has_every_position_of_every_record(reader: LakeReader, content: Content, dataset: str) -> None:
    model, component = dataset.split("/")
    found = reader.sql(
        "SELECT unit_id, section, quantile, rank, position, token, activation FROM activations "
        "WHERE model = ? AND component = ?",
        [model, component],
    ).rows()
    expected = [
        (str(name), section, quantile, rank, position, token, float(activation))
        for name in pick(content, dataset)
        for section, quantile, rank, record in list_records(content.units[name])
        for position, (token, activation) in enumerate(zip(record.tokens, record.activations, strict=True))
    ]
    assert Counter(found) == Counter(expected)


@pytest.mark.parametrize("unit_id", [f"{HEADS}/0/0", f"{HEADS}/0/1", f"{PAIR_LATENTS}/3/64"])
def test_pair_activations_takes_triangles_and_trapeziums_apart(
    reader: LakeReader, content: Content, unit_id: str
) -> None:
    found = reader.sql(
        "SELECT section, quantile, rank, query_position, key_position, query_token, key_token, activation "
        "FROM pair_activations WHERE unit_id = ?",
        [unit_id],
    ).rows()
    expected = [
        (section, quantile, rank, query, key, record.tokens[query], record.tokens[key], activation)
        for section, quantile, rank, record in list_records(content.units[UnitId.parse(unit_id)])
        for query, key, activation in list_pairs(record)
    ]
    assert Counter(found) == Counter(expected)


def test_pair_activations_has_every_shape_of_a_record_of_64_tokens(tmp_path: Path) -> None:
    units = {
        UnitId.parse(f"{HEADS}/0/{n_keys % 12}"): make_unit(n_keys, "token_pair", n_keys, n_tokens=64)
        for n_keys in (1, 2, 31, 63, 64)
    }
    lake = write_lake(Lake(tmp_path), Content(units))
    with warehouse.open(lake.root) as reader:
        for name, unit in units.items():
            found = reader.sql(
                "SELECT query_position, key_position, activation FROM pair_activations "
                "WHERE unit_id = ? AND section = 'top' AND rank = 0 ORDER BY query_position, key_position",
                [str(name)],
            ).rows()
            assert found == list_pairs(unit.most_positive_activation_records[0])


def test_activations_are_in_one_view_or_the_other_by_what_they_are_per(reader: LakeReader) -> None:
    per = {(model, component): per for model, component, per in reader.sql(
        "SELECT model, component, per FROM datasets"
    ).rows()}  # fmt: skip
    for view, kind in (("activations", "token"), ("pair_activations", "token_pair")):
        seen = reader.sql(f"SELECT DISTINCT model, component FROM {view}").rows()
        assert seen and {per[dataset] for dataset in seen} == {kind}


def test_coverage_counts_expected_files_by_status_and_others_as_extra(reader: LakeReader) -> None:
    layers = {row[:3]: row[3:] for row in reader.coverage().rows()}
    # expected, ok, absent, rejected, failed, missing, extra
    assert layers["gpt2-small", "mlp_post_act", 0] == (3072, 6, 1, 1, 1, 3063, 1)
    assert layers["gpt2-small", "mlp_post_act", 1] == (3072, 7, 0, 0, 0, 3065, 0)
    assert layers["gpt2-small", "mlp_post_act", 2] == (3072, 0, 0, 0, 0, 3072, 0)
    assert layers["gpt2-small", "attn_write_norm", 0] == (12, 2, 0, 0, 0, 10, 0)
    assert len(layers) == (8 + 1) * 12 + (1 + 4) * 48


def test_coverage_shows_a_layer_past_the_last_as_extra_alone(own_lake: Lake) -> None:
    write_rows(own_lake, "files", Shard("gpt2-small", "attn_write_norm", 12, 0, 511), [file_row(0, "absent")])
    with warehouse.open(own_lake.root) as reader:
        rows = reader.sql("SELECT * EXCLUDE (model, component) FROM coverage WHERE layer = 12 AND model = 'gpt2-small'")
    assert rows.rows() == [(12, 0, 0, 0, 0, 0, 0, 1)]


def test_datasets_has_the_registry_and_what_the_lake_registered(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.register(
        '[[dataset]]\nmodel = "own"\ncomponent = "mlp"\nkind = "neuron"\nper = "token"\nn_layers = 2\n'
        'units_per_layer = 3\npaths = ["{layer}/{unit}.json"]\n'
        '[[dataset.notes]]\ntext = "A caveat."\nsource = "me"\n'
        '[[dataset.notes]]\ntext = "Another."\nsource = "you"\n',
        "own.toml",
    )
    with warehouse.open(tmp_path) as reader:
        own = reader.datasets().filter(model="own").rows()
        assert own == [("own", "mlp", "neuron", "token", "activations", "mlp", 2, 3, "A caveat. (me)\nAnother. (you)")]
        assert reader.datasets().height == 15
