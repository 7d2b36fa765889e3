"""JSON files: every odd form that DATA.md knows, and what is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import orjson
import pytest

from tests.decode.files import LAYER, UNIT, expect, plain, read, record, unit
from warehouse.errors import MalformedFile
from warehouse.records import Limits


def read_unit(**changed: object) -> dict[str, Any]:
    return plain(read(json.dumps(unit(**changed)).encode()).record)


def test_a_whole_record_is_read_in_the_order_of_the_file() -> None:
    found = read(orjson.dumps(unit()))
    assert plain(found.record) == expect(unit())
    assert found.format == "json"


@pytest.mark.parametrize("indent", [None, 2])
def test_key_order_and_spacing_do_not_matter(indent: int | None) -> None:
    backwards = dict(reversed(unit().items()))
    assert plain(read(json.dumps(backwards, indent=indent).encode()).record) == expect(unit())


def test_a_byte_order_mark_and_white_space_around_are_passed_over() -> None:
    data = b"\xef\xbb\xbf \r\n\t" + orjson.dumps(unit()) + b" \n"
    assert plain(read(data).record) == expect(unit())


def test_dataclass_names_may_be_missing_everywhere() -> None:
    data = orjson.dumps(unit())
    for name in (b"NeuronRecord", b"NeuronId", b"ActivationRecord"):
        data = data.replace(b'"dataclass_name":"' + name + b'",', b"")
    assert b"dataclass_name" not in data
    assert plain(read(data).record) == expect(unit())


def test_what_to_json_writes_is_read_back_the_same() -> None:
    first = read(orjson.dumps(unit())).record
    assert plain(read(first.to_json()).record) == plain(first)


@pytest.mark.parametrize(
    "neuron_id",
    [
        {"layer_index": LAYER, "neuron_index": UNIT},
        {"layer": LAYER, "idx": UNIT},
        {"layer": str(LAYER), "idx": UNIT},
        {"layer_index": str(LAYER), "neuron_index": UNIT},
        {"neuron_index": UNIT},
        {"layer_index": None, "neuron_index": None},
        {},
        None,
        ...,
    ],
)
def test_a_unit_is_named_in_old_and_new_keys_as_a_string_or_not_at_all(neuron_id: object) -> None:
    found = read(orjson.dumps(unit(neuron_id=neuron_id))).record
    assert (found.layer_index, found.unit_index) == (LAYER, UNIT)


@pytest.mark.parametrize(
    ("neuron_id", "named"),
    [
        (
            {"layer_index": LAYER, "neuron_index": 132},
            "neuron_id.neuron_index is 132, but the file's path says unit 131",
        ),
        ({"layer": "6", "idx": UNIT}, "neuron_id.layer is 6, but the file's path says layer 5"),
        ({"layer_index": "five", "neuron_index": UNIT}, "neuron_id.layer_index: 'five'"),
        ({"layer_index": 5.0, "neuron_index": UNIT}, "neuron_id.layer_index"),
        ({"layer_index": True}, "neuron_id.layer_index: true"),
        ([5, 131], "neuron_id: list of 2"),
    ],
)
def test_another_unit_than_the_path_names_is_refused(neuron_id: object, named: str) -> None:
    with pytest.raises(MalformedFile, match="neuron_id") as e:
        read(orjson.dumps(unit(neuron_id=neuron_id)))
    assert named in str(e.value)


@pytest.mark.parametrize("missing", [None, ...])
def test_every_field_may_be_missing_or_null(missing: object) -> None:
    fields = [name for name in unit() if name != "dataclass_name"]
    found = read_unit(**dict.fromkeys(fields, missing))
    assert found == expect({})


def test_missing_lists_do_not_take_the_others_with_them() -> None:
    found = read_unit(random_sample=None, random_sample_by_quantile=...)
    assert found["random_sample"] == [] and found["random_sample_by_quantile"] is None
    assert found["most_positive_activation_records"] == expect(unit())["most_positive_activation_records"]


@pytest.mark.parametrize("root", [{}, {"error": "not found"}, {"neuron_id": {"layer_index": 5}}])
def test_a_mapping_without_any_record_list_is_refused_with_its_keys(root: dict[str, object]) -> None:
    with pytest.raises(MalformedFile, match="not a NeuronRecord") as e:
        read(orjson.dumps(root))
    assert all(key in str(e.value) for key in root)


def test_another_dataclass_is_refused_by_its_name() -> None:
    with pytest.raises(MalformedFile, match="NeuronSimulationResults"):
        read(orjson.dumps(unit(dataclass_name="NeuronSimulationResults")))


def test_unknown_keys_are_ignored_wherever_they_are() -> None:
    extra = record() | {"extra": [{"deep": [1]}]}
    assert (
        read_unit(extra={"a": 1}, random_sample=[extra])["random_sample"]
        == expect(unit(random_sample=[record()]))["random_sample"]
    )


def test_the_last_of_equal_keys_counts() -> None:
    assert read(b'{"mean": 1, "random_sample": [], "mean": 2}').record.mean == 2.0


@pytest.mark.parametrize("bare", ["NaN", "null"])
def test_undefined_moments_are_none(bare: str) -> None:
    data = f'{{"mean":{bare},"variance":{bare},"skewness":{bare},"kurtosis":{bare},"random_sample":[]}}'
    assert plain(read(data.encode()).record)["moments"] == [None] * 4


def test_a_bare_nan_leaves_the_rest_of_the_file_as_it_is() -> None:
    data = orjson.dumps(unit(kurtosis="X")).replace(b'"X"', b"NaN")
    assert plain(read(data).record) == expect(unit(kurtosis=None))


def test_an_infinite_moment_is_kept() -> None:
    assert read(b'{"mean": -Infinity, "random_sample": []}').record.mean == -math.inf


@pytest.mark.parametrize("bad", [True, "0.5", [0.5], {}])
def test_a_moment_that_is_no_number_is_refused(bad: object) -> None:
    with pytest.raises(MalformedFile, match="kurtosis: .*not a number"):
        read_unit(kurtosis=bad)


def test_quantile_boundaries_are_kept_and_undefined_ones_are_nan() -> None:
    found = read(b'{"random_sample": [], "quantile_boundaries": [-Infinity, null, NaN, 1]}').record
    assert found.quantile_boundaries is not None
    assert np.array_equal(found.quantile_boundaries, [-math.inf, math.nan, math.nan, 1.0], equal_nan=True)


@pytest.mark.parametrize("bad", [0.5, [True], ["0.5"], {"a": 1}])
def test_quantile_boundaries_that_are_no_numbers_are_refused(bad: object) -> None:
    with pytest.raises(MalformedFile, match="quantile_boundaries"):
        read_unit(quantile_boundaries=bad)


@pytest.mark.parametrize("buckets", [None, [], [[], []], [[record()], [], [record(), record()]], [None]])
def test_quantile_buckets_are_kept_as_they_are_even_when_empty(buckets: object) -> None:
    assert (
        read_unit(random_sample_by_quantile=buckets)["random_sample_by_quantile"]
        == expect(unit(random_sample_by_quantile=buckets))["random_sample_by_quantile"]
    )


def test_a_dead_latent_has_empty_lists_or_zeros() -> None:
    found = read_unit(random_sample=[record((" a",), (0.0,))], most_positive_activation_records=[])
    assert found["random_sample"] == [([" a"], [0.0])] and found["most_positive_activation_records"] == []


@pytest.mark.parametrize("token", ['"', "\\", "\n", "\0", '","', "]", "\ufffd", "é", " 日本", "😀", "", "\x7f"])
def test_tokens_of_any_characters_are_kept(token: str) -> None:
    assert read_unit(random_sample=[record((token, "x"), (1, 2))])["random_sample"] == [([token, "x"], [1.0, 2.0])]


@pytest.mark.parametrize(
    ("escaped", "token"),
    [
        (r"\ud83d", "\ufffd"),
        (r"\uDE00 x", "\ufffd x"),
        (r"a\ud83d\ud83d\ude00", "a\ufffd😀"),
        (r"\ud83d\ude00", "😀"),
        (r"\\ud83d", r"\ud83d"),
    ],
)
def test_a_lone_surrogate_escape_reads_as_the_replacement_character(escaped: str, token: str) -> None:
    data = f'{{"random_sample": [{{"tokens": ["{escaped}"], "activations": [1]}}]}}'
    assert read(data.encode()).record.random_sample[0].tokens == [token]


def test_negative_zero_keeps_its_sign_and_values_are_the_nearest_float32() -> None:
    values = [-0.0, 0.1, 1e-46, 16777217.0, 3.4028235e38, -7]
    data = f'{{"random_sample": [{{"tokens": {json.dumps(["x"] * 6)}, "activations": {values}}}]}}'
    found = read(data.encode()).record.random_sample[0].activations
    assert np.array_equal(found, np.array(values, np.float32)) and np.signbit(found[0])


@pytest.mark.parametrize("bad", ["null", "NaN", "Infinity", "1e39", "-1e999", "true", '"1"', "[1]", "1" + "0" * 400])
def test_an_activation_that_is_no_finite_float32_is_refused_with_its_place(bad: str) -> None:
    data = json.dumps(unit(random_sample=[record(), record(("a", "b"), (1, "BAD"))])).replace('"BAD"', bad)
    with pytest.raises(MalformedFile, match=r"random_sample\[1\]\.activations|number is infinity"):
        read(data.encode())


@pytest.mark.parametrize("bad", [None, True, 1.5, ["x"], {"x": 1}])
def test_a_token_that_is_no_text_is_refused_with_its_place(bad: object) -> None:
    with pytest.raises(MalformedFile, match=r"random_sample\[0\]\.tokens\[1\]: .*not a token's text"):
        read_unit(random_sample=[record(("a", bad), (1, 2))])


def test_lengths_that_do_not_match_are_refused_with_both() -> None:
    with pytest.raises(MalformedFile, match=r"random_sample\[3\]\.activations: 63 values for 64 tokens"):
        read_unit(random_sample=[record()] * 3 + [record(("x",) * 64, (1.0,) * 63)])


@pytest.mark.parametrize("bad", [{}, {"tokens": ["a"]}, {"tokens": None, "activations": None}, [["a"], [1]], 7, None])
def test_something_else_than_a_record_is_refused_with_its_place(bad: object) -> None:
    with pytest.raises(MalformedFile, match=r"most_positive_activation_records\[1\]: .*not a record"):
        read_unit(most_positive_activation_records=[record(), bad])


def test_stacked_lists_stand_for_a_list_of_records() -> None:
    stacked = {"tokens": [["a", "b"], ["c"]], "activations": [[1, 2], [3]]}
    found = read_unit(random_sample=stacked, random_sample_by_quantile=[stacked, []])
    records = [(["a", "b"], [1.0, 2.0]), (["c"], [3.0])]
    assert found["random_sample"] == records and found["random_sample_by_quantile"] == [records, []]


def test_stacked_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(MalformedFile, match="random_sample: 1 rows of activations for 2 rows of tokens"):
        read_unit(random_sample={"tokens": [["a"], ["b"]], "activations": [[1]]})


def test_pair_records_are_triangles_or_trapeziums() -> None:
    records = [record(("a", "b", "c"), tuple(range(n))) for n in (6, 5, 3)] + [record((), ())]
    found = read(orjson.dumps(unit(random_sample=records)), per="token_pair").record.random_sample
    assert [len(r.activations) for r in found] == [6, 5, 3, 0]


@pytest.mark.parametrize("n", [0, 2, 4, 7])
def test_a_pair_record_of_any_other_length_is_refused(n: int) -> None:
    with pytest.raises(MalformedFile, match=rf"random_sample\[0\]\.activations: {n} values for 3 tokens"):
        read(orjson.dumps(unit(random_sample=[record(("a", "b", "c"), (1.0,) * n)])), per="token_pair")


def test_token_ids_are_read_only_where_the_tokenizer_is_known() -> None:
    data = orjson.dumps(unit(random_sample=[record((262, 50256), (1, 2))]))
    assert read(data).record.random_sample[0].tokens == [" the", "<|endoftext|>"]
    with pytest.raises(MalformedFile, match="tokenizer"):
        read(data, tokenizer=None)


@pytest.mark.parametrize("bad", [-1, 50257, 2**63, -(2**70)])
def test_a_token_id_outside_the_vocabulary_is_refused(bad: int) -> None:
    with pytest.raises(MalformedFile, match=r"random_sample\[0\]\.tokens|broken JSON"):
        read_unit(random_sample=[record((262, bad), (1, 2))])


@pytest.mark.parametrize(
    "data",
    [
        b'{"random_sample": []} x',
        b'{"random_sample": [],}',
        b'{"random_sample": [], "mean": 01}',
        b'{"random_sample": [], "x": "\x01"}',
        b'{"random_sample": [], "x": "\xff"}',
        b'{"random_sample": [], "x": "\xed\xa0\x80"}',
        b"{'random_sample': []}",
        b'{"random_sample": [], "mean": NaN, "x": "\xff"}',
        b'{"random_sample": [], "mean": nan}',
    ],
)
def test_text_that_is_not_json_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedFile, match="broken JSON"):
        read(data)


@pytest.mark.parametrize("bare", [b"0.25", b"NaN"])
def test_a_file_cut_at_any_byte_is_refused(bare: bytes) -> None:
    data = orjson.dumps(unit(random_sample=[record()])).replace(b"0.25", bare)
    for end in range(len(data)):
        with pytest.raises(MalformedFile):
            read(data[:end])


@pytest.mark.parametrize("depth", [65, 1_000, 100_000])
@pytest.mark.parametrize("pattern", [b"[", b'{"a":'])
def test_deep_nesting_is_refused(pattern: bytes, depth: int) -> None:
    with pytest.raises(MalformedFile, match="nested"):
        read(b'{"random_sample": [], "x": ' + pattern * depth)


def test_nesting_within_the_limit_is_read() -> None:
    assert read(b'{"random_sample": [], "x": ' + b"[" * 63 + b"]" * 63 + b"}").record.random_sample == []


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        (Limits(file_bytes=100), "file of"),
        (Limits(nesting=3), "nested"),
        (Limits(record_tokens=2), "3 tokens, beyond 2"),
        (Limits(token_bytes=4), "token of 5 bytes"),
        (Limits(unit_values=5), "too many"),
        (Limits(unit_records=4), "too many records"),
    ],
)
def test_every_limit_holds(limits: Limits, named: str) -> None:
    with pytest.raises(MalformedFile, match=named):
        read(orjson.dumps(unit()), limits=limits)


def test_the_number_of_buckets_is_limited_even_where_they_are_empty() -> None:
    data = orjson.dumps({"random_sample_by_quantile": [[], [], []]})
    assert read(data, limits=Limits(unit_records=3)).record.random_sample_by_quantile == [[], [], []]
    with pytest.raises(MalformedFile, match="3 buckets, beyond 2"):
        read(data, limits=Limits(unit_records=2))


def test_a_long_text_of_many_values_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(MalformedFile, match="20001 commas"):
        read(b'{"random_sample": [], "x": [0' + b",0" * 20_000 + b"]}", limits=Limits(unit_values=9, unit_records=9))


def test_a_token_of_many_bytes_counts_in_bytes_not_characters() -> None:
    data = orjson.dumps(unit(random_sample=[record(("日本",), (1,))], most_positive_activation_records=[]))
    assert read(data, limits=Limits(token_bytes=6)).record.random_sample[0].tokens == ["日本"]
    with pytest.raises(MalformedFile, match="a token of 6 bytes, beyond 5"):
        read(data, limits=Limits(token_bytes=5))
