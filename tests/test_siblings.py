"""The siblings: explanations, related units and related tokens, from files to SQL."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import warehouse
from tests.builds import XL, Mirror, build
from warehouse.catalogue import build_catalogue
from warehouse.checks import run_checks
from warehouse.datasets import Dataset, activation_datasets, builtin_datasets
from warehouse.decode.siblings import LONGEST_TEXT, MOST_ENTRIES
from warehouse.errors import LakeError, MalformedFile, UnknownUnit
from warehouse.export import export_neuron_records
from warehouse.flatten import Flattener
from warehouse.lake import Lake
from warehouse.mirror import make_mirror
from warehouse.mirror.siblings import N_RELATED
from warehouse.plan import Selection
from warehouse.reader import LakeReader
from warehouse.records import LIMITS, UnitId
from warehouse.schema import arrow_schema
from warehouse.siblings import SiblingFlattener, flattener_for

SIBLINGS = {key: d for key, d in builtin_datasets().items() if d.holds != "activations"}
EXPLANATIONS = SIBLINGS["gpt2-xl/explanations"]
NEURONS = SIBLINGS["gpt2-xl/related_neurons"]
BY_ACTIVATION = SIBLINGS["gpt2-xl/related_tokens_by_activation"]
BY_WEIGHT = SIBLINGS["gpt2-xl/related_tokens_by_weight"]
REAL = Path(__file__).parents[2] / "shared" / "real"
Rows = list[dict[str, Any]]


def flatten(dataset: Dataset, data: bytes, layer: int = 3, unit: int = 14) -> dict[str, Rows]:
    """Give the rows of one file by table."""
    flattener = SiblingFlattener(dataset)
    flattener.add(layer, unit, data)
    return {table: rows.to_pylist() for table, rows in flattener.flush().items()}


def only(dataset: Dataset, content: object) -> Rows:
    """Give the rows of one file in its dataset's first table."""
    return next(iter(flatten(dataset, json.dumps(content).encode()).values()))


def pick(rows: Rows, *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(row[column] for column in columns) for row in rows]


def explain(*explanations: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"dataclass_name": "NeuronSimulationResults", "scored_explanations": list(explanations), **fields}


def scored(text: Any = " cats", **scores: Any) -> dict[str, Any]:
    return {"explanation": text, "scored_simulation": {"scored_sequence_simulations": [], **scores}}


# explanations --------------------------------------------------------------------------------------------------------


def test_an_explanation_has_a_row_with_its_first_score_and_a_row_for_each_score_that_is_a_number() -> None:
    scores = {"ev_correlation_score": 0.75, "rsquared_score": None, "absolute_dev_explained_score": -0.25}
    content = explain(scored(" cats", **scores), scored(" dogs"), neuron_id={"layer_index": 3, "neuron_index": 14})
    rows = flatten(EXPLANATIONS, json.dumps(content).encode())
    assert rows["explanations"] == [
        {
            "unit": 14, "about": "mlp_post_act", "rank": rank, "explanation": text, "explainer": None, "score": score,
            "score_kind": "ev_correlation", "origin": "openai", "created_at": None,
        }
        for rank, text, score in ((0, " cats", 0.75), (1, " dogs", None))
    ]  # fmt: skip
    assert pick(rows["explanation_scores"], "unit", "rank", "score_kind", "score", "origin") == [
        (14, 0, "ev_correlation", 0.75, "openai"),
        (14, 0, "absolute_dev_explained", -0.25, "openai"),
    ]


@pytest.mark.parametrize("undefined", ["NaN", "Infinity", "-Infinity", "null"])
def test_a_score_that_is_no_number_is_null_and_has_no_row_of_its_own(undefined: str) -> None:
    data = json.dumps(explain(scored(ev_correlation_score=0.5))).replace("0.5", undefined).encode()
    rows = flatten(EXPLANATIONS, data)
    assert pick(rows["explanations"], "explanation", "score") == [(" cats", None)]
    assert rows["explanation_scores"] == []


