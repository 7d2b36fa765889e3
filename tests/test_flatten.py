"""What flatten counts equals a recount in plain Python, and nothing of a record is lost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse import flatten as flatten_module
from warehouse.datasets import Dataset, builtin_datasets
from warehouse.export import rebuild_record
from warehouse.flatten import Flattener
from warehouse.pairs import unflatten_pairs
from warehouse.records import ActivationRecord, NeuronRecord
from warehouse.schema import arrow_schema
from warehouse.statistics import MAX_PAIRS

PER_TOKEN = builtin_datasets()["gpt2-xl/mlp_post_act"]
PER_PAIR = builtin_datasets()["gpt2-small/resid_delta_attn_ae_v4_by_pair"]

words = st.sampled_from([" a", " b", "c", "\n", '"', "\\", "é", "�", "", " a long token of many letters"])
values = st.one_of(st.sampled_from([0.0, -0.0, 1.0, -1.0]), st.floats(-100, 100, width=32))


@st.composite
def activation_records(draw: st.DrawFn, is_pair: bool) -> ActivationRecord:
    tokens = draw(st.lists(words, max_size=7))
    n = len(tokens)
    n_values = n
    if is_pair and n:
        m = draw(st.integers(1, n))
        n_values = sum(min(i + 1, m) for i in range(n))
    activations = draw(st.lists(values, min_size=n_values, max_size=n_values))
    return ActivationRecord(tokens, np.array(activations, np.float32))


@st.composite
def neuron_records(draw: st.DrawFn, is_pair: bool) -> NeuronRecord:
    records = st.lists(activation_records(is_pair), max_size=5)
    moment = st.one_of(st.none(), st.floats(-10, 10))
    return NeuronRecord(
        layer_index=2,
        most_positive_activation_records=draw(records),
        random_sample=draw(records),
        random_sample_by_quantile=draw(st.one_of(st.none(), st.lists(records, max_size=4))),
        quantile_boundaries=draw(st.one_of(st.none(), st.lists(st.floats(-10, 10), max_size=3))),
        mean=draw(moment),
        variance=draw(moment),
        skewness=draw(moment),
        kurtosis=draw(moment),
    )


def flatten(dataset: Dataset, units: list[NeuronRecord]) -> dict[str, list[dict[str, Any]]]:
    """Flatten units numbered from 0, each from the JSON of its record."""
    flattener = Flattener(dataset)
    for unit, record in enumerate(units):
        flattener.add(2, unit, _numbered(record, unit).to_json())
    tables = flattener.flush()
    for name, table in tables.items():
        assert table.schema.names == arrow_schema(name).names
    return {name: table.to_pylist() for name, table in tables.items()}


def _numbered(record: NeuronRecord, unit: int) -> NeuronRecord:
    fields = {name: getattr(record, name) for name in NeuronRecord.__slots__}
    return NeuronRecord(**(fields | {"unit_index": unit}))


def all_records(record: NeuronRecord) -> Iterator[tuple[str, ActivationRecord]]:
    for r in record.most_positive_activation_records:
        yield "top", r
    for r in record.random_sample:
        yield "random", r
    for bucket in record.random_sample_by_quantile or ():
        for r in bucket:
            yield "quantile", r


def recount(record: NeuronRecord, is_pair: bool) -> dict[Any, dict[str, float]]:
    """Count tokens, or pairs of query and key token, one activation at a time."""
    found: dict[Any, dict[str, float]] = {}
    for section, r in all_records(record):
        keys: list[Any] = list(r.tokens)
        if is_pair:
            queries, attended = unflatten_pairs(len(r.tokens), len(r.activations))
            keys = [(r.tokens[q], r.tokens[k]) for q, k in zip(queries, attended, strict=True)]
        for key, value in zip(keys, r.activations.tolist(), strict=True):
            row = found.setdefault(
                key,
                dict.fromkeys(("n", "n_active", "n_random", "sum", "random", "pos"), 0.0)
                | {"max": -math.inf, "min": math.inf},
            )
            row["n"] += 1
            row["n_active"] += value > 0
            row["max"] = max(row["max"], value)
            row["min"] = min(row["min"], value)
            row["sum"] += value
            row["pos"] += max(value, 0)
            if section == "random":
                row["n_random"] += 1
                row["random"] += value
    return found


def assert_row(row: dict[str, Any], expected: dict[str, float]) -> None:
    assert (row["n"], row["n_active"], row["n_random"]) == (expected["n"], expected["n_active"], expected["n_random"])
    assert row["max_activation"] == np.float32(expected["max"])
    figures = [row["sum_activation"], row["sum_random"], row["sum_positive"]]
    assert figures == pytest.approx([expected["sum"], expected["random"], expected["pos"]], rel=1e-6, abs=1e-4)


@settings(max_examples=100, deadline=None)
@given(st.lists(neuron_records(is_pair=False), max_size=3))
def test_token_stats_equal_a_recount(units: list[NeuronRecord]) -> None:
    rows = flatten(PER_TOKEN, units)["token_stats"]
    for unit, record in enumerate(units):
        expected = {token: row for token, row in recount(record, False).items() if row["n_active"] > 0}
        found = {row["token"]: row for row in rows if row["unit"] == unit}
        assert found.keys() == expected.keys()
        for token, row in found.items():
            assert_row(row, expected[token])
    assert len(rows) == len({(row["unit"], row["token"]) for row in rows})


@settings(max_examples=100, deadline=None)
@given(st.lists(neuron_records(is_pair=True), max_size=3))
def test_pair_stats_equal_a_recount(units: list[NeuronRecord]) -> None:
    rows = flatten(PER_PAIR, units)["pair_stats"]
    for unit, record in enumerate(units):
        expected = {pair: row for pair, row in recount(record, True).items() if row["max"] != 0 or row["min"] != 0}
        found = {(row["query_token"], row["key_token"]): row for row in rows if row["unit"] == unit}
        assert found.keys() == expected.keys()
        for pair, row in found.items():
            assert_row(row, expected[pair])
            assert row["min_activation"] == np.float32(expected[pair]["min"])


def test_pair_stats_keep_the_strongest_pairs_whatever_their_sign() -> None:
    rng = np.random.default_rng(0)
    tokens = [f"t{n}" for n in range(64)]
    record = ActivationRecord(tokens, rng.normal(size=2080).astype(np.float32))
    rows = flatten(PER_PAIR, [NeuronRecord(2, random_sample=[record])])["pair_stats"]
    strengths = [max(row["max_activation"], -row["min_activation"]) for row in rows]
    assert len(rows) == MAX_PAIRS
    assert strengths == sorted(np.abs(record.activations).tolist(), reverse=True)[:MAX_PAIRS]
    assert min(row["min_activation"] for row in rows) < 0


@pytest.mark.parametrize("dataset", [PER_TOKEN, PER_PAIR], ids=["token", "token_pair"])
@settings(max_examples=75, deadline=None)
@given(data=st.data())
def test_units_and_records_say_all_that_the_file_says(dataset: Dataset, data: st.DataObject) -> None:
    units = data.draw(st.lists(neuron_records(dataset.per == "token_pair"), max_size=3))
    tables = flatten(dataset, units)
    for unit, record in enumerate(units):
        rows = [row for row in tables["records"] if row["unit"] == unit]
        rebuilt = rebuild_record(
            2, tables["units"][unit], [(r["section"], r["quantile"], r["tokens"], r["activations"]) for r in rows]
        )
        assert rebuilt.to_json() == _numbered(record, unit).to_json()
        figures = tables["units"][unit]
        tops = [v for r in record.most_positive_activation_records for v in r.activations.tolist()]
        assert figures["max_activation"] == (max(tops) if tops else None)
        randoms = [v for r in record.random_sample for v in r.activations.tolist()]
        share = sum(v > 0 for v in randoms) / len(randoms) if randoms else None
        assert figures["active_fraction"] == pytest.approx(share)
        for row in rows:
            assert row["max_activation"] == max(row["activations"], default=None)
            assert row["argmax"] == (row["activations"].index(row["max_activation"]) if row["activations"] else None)


def test_row_groups_do_not_change_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    record = ActivationRecord([" a", "b"], np.array([1, 2], np.float32))
    units = [_numbered(NeuronRecord(2, random_sample=[record] * 3), unit) for unit in range(10)]
    whole = flatten(PER_TOKEN, units)
    monkeypatch.setattr(flatten_module, "ROW_GROUP_VALUES", 7)
    flattener = Flattener(PER_TOKEN)
    pieces: dict[str, list[dict[str, Any]]] = {name: [] for name in whole}
    n_flushed = 0
    for unit, one in enumerate(units):
        flattener.add(2, unit, one.to_json())
        if flattener.is_full:
            n_flushed += 1
            for name, table in flattener.flush().items():
                pieces[name] += table.to_pylist()
    assert n_flushed == 5
    assert pieces == whole


def test_tokens_stand_in_order_of_frequency_so_that_parts_are_small_and_the_same_each_time() -> None:
    record = ActivationRecord(["rare", "b", "b", "often", "often", "often"], np.ones(6, np.float32))
    flattener = Flattener(PER_TOKEN)
    flattener.add(2, 0, NeuronRecord(2, 0, random_sample=[record]).to_json())
    lists: Any = flattener.flush()["records"]["tokens"].combine_chunks()
    assert lists.values.dictionary.to_pylist() == ["often", "b", "rare"]
