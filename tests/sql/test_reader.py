"""The Python reader: whole units, and what it says of those that are not there."""

from __future__ import annotations

import threading

import numpy as np
import polars as pl
import pytest

import warehouse
from tests.sql.lakes import LATENTS, NEURONS, Content
from warehouse.errors import UnknownUnit
from warehouse.lake import Lake
from warehouse.reader import LakeReader
from warehouse.records import NeuronRecord, UnitId


def assert_same(found: NeuronRecord, expected: NeuronRecord, name: UnitId) -> None:
    assert (found.layer_index, found.unit_index) == (name.layer, name.unit)
    for moment in ("mean", "variance", "skewness", "kurtosis", "quantile_boundaries"):
        assert getattr(found, moment) == getattr(expected, moment)
    assert (found.random_sample_by_quantile is None) == (expected.random_sample_by_quantile is None)
    lists = [
        (found.most_positive_activation_records, expected.most_positive_activation_records),
        (found.random_sample, expected.random_sample),
        *zip(found.random_sample_by_quantile or [], expected.random_sample_by_quantile or [], strict=True),
    ]
    for found_list, expected_list in lists:
        assert [r.tokens for r in found_list] == [r.tokens for r in expected_list]
        for got, wanted in zip(found_list, expected_list, strict=True):
            assert got.activations.dtype == np.float32
            np.testing.assert_array_equal(got.activations, wanted.activations)


def test_a_neuron_record_comes_back_as_it_was_with_order_nulls_and_empty_buckets(
    reader: LakeReader, content: Content
) -> None:
    for name, unit in content.units.items():
        assert_same(reader.neuron_record(name), unit, name)
        assert_same(reader.neuron_record(str(name)), unit, name)


def test_records_come_in_the_order_of_the_file(reader: LakeReader, content: Content) -> None:
    name = UnitId.parse(f"{NEURONS}/0/3")
    places = reader.records(name).select("section", "quantile", "rank").rows()
    assert places == (
        [("top", None, r) for r in range(4)]
        + [("random", None, r) for r in range(3)]
        + [("quantile", q, r) for q in (0, 1, 3, 4) for r in range(2)]
    )
    assert reader.records(name, "random")["section"].unique().to_list() == ["random"]


def test_unit_gives_its_figures_in_one_row(reader: LakeReader, content: Content) -> None:
    name = UnitId.parse(f"{NEURONS}/1/600")
    (row,) = reader.unit(name).iter_rows(named=True)
    assert row["unit_id"] == str(name)
    assert (row["mean"], row["n_top"], row["n_buckets"]) == (content.units[name].mean, 4, 5)


@pytest.mark.parametrize(
    ("unit_id", "reason"),
    [
        (f"{NEURONS}/0/7", "is absent: the source has no such file.*memory://mirror/7.json"),
        (f"{NEURONS}/0/3072", "is absent: the source has no such file"),
        (f"{NEURONS}/0/5", "is rejected: rejected for a reason"),
        (f"{NEURONS}/0/6", "is failed: failed for a reason"),
        (f"{NEURONS}/0/100", "not built yet: the lake has layer 0 units 0-600.*--layers 0 --units 100"),
        (f"{NEURONS}/9/100", "layer 1 units 0-600, layer 0 units 0-600 of gpt2-small/mlp_post_act"),
        ("gpt2-small/resid_delta_mlp_ae_v1/0/0", "the lake has nothing of gpt2-small/resid_delta_mlp_ae_v1"),
        (f"{NEURONS}/12/0", "out of range: gpt2-small/mlp_post_act has layers 0-11 with units 0-3071 each"),
        (f"{NEURONS}/1/3072", "out of range"),
        (
            "gpt3/mlp_post_act/0/0",
            "no known dataset: did you mean gpt2-xl/mlp_post_act.* known are gpt2-small/attn_write_norm, ",
        ),
        ("5/131", "is not a unit_id"),
    ],
)
def test_a_unit_that_is_not_there_says_why_and_what_is(reader: LakeReader, unit_id: str, reason: str) -> None:
    for ask in (reader.unit, reader.neuron_record):
        with pytest.raises(UnknownUnit, match=reason):
            ask(unit_id)


def test_a_dead_latent_has_a_row_and_no_records(reader: LakeReader) -> None:
    assert reader.unit(f"{LATENTS}/0/0")["max_activation"].to_list() == [None]
    assert reader.records(f"{LATENTS}/0/0").is_empty()
    assert reader.top_tokens(f"{LATENTS}/0/0").is_empty()


def test_sql_takes_parameters_by_place_and_by_name(reader: LakeReader) -> None:
    assert reader.sql("SELECT ? + ? AS a", [1, 2]).item() == 3
    assert reader.sql("SELECT $a || $b AS a", {"a": "it's", "b": ' "b'}).item() == "it's \"b"


def test_a_closed_reader_opens_again_when_asked(lake: Lake) -> None:
    reader = warehouse.open(lake.root)
    with reader:
        first = reader.coverage()
    assert reader.coverage().equals(first)
    reader.close()


def test_threads_may_share_a_reader(reader: LakeReader) -> None:
    expected = reader.top_units(" the")
    answers: list[pl.DataFrame] = []
    threads = [threading.Thread(target=lambda: answers.append(reader.top_units(" the"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8 and all(answer.equals(expected) for answer in answers)