@given(st.lists(st.text(alphabet='NaN"\\\\n: ,', max_size=12), min_size=1, max_size=6))
def test_a_bare_nan_is_told_from_one_in_a_text(texts: list[str]) -> None:
    nan = float("nan")
    content = explain(*(scored(text, ev_correlation_score=nan, rsquared_score=0.5) for text in texts))
    rows = flatten(EXPLANATIONS, json.dumps(content).encode())
    assert pick(rows["explanations"], "explanation", "score") == [(text, None) for text in texts]
    assert pick(rows["explanation_scores"], "score_kind", "score") == [("rsquared", 0.5)] * len(texts)


def test_the_old_names_of_the_fields_are_read() -> None:
    content = {
        "dataclass_name": "NeuronSimulationResults",
        "neuron_id": {"layer": "3", "idx": 14},
        "scored_explanation_or_baseline_list": [
            {
                "dataclass_name": "ScoredExplanationOrBaseline",
                "explanation_or_baseline": " cats",
                "scored_simulation": {"ev_correlation_score": 0.5, "response": {"deleted": [1]}},
            }
        ],
    }
    assert pick(only(EXPLANATIONS, content), "explanation", "score") == [(" cats", 0.5)]


@pytest.mark.parametrize("key", ["attention_head_id", "attention_id"])
def test_explanations_of_heads_are_scored_by_the_area_under_the_curve(key: str) -> None:
    content = {
        "dataclass_name": "AttentionSimulationResults",
        key: {"layer_index": 3, "neuron_index": 14},
        "scored_explanations": [{"explanation": "names", "scored_attention_simulation": {"roc_auc_score": 0.875}}],
    }
    rows = flatten(EXPLANATIONS, json.dumps(content).encode())
    assert pick(rows["explanations"], "explanation", "score", "score_kind") == [("names", 0.875, "roc_auc")]
    assert pick(rows["explanation_scores"], "score_kind", "score") == [("roc_auc", 0.875)]


def test_what_has_no_name_and_no_id_is_known_by_its_list() -> None:
    assert only(EXPLANATIONS, {"scored_explanations": []}) == []
    assert only(EXPLANATIONS, {"scored_explanations": None}) == []
    assert pick(only(EXPLANATIONS, {"scored_explanations": [scored()]}), "unit", "explanation") == [(14, " cats")]


def test_lines_of_one_file_are_numbered_on() -> None:
    lines = [json.dumps(explain(scored(text))) for text in ("a", "b", "c")]
    rows = flatten(EXPLANATIONS, "\r\n".join(["", *lines, ""]).encode())["explanations"]
    assert pick(rows, "rank", "explanation") == [(0, "a"), (1, "b"), (2, "c")]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_json_may_be_on_many_lines_marked_or_packed(indent: int | None, mark: bytes) -> None:
    data = mark + json.dumps(explain(scored("a"), scored("b")), indent=indent).encode()
    flattener = SiblingFlattener(EXPLANATIONS)
    assert flattener.add(0, 0, data) == "json"
    assert flattener.add(0, 1, gzip.compress(data)) == "json+gzip"
    assert pick(flattener.flush()["explanations"].to_pylist(), "unit", "explanation") == [
        (0, "a"), (0, "b"), (1, "a"), (1, "b"),
    ]  # fmt: skip


def test_half_of_a_surrogate_pair_reads_as_the_replacement_character() -> None:
    data = json.dumps(explain(scored("TEXT"))).replace("TEXT", "a\\ud83d\\u0000 \\ud83d\\ude00").encode()
    assert pick(flatten(EXPLANATIONS, data)["explanations"], "explanation") == [("a\ufffd\x00 😀",)]


# related units and tokens --------------------------------------------------------------------------------------------


def test_related_units_are_read_from_both_sides_and_signs_with_nulls_kept_in_their_places() -> None:
    side = {
        "top_positive_neurons": ["2_7", None, "0_6399"],
        "top_positive_weights": [1.5, 1.25, None],
        "top_negative_neurons": ["1_3"],
        "top_negative_weights": [-2.0],
    }
    columns = "direction", "sign", "rank", "related_layer", "related_unit", "weight"
    upstream = [
        ("upstream", "positive", 0, 2, 7, 1.5),
        ("upstream", "positive", 2, 0, 6399, None),
        ("upstream", "negative", 0, 1, 3, -2.0),
    ]
    assert pick(only(NEURONS, {"c_fc": side, "c_proj": None}), *columns) == upstream
    downstream = [("downstream", *row[1:]) for row in upstream]
    assert pick(only(NEURONS, {"c_proj": side}), *columns) == downstream
    assert only(NEURONS, {"c_fc": None, "c_proj": None}) == []


def test_tokens_by_activation_have_neither_direction_nor_sign_and_their_nulls_are_kept_in_place() -> None:
    content = {"tokens": [" cat", None, "\ufffd", " dog"], "average_activations": [2.5, None, None, float("nan")]}
    assert pick(only(BY_ACTIVATION, content), "basis", "direction", "sign", "rank", "token", "strength") == [
        ("activation", None, None, 0, " cat", 2.5),
        ("activation", None, None, 2, "\ufffd", None),
        ("activation", None, None, 3, " dog", None),
    ]


def test_tokens_by_weight_are_read_from_all_four_lists() -> None:
    content = {
        f"{direction}_{sign}": {"tokens": [direction, sign], "strengths": [2.0, 1.0]}
        for direction in ("input", "output")
        for sign in ("positive", "negative")
    }
    assert pick(only(BY_WEIGHT, content), "basis", "direction", "sign", "rank", "token", "strength") == [
        ("weight", direction, sign, rank, token, strength)
        for direction in ("input", "output")
        for sign in ("positive", "negative")
        for rank, token, strength in ((0, direction, 2.0), (1, sign, 1.0))
    ]
    assert only(BY_WEIGHT, {"input_positive": None, "output_negative": {"tokens": None, "strengths": None}}) == []


# hostile files -------------------------------------------------------------------------------------------------------

DEEP = b'{"scored_explanations": ' + b"[" * 100 + b"]" * 100 + b"}"
BAD_TEXTS = [
    (b"", "an empty file"),
    (b"<!DOCTYPE html><html><body>Not found</body></html>", "an HTML page"),
    (b'<?xml version="1.0"?><Error><Code>BlobNotFound</Code></Error>', "an XML document"),
    (b"[1, 2]", "not a JSON object"),
    (b"{}", "an empty mapping"),
    (b'{"a": 1}', "a mapping of 'a' (1)"),
    (b'{"scored_explanations": [', "broken JSON"),
    (b'{"scored_explanations": []}\n{"scored_explanations": [}', "broken JSON"),
    (b'{"scored_explanations": []} {"scored_explanations": []}', "broken JSON"),
    (b"\x80\x04}q\x00.", "in the form pickle"),
    (b"PK\x03\x04" + bytes(40), "in the form torch-zip"),
    (gzip.compress(b"<html>"), "an HTML page"),
    (gzip.compress(gzip.compress(b"{}")), "in the form gzip"),
    (gzip.compress(b'{"scored_explanations": []}')[:-9], "ends too early"),
    (gzip.compress(b" " * (LIMITS.file_bytes + 1)), "holds more than"),
    (DEEP, "nested 101 deep"),
    (b'{"scored_explanations": [' + b"[]," * 9_000_000 + b"[]]}", "which no unit has"),
    (b'{"scored_explanations": [' + b"0," * MOST_ENTRIES + b"0]}", "not a list of at most"),
    (b'{"scored_explanations": "\xff"}', "broken JSON"),
    (b'{"scored_explanations": NaNNaN}', "broken JSON"),
    (b'{"scored_explanations": NaN, "' + b'\\"' * 2_000_000, "broken JSON"),
    (b'{"scored_explanations": NaN' + b',""' * 5_000_000, "broken JSON"),
    (b'{"scored_explanations": [' + b"NaN," * 2_000_000 + b"NaN]}", "not a list of at most"),
]


@pytest.mark.parametrize(("data", "says"), BAD_TEXTS, ids=[str(says) for _, says in BAD_TEXTS])
def test_a_file_that_is_something_else_is_rejected_with_what_it_is(data: bytes, says: str) -> None:
    for dataset in (EXPLANATIONS, NEURONS, BY_WEIGHT) if len(data) < 100 else (EXPLANATIONS,):
        with pytest.raises(MalformedFile) as caught:
            flatten(dataset, data)
    if dataset is EXPLANATIONS or b"scored_explanations" not in data:
        assert says in str(caught.value)
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


BAD_EXPLANATIONS: list[tuple[object, str]] = [
    ({"dataclass_name": "NeuronRecord", "scored_explanations": []}, "not the explanations of a unit"),
    ({"dataclass_name": "NeuronSimulationResults"}, "not the explanations of a unit"),
    (explain(neuron_id={"layer_index": 4, "neuron_index": 14}), "neuron_id.layer_index is 4, but the file's path says"),
    (explain(neuron_id={"layer": 3, "idx": 15}), "neuron_id.idx is 15, but the file's path says unit 14"),
    (explain(attention_id={"layer_index": 9}), "attention_id.layer_index is 9"),
    (explain(neuron_id=[3, 14]), "neuron_id: list of 2, the first 3, not a mapping"),
    (explain(neuron_id={"layer_index": 3.5}), "neuron_id.layer_index: 3.5, not an index"),
    ({"scored_explanations": {"a": 1}}, "scored_explanations: a mapping of"),
    ({"scored_explanations": ["cats"]}, "scored_explanations[0]: 'cats', not a scored explanation"),
    (explain(scored(), scored(None)), "scored_explanations[1].explanation: null, not a text"),
    (explain({"scored_simulation": {}}), "scored_explanations[0].explanation: null, not a text"),
    (explain(scored(17)), "explanation: 17, not a text"),
    (explain(scored("x" * (LONGEST_TEXT + 1))), "not a text of at most 65536 characters"),
    (explain(scored(ev_correlation_score="good")), "ev_correlation_score: 'good', not a number"),
    (explain(scored(rsquared_score=[0.5])), "rsquared_score: list of 1, the first 0.5, not a number"),
    (explain(scored(rsquared_score=True)), "rsquared_score: true, not a number"),
    (explain(scored(rsquared_score=10**400)), "broken JSON: number is infinity"),
    (explain({"explanation": "a", "scored_simulation": [1]}), "scored_simulation: list of 1"),
]
SIDE = {"top_positive_neurons": ["1_2"], "top_positive_weights": [1.0]}
BAD_NEURONS: list[tuple[object, str]] = [
    ({"c_fc": [1]}, "c_fc: list of 1, the first 1, not a mapping"),
    ({"c_fc": {**SIDE, "top_positive_weights": []}}, "c_fc.top_positive_neurons: 1 of them for 0"),
    ({"c_fc": {**SIDE, "top_positive_weights": None}}, "c_fc.top_positive_neurons: 1 of them for 0"),
    ({"c_fc": {**SIDE, "top_positive_weights": ["x"]}}, "c_fc.top_positive_weights[0]: 'x', not a number"),
    ({"c_fc": {**SIDE, "top_positive_weights": [1e39]}}, "beyond float32"),
    *(
        ({"c_proj": {**SIDE, "top_positive_neurons": [name]}}, f"c_proj.top_positive_neurons[0]: {said}")
        for name, said in (
            ("1-2", "'1-2', not a unit"),
            ("1_2_3", "'1_2_3', not a unit"),
            ("1_2\n", "'1_2\\n', not a unit"),
            ("-1_2", "'-1_2', not a unit"),
            ("1_٢", "'1_٢', not a unit"),
            ("1_" + "9" * 5000, "'1_9999"),
            ([1, 2], "list of 2, the first 1, not a unit"),
            ("48_0", "'48_0', beyond 48 layers of 6400 units"),
            ("47_6400", "'47_6400', beyond"),
        )
    ),
]
BAD_TOKENS: list[tuple[object, str]] = [
    ({"tokens": ["a"], "average_activations": [1, 2]}, "tokens: 1 of them for 2 average_activations"),
    ({"tokens": "abc", "average_activations": [1, 2, 3]}, "tokens: 'abc', not a list"),
    ({"tokens": [5], "average_activations": [1]}, "tokens[0]: 5, not a text"),
    ({"tokens": ["a"], "average_activations": [[1]]}, "average_activations[0]: list of 1"),
    ({"tokens": ["x" * 5000], "average_activations": [1]}, "not a text of at most 4096 characters"),
    ({"tokens": ["a"]}, "not the related tokens of one unit"),
    ({"input_positive": {"tokens": ["a"], "strengths": []}}, "input_positive.tokens: 1 of them for 0 strengths"),
    ({"output_negative": {"tokens": ["a"], "strengths": [float("inf")]}}, "output_negative.strengths[0]"),
]
BAD = [
    *((EXPLANATIONS, content, says) for content, says in BAD_EXPLANATIONS),
    *((NEURONS, content, says) for content, says in BAD_NEURONS),
    *((BY_WEIGHT, content, says) for content, says in BAD_TOKENS),
]


@pytest.mark.parametrize(("dataset", "content", "says"), BAD, ids=[f"{d.holds}: {says}"[:70] for d, _, says in BAD])
def test_a_wrong_value_is_rejected_with_its_place_and_nothing_is_appended(
    dataset: Dataset, content: object, says: str
) -> None:
    flattener = SiblingFlattener(dataset)
    with pytest.raises(MalformedFile) as caught:
        flattener.add(3, 14, json.dumps(content).encode())
    assert says in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
    assert all(rows.num_rows == 0 for rows in flattener.flush().values())


def test_lines_that_are_many_together_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warehouse.siblings._MOST_ROWS", 6)
    lines = [json.dumps(explain(scored(ev_correlation_score=0.5)))] * 4
    assert len(flatten(EXPLANATIONS, "\n".join(lines[:3]).encode())["explanations"]) == 3
    with pytest.raises(MalformedFile, match="a file of 8 rows, beyond 6"):
        flatten(EXPLANATIONS, "\n".join(lines).encode())


def test_related_lists_in_several_objects_are_rejected() -> None:
    line = json.dumps({"tokens": ["a"], "average_activations": [1]})
    with pytest.raises(MalformedFile, match="of one unit"):
        flatten(BY_ACTIVATION, f"{line}\n{line}".encode())


@given(st.binary(max_size=60), st.integers(0, 400), st.integers(1, 40))
def test_damage_gives_rows_or_a_rejection_and_nothing_else(junk: bytes, at: int, n: int) -> None:
    data = json.dumps(explain(scored(ev_correlation_score=0.5), neuron_id={"layer_index": 3})).encode()
    damaged = data[:at] + junk + data[at + n :]
    try:
        rows = flatten(EXPLANATIONS, damaged)
    except MalformedFile as e:
        assert str(e).isprintable()
    else:
        assert all(len(row["explanation"]) <= LONGEST_TEXT for row in rows["explanations"])


# round trips ---------------------------------------------------------------------------------------------------------

TEXTS = st.text(max_size=20)
SCORES = st.none() | st.floats(width=64)
NUMBERS = st.none() | st.just(float("nan")) | st.floats(-(2.0**100), 2.0**100, width=32)


def defined(number: float | None) -> float | None:
    """Give a number; None where it is NaN or infinite."""
    return number if number is not None and abs(number) < float("inf") else None


@given(st.lists(st.tuples(TEXTS, SCORES, SCORES), max_size=6))
def test_every_explanation_and_score_comes_back(entries: list[tuple[str, float | None, float | None]]) -> None:
    content = explain(*(scored(t, ev_correlation_score=a, rsquared_score=b) for t, a, b in entries))
    rows = flatten(EXPLANATIONS, json.dumps(content).encode())
    clean = [t.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for t, _, _ in entries]
    assert pick(rows["explanations"], "rank", "explanation", "score") == [
        (rank, text, defined(a)) for rank, (text, (_, a, _)) in enumerate(zip(clean, entries, strict=True))
    ]
    assert pick(rows["explanation_scores"], "rank", "score_kind", "score") == [
        (rank, kind, score)
        for rank, (_, *scores) in enumerate(entries)
        for kind, score in zip(("ev_correlation", "rsquared"), scores, strict=True)
        if defined(score) is not None
    ]


@given(st.lists(st.tuples(st.none() | TEXTS, NUMBERS), max_size=8), st.sampled_from([BY_ACTIVATION, BY_WEIGHT]))
def test_every_related_token_comes_back(entries: list[tuple[str | None, float | None]], dataset: Dataset) -> None:
    tokens, strengths = [token for token, _ in entries], [strength for _, strength in entries]
    if dataset is BY_ACTIVATION:
        content: dict[str, Any] = {"tokens": tokens, "average_activations": strengths}
    else:
        content = {"output_negative": {"tokens": tokens, "strengths": strengths}}
    assert pick(only(dataset, content), "rank", "token", "strength") == [
        (rank, token, defined(strength)) for rank, (token, strength) in enumerate(entries) if token is not None
    ]


@given(st.lists(st.tuples(st.integers(0, 47), st.integers(0, 6399), NUMBERS), max_size=8))
def test_every_related_unit_comes_back(entries: list[tuple[int, int, float | None]]) -> None:
    side = {
        "top_negative_neurons": [f"{layer}_{unit}" for layer, unit, _ in entries],
        "top_negative_weights": [weight for *_, weight in entries],
    }
    assert pick(only(NEURONS, {"c_fc": side}), "related_layer", "related_unit", "weight") == [
        (layer, unit, defined(weight)) for layer, unit, weight in entries
    ]


# the interface of a shard --------------------------------------------------------------------------------------------


def test_each_dataset_has_a_flattener_that_gives_just_the_tables_it_names() -> None:
    for key, dataset in builtin_datasets().items():
        flattener = flattener_for(dataset)
        assert isinstance(flattener, Flattener) == (key in activation_datasets())
        tables = flattener.flush()
        assert tuple(tables) == flattener.tables
        assert {table: rows.schema.names for table, rows in tables.items()} == {
            table: arrow_schema(table).names for table in flattener.tables
        }


def test_many_units_are_given_in_the_order_of_their_files_and_a_flush_begins_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("warehouse.siblings._ROW_GROUP_ROWS", 3)
    flattener = SiblingFlattener(EXPLANATIONS)
    data = json.dumps(explain(scored())).encode()
    fullness = []
    for unit in (4, 5, 9):
        flattener.add(0, unit, data)
        fullness.append(flattener.is_full)
    assert fullness == [False, False, True]
    assert flattener.flush()["explanations"]["unit"].to_pylist() == [4, 5, 9]
    assert not flattener.is_full
    assert flattener.flush()["explanations"].num_rows == 0


# lakes ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sibling_mirror(tmp_path_factory: pytest.TempPathFactory, xl_mirror: Mirror) -> Mirror:
    """The XL mirror and all siblings of both models, one file spoilt and one absent."""
    spec = replace(
        xl_mirror.spec,
        datasets=(XL, *SIBLINGS.values()),
        layers=(0, 1, 47),
        bad={UnitId.parse("gpt2-xl/explanations/0/2"): "html"},
        absent=frozenset({UnitId.parse("gpt2-xl/explanations/0/3")}),
    )
    root = tmp_path_factory.mktemp("sibling_mirror")
    return Mirror(root, spec, make_mirror(root, spec, seed=1))


@pytest.fixture(scope="module")
def sibling_lake(tmp_path_factory: pytest.TempPathFactory, sibling_mirror: Mirror) -> Lake:
    lake = Lake(tmp_path_factory.mktemp("sibling_lake") / "lake")
    xl = Selection((0, 1, 47), tuple(range(8)))
    build(lake, sibling_mirror.root, [key for key in (XL.key, *SIBLINGS) if key.startswith("gpt2-xl")], xl)
    build(lake, sibling_mirror.root, ["gpt2-small/explanations"], Selection((0, 1), tuple(range(8))))
    build_catalogue(lake)
    return lake


@pytest.fixture(scope="module")
def reader(sibling_lake: Lake) -> Any:
    with warehouse.open(sibling_lake.root) as reader:
        yield reader


def test_the_files_of_siblings_are_made_without_changing_those_of_the_activations(
    sibling_mirror: Mirror, xl_mirror: Mirror
) -> None:
    paths = [XL.paths[0].format(layer=layer, unit=unit) for layer in (0, 1) for unit in range(8)]
    for path in paths:
        assert (sibling_mirror.root / path).read_bytes() == (xl_mirror.root / path).read_bytes()


def test_every_file_has_a_status_under_the_siblings_name(reader: LakeReader) -> None:
    counts = reader.sql(
        "SELECT component, status, count(*) AS n FROM files WHERE model = 'gpt2-xl' GROUP BY ALL ORDER BY ALL"
    ).rows()
    assert counts == [
        ("explanations", "absent", 1),
        ("explanations", "ok", 22),
        ("explanations", "rejected", 1),
        *((name, "ok", 24) for name in sorted(["mlp_post_act", "related_neurons"])),
        ("related_tokens_by_activation", "ok", 24),
        ("related_tokens_by_weight", "ok", 24),
    ]
    (error,) = reader.sql("SELECT error FROM files WHERE status = 'rejected'")["error"]
    assert error.startswith("an HTML page")


def test_the_rows_of_every_view_are_about_units_and_join_with_them(reader: LakeReader) -> None:
    for view in ("explanations", "explanation_scores", "related_units", "related_tokens"):
        n, n_joined, components = reader.sql(
            f"SELECT count(*), count(u.unit_id), list(DISTINCT v.component) FROM {view} AS v "
            "LEFT JOIN units AS u USING (unit_id) WHERE v.model = 'gpt2-xl'"
        ).row(0)
        assert n == n_joined > 0, view
        assert components == ["mlp_post_act"], view


def test_explanations_name_the_tokens_on_which_their_units_are_strongest(
    reader: LakeReader, sibling_mirror: Mirror
) -> None:
    rows = reader.sql("SELECT unit_id, dataset, explanation, score FROM explanations WHERE model = 'gpt2-xl'").rows()
    assert len(rows) == 22
    for unit_id, dataset, explanation, score in rows:
        assert dataset == "gpt2-xl/explanations"
        for plant in sibling_mirror.report.planted[UnitId.parse(unit_id)]:
            assert f'"{plant.token.strip()}"' in explanation
        assert 0.5 < score <= 1


def test_the_scores_of_both_models_are_told_apart_by_their_dataset(reader: LakeReader) -> None:
    datasets = reader.sql("SELECT dataset, count(*) AS n FROM explanations GROUP BY ALL ORDER BY ALL").rows()
    assert datasets == [("gpt2-small/explanations", 16), ("gpt2-xl/explanations", 22)]


def test_related_units_have_names_of_the_component_and_the_ends_of_the_model_one_side(reader: LakeReader) -> None:
    sides = reader.sql(
        "SELECT layer, direction, sign, count(*) // 8 AS n FROM related_units GROUP BY ALL ORDER BY ALL"
    ).rows()
    both = [(d, s, N_RELATED) for d in ("downstream", "upstream") for s in ("negative", "positive")]
    assert sides == [(0, *row) for row in both[:2]] + [(1, *row) for row in both] + [(47, *row) for row in both[2:]]
    names = reader.sql("SELECT related_unit_id, related_layer, related_unit FROM related_units").rows()
    assert all(name == f"gpt2-xl/mlp_post_act/{layer}/{unit}" for name, layer, unit in names)


def test_related_tokens_are_those_of_the_files(reader: LakeReader, sibling_mirror: Mirror) -> None:
    file = sibling_mirror.root / BY_WEIGHT.paths[0].format(layer=1, unit=5)
    lists = json.loads(file.read_bytes())
    found = reader.sql(
        "SELECT concat_ws('_', direction, sign), rank, token, strength FROM related_tokens "
        "WHERE unit_id = 'gpt2-xl/mlp_post_act/1/5' AND basis = 'weight'"
    ).rows()
    assert sorted(found) == sorted(
        (key, rank, token, strength)
        for key in ("input_positive", "input_negative", "output_positive", "output_negative")
        for rank, (token, strength) in enumerate(zip(lists[key]["tokens"], lists[key]["strengths"], strict=True))
    )
    unknown = reader.sql("SELECT DISTINCT rank FROM related_tokens WHERE strength IS NULL").rows()
    assert unknown == [(N_RELATED - 1,)]


def test_a_file_of_a_sibling_is_no_unit_and_no_neuron_record_and_says_where_its_rows_are(
    reader: LakeReader, sibling_lake: Lake, tmp_path: Path
) -> None:
    (layer, unit), *_ = reader.sql(
        "SELECT layer, unit FROM files WHERE component = 'explanations' AND status = 'ok'"
    ).rows()
    with pytest.raises(
        UnknownUnit, match=rf"is no unit: ask .*FROM explanations WHERE unit_id = '[^']+/{layer}/{unit}'"
    ):
        reader.unit(UnitId("gpt2-xl", "explanations", layer, unit))
    with pytest.raises(LakeError, match=r"^gpt2-xl/explanations holds no NeuronRecords but explanations"):
        export_neuron_records(sibling_lake, ["gpt2-xl/explanations"], Selection(), tmp_path)


def test_coverage_counts_a_sibling_by_its_own_name(reader: LakeReader) -> None:
    (row,) = reader.sql(
        "SELECT expected, ok, absent, rejected, failed, missing FROM coverage "
        "WHERE model = 'gpt2-xl' AND component = 'explanations' AND layer = 0"
    ).rows()
    assert row == (6400, 6, 1, 1, 0, 6392)


def test_every_check_passes_on_a_lake_with_siblings(sibling_lake: Lake) -> None:
    assert {result.name: result.sample for result in run_checks(sibling_lake) if result.n_failing} == {}


# the published files -------------------------------------------------------------------------------------------------

needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the published excerpts are not beside the checkout")


@needs_real
def test_every_published_explanation_comes_out_with_its_score_and_joins_its_unit(tmp_path: Path) -> None:
    expected = {}
    for path in (REAL / "data/explanations").glob("*/*.jsonl"):
        (entry,) = json.loads(path.read_bytes())["scored_explanations"]
        unit_id = f"gpt2-xl/mlp_post_act/{path.parent.name}/{path.stem}"
        expected[unit_id] = (entry["explanation"], entry["scored_simulation"]["ev_correlation_score"])
    places = [UnitId.parse(unit_id) for unit_id in expected]
    chosen = Selection(tuple(sorted({u.layer for u in places})), tuple(sorted({u.unit for u in places})))
    lake = Lake(tmp_path / "lake")
    build(lake, REAL, [EXPLANATIONS.key, XL.key], chosen)
    build_catalogue(lake)
    with warehouse.open(lake.root) as reader:
        rows = reader.sql(
            "SELECT unit_id, explanation, score, max_activation FROM explanations JOIN units USING (unit_id)"
        ).rows()
    assert {unit_id: (text, score) for unit_id, text, score, _ in rows} == expected
    assert len(rows) == 6
    assert all(largest > 3 for *_, largest in rows)


@needs_real
def test_every_published_summary_is_an_explanation_that_can_be_told_from_its_file() -> None:
    flattener = SiblingFlattener(EXPLANATIONS)
    with gzip.open(REAL / "xl_explanations.jsonl.gz", "rt", encoding="utf-8") as file:
        entries = [json.loads(line) for line in file]
    assert len(entries) > 8000
    for entry in entries:
        content = explain(scored(entry["explanation"], ev_correlation_score=entry["score"]))
        flattener.add(entry["layer"], entry["unit"], json.dumps(content).encode())
    rows = flattener.flush()["explanations"].to_pylist()
    assert pick(rows, "unit", "explanation", "score") == [(e["unit"], e["explanation"], e["score"]) for e in entries]
