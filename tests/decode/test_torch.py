"""`.pt` files in every form, held against what torch.load and pickle.load read of the same bytes."""

from __future__ import annotations

import io
import pickle
import zipfile
from types import ModuleType
from typing import Any

import numpy as np
import orjson
import pytest
import torch

from tests.decode.files import LAYER, UNIT, WORDS, expect, plain, read, record, save, save_legacy, unit, zip_up
from warehouse.errors import MalformedFile
from warehouse.records import Limits

SAVERS = pytest.mark.parametrize(("writer", "form"), [(save, "torch-zip"), (save_legacy, "torch-legacy")])
PROTOCOLS = pytest.mark.parametrize("protocol", range(6))
FLOATS = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
IDS = [0, 262, 1212, 50256, 198, 220]


def load(data: bytes) -> Any:
    """Read with torch itself, which runs what the file says: these files are the tests' own."""
    return torch.load(io.BytesIO(data), weights_only=False)


def check(data: bytes, form: str = "torch-zip") -> None:
    found = read(data)
    assert plain(found.record) == expect(load(data))
    assert found.format == form


@SAVERS
def test_plain_lists_are_read(writer: Any, form: str) -> None:
    check(writer(unit()), form)


@SAVERS
@FLOATS
def test_a_tensor_of_any_float_type_for_each_record_is_read(writer: Any, form: str, dtype: torch.dtype) -> None:
    values = torch.tensor([0.1, -0.0, 300.25], dtype=dtype)
    data = writer(unit(random_sample=[record(activations=values), record(activations=values[:3] * 2)]))
    check(data, form)
    assert np.signbit(read(data).record.random_sample[0].activations[1])


@SAVERS
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16])
def test_token_ids_of_any_integer_type_are_read(writer: Any, form: str, dtype: torch.dtype) -> None:
    ids = torch.tensor([0, 262, 198], dtype=dtype)
    check(writer(unit(random_sample=[record(ids, torch.ones(3)), record(ids[1:], torch.ones(2))])), form)


def test_unsigned_token_ids_are_read() -> None:
    check(save(unit(random_sample=[record(torch.tensor([0, 262, 50256], dtype=torch.uint16), torch.ones(3))])))


@SAVERS
def test_stacked_tensors_stand_for_lists_of_records(writer: Any, form: str) -> None:
    stacked = {"tokens": torch.tensor([IDS, IDS[::-1]]), "activations": torch.rand(2, 6, dtype=torch.float16)}
    check(writer(unit(random_sample=stacked, random_sample_by_quantile=[stacked, [], stacked])), form)


@pytest.mark.parametrize("tokens", [[["a"] * 6, ["b"] * 6], [IDS, IDS], [torch.tensor(IDS), ["x"] * 6]])
def test_stacked_activations_go_with_lists_of_tokens(tokens: Any) -> None:
    check(save(unit(random_sample={"tokens": tokens, "activations": torch.rand(2, 6)})))


def test_stacked_tensors_without_rows_are_an_empty_list() -> None:
    empty = {"tokens": torch.tensor([]), "activations": torch.empty(0, 64)}
    assert read(save(unit(random_sample=empty))).record.random_sample == []


def test_lists_and_tensors_may_be_mixed_from_record_to_record() -> None:
    records = [
        record(torch.tensor([262]), [0.5]),
        record([" x"], torch.tensor([1.5])),
        record(torch.tensor([], dtype=torch.int64), torch.tensor([])),
        record([262, 0], np.array([1.0, 2.0])),
    ]
    check(save(unit(random_sample=records)))


@SAVERS
def test_views_of_one_storage_are_read_each_at_its_place(writer: Any, form: str) -> None:
    table = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    views = [table[1], table[:, 2], table[2, ::2], table.T[3], table[3, 1:2].expand(4), table[0, 0:1]]
    records = [record(["x"] * len(view), view) for view in views]
    check(writer(unit(random_sample=records)), form)


@SAVERS
def test_a_transposed_stack_is_read(writer: Any, form: str) -> None:
    stacked = {"tokens": torch.tensor([IDS, IDS]).T, "activations": torch.rand(2, 6).T}
    check(writer(unit(random_sample=stacked)), form)


@SAVERS
def test_parameters_and_scalar_tensors_are_read(writer: Any, form: str) -> None:
    values = torch.nn.Parameter(torch.rand(3))
    root = unit(random_sample=[record(activations=values)], mean=torch.tensor(0.5), kurtosis=torch.tensor(float("nan")))
    root["neuron_id"] = {"layer_index": torch.tensor(LAYER), "neuron_index": torch.tensor(UNIT)}
    found = read(writer(root)).record
    assert np.array_equal(found.random_sample[0].activations, values.detach().numpy())
    assert (found.mean, found.kurtosis) == (0.5, None)


def test_lists_of_scalar_tensors_are_read() -> None:
    root = unit(random_sample=[record(activations=[torch.tensor(0.5), np.float32(1.5), np.float64(-2)])])
    assert read(save(root)).record.random_sample[0].activations.tolist() == [0.5, 1.5, -2.0]


@PROTOCOLS
def test_plain_pickles_of_every_protocol_are_read(protocol: int) -> None:
    data = pickle.dumps(unit(), protocol)
    found = read(data)
    assert plain(found.record) == expect(pickle.loads(data))
    assert found.format == "pickle"


@PROTOCOLS
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_numpy_arrays_are_read_from_pickles_of_every_protocol(protocol: int, dtype: str) -> None:
    table = np.arange(12, dtype=dtype).reshape(3, 4)
    arrays = [table[0], table[:, 1], np.array([-0.0, 0.1, 3], dtype), np.empty(0, dtype)]
    records = [record(["x"] * len(a), a) for a in arrays] + [record(np.array([0, 262]), np.array([1, 2]))]
    stacked = {"tokens": np.array([IDS, IDS]), "activations": np.asfortranarray(np.ones((2, 6), dtype))}
    data = pickle.dumps(
        unit(random_sample=records, random_sample_by_quantile=[stacked], mean=np.float32(0.5)), protocol
    )
    assert plain(read(data).record) == expect(pickle.loads(data))


@SAVERS
def test_numpy_arrays_in_torch_files_are_read(writer: Any, form: str) -> None:
    check(writer(unit(random_sample=[record(activations=np.array([0.1, -0.0, 2.0]))])), form)


@PROTOCOLS
def test_numpy_arrays_of_before_numpy_2_are_read(protocol: int) -> None:
    data = pickle.dumps(unit(random_sample=[record(activations=np.ones(3))]), min(protocol, 3))
    old = data.replace(b"numpy._core", b"numpy.core")
    assert old != data
    assert plain(read(old).record) == plain(read(data).record)


@PROTOCOLS
def test_tokens_in_a_numpy_array_of_texts_are_read(protocol: int) -> None:
    records = [record(np.array([" a", "日本", ""]), [1, 2, 3])]
    data = pickle.dumps(unit(random_sample=records), protocol)
    assert plain(read(data).record) == expect(pickle.loads(data))


@PROTOCOLS
def test_objects_of_openais_classes_are_read_from_pickles_of_every_protocol(protocol: int, tdb: ModuleType) -> None:
    data = pickle.dumps(as_objects(tdb), protocol)
    assert plain(read(data).record) == expect(pickle.loads(data)) == expect(unit())


@SAVERS
def test_objects_of_openais_classes_are_read_from_torch_files(writer: Any, form: str, tdb: ModuleType) -> None:
    check(writer(as_objects(tdb, torch.tensor)), form)


def test_a_mapping_of_objects_of_openais_classes_is_read(tdb: ModuleType) -> None:
    assert plain(read(save(vars(as_objects(tdb)))).record) == expect(unit())


def as_objects(tdb: ModuleType, activations: Any = list) -> Any:
    """The unit of `unit()` as objects of OpenAI's classes."""

    def objects(records: Any) -> Any:
        return [tdb.ActivationRecord(activations(r["activations"]), r["tokens"]) for r in records]

    fields = unit(dataclass_name=..., neuron_id=tdb.NeuronId(UNIT, LAYER))
    for name in ("random_sample", "most_positive_activation_records"):
        fields[name] = objects(fields[name])
    fields["random_sample_by_quantile"] = [objects(bucket) for bucket in fields["random_sample_by_quantile"]]
    return tdb.NeuronRecord(**fields)


@pytest.mark.parametrize(
    ("protocol", "kind"), [*((p, kind) for p in range(6) for kind in (bytes, bytes.decode)), (5, bytearray)]
)
def test_json_within_a_pickle_is_read(protocol: int, kind: Any) -> None:
    found = read(pickle.dumps(kind(orjson.dumps(unit())), protocol))
    assert plain(found.record) == expect(unit())
    assert found.format == "pickle"


@SAVERS
@pytest.mark.parametrize("kind", [bytes, bytes.decode])
def test_json_within_a_torch_file_is_read(writer: Any, form: str, kind: Any) -> None:
    found = read(writer(kind(orjson.dumps(unit()))))
    assert plain(found.record) == expect(unit())
    assert found.format == form


@pytest.mark.parametrize("held", ["hello", b"[1]", "", "<html>", [unit()], 7, None, torch.ones(2)])
def test_a_torch_file_of_anything_else_is_refused(held: object) -> None:
    with pytest.raises(MalformedFile, match="not JSON|not a NeuronRecord|a text that|an HTML|an empty"):
        read(save(held))


def test_an_unknown_layout_is_refused_with_its_keys_types_and_shapes() -> None:
    with pytest.raises(MalformedFile) as e:
        read(save({"feature": 7, "acts": torch.ones(110, 64, dtype=torch.float16), "tokens": ["a", "b"]}))
    assert str(e.value) == (
        "not a NeuronRecord: a mapping of 'feature' (7), 'acts' (float16 tensor [110, 64]), 'tokens' (list of 2)"
    )


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"random_sample": torch.ones(3)}, "random_sample: float32 tensor [3], neither a list of records"),
        ({"random_sample": [record(torch.ones(3), [1, 2, 3])]}, "random_sample[0].tokens: token ids of type float32"),
        ({"random_sample": [record(torch.tensor([262, -1]), [1, 2])]}, "random_sample[0].tokens[1]: token id -1"),
        (
            {"random_sample": [record(activations=torch.ones(1, 3))]},
            "random_sample[0].activations: float32 tensor [1, 3]",
        ),
        ({"random_sample": [record(activations=torch.ones(3).bool())]}, "activations of type bool"),
        ({"random_sample": [record(activations=torch.tensor(1.0))]}, "not of 1 dimensions"),
        (
            {"random_sample": [record(), record(activations=torch.tensor([1, 2, float("nan")]))]},
            "[1].activations[2]: NaN",
        ),
        ({"random_sample": [record(activations=torch.tensor([1e300, 1, 1], dtype=torch.float64))]}, "beyond float32"),
        ({"random_sample": [record(activations=torch.ones(2))]}, "2 values for 3 tokens"),
        ({"random_sample": {"tokens": torch.ones(2, 3, 4), "activations": torch.ones(2, 3)}}, "not of 2 dimensions"),
        ({"random_sample": {"tokens": 5, "activations": torch.ones(2, 3)}}, "neither a tensor nor a list"),
        ({"random_sample": [record(activations="abc")]}, "'abc', not a list of activations"),
        ({"random_sample": [record("abc", [1, 2, 3])]}, "'abc', not a list of tokens"),
        ({"mean": torch.ones(2)}, "mean: float32 tensor [2], not a number"),
        ({"quantile_boundaries": torch.ones(2, 2)}, "quantile_boundaries"),
    ],
)
def test_tensors_where_they_do_not_belong_are_refused_with_their_place(changed: Any, named: str) -> None:
    with pytest.raises(MalformedFile) as e:
        read(save(unit(**changed)))
    assert named in str(e.value)


def test_token_ids_are_refused_where_no_tokenizer_is_known() -> None:
    with pytest.raises(MalformedFile, match="tokenizer"):
        read(save(unit(random_sample=[record(torch.tensor([262]), [1])])), tokenizer=None)


def test_quantile_boundaries_may_be_a_tensor() -> None:
    assert read(save(unit(quantile_boundaries=torch.tensor([0.5, 0.75])))).record.quantile_boundaries == [0.5, 0.75]


def test_stacked_pairs_are_read() -> None:
    stacked = {"tokens": torch.tensor([IDS[:3], IDS[3:]]), "activations": torch.rand(2, 6)}
    found = read(save(unit(random_sample=stacked)), per="token_pair").record.random_sample
    assert [r.tokens for r in found] == [[WORDS[i] for i in IDS[:3]], [WORDS[i] for i in IDS[3:]]]
    assert np.array_equal([r.activations for r in found], stacked["activations"])


@PROTOCOLS
def test_lone_surrogates_in_a_pickle_read_as_the_replacement_character(protocol: int) -> None:
    data = pickle.dumps(unit(random_sample=[record(("a\ud800", "b"), (1, 2))]), protocol)
    assert read(data).record.random_sample[0].tokens == ["a\ufffd", "b"]


def test_lists_shared_between_records_are_read_for_each() -> None:
    tokens, values = ["a", "b"], [1.0, 2.0]
    data = pickle.dumps(unit(random_sample=[record(tokens, values)] * 3))
    assert plain(read(data).record)["random_sample"] == [(tokens, values)] * 3


def test_a_torch_archive_that_was_packed_again_is_read() -> None:
    data = save(unit(random_sample=[record(activations=torch.rand(3))]))
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        packed = zip_up([(name, z.read(name)) for name in z.namelist()], zipfile.ZIP_DEFLATED)
    assert len(packed) < len(data)
    check(packed)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_file_cut_at_any_byte_is_refused(form: str) -> None:
    root = unit(random_sample=[record(activations=torch.rand(3) if form != "pickle" else [1, 2, 3])])
    data = pickle.dumps(root) if form == "pickle" else save(root) if form == "zip" else save_legacy(root)
    assert read(data)
    for end in range(len(data)):
        with pytest.raises(MalformedFile):
            read(data[:end])


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        (Limits(unit_values=8), "too many tokens"),
        (Limits(unit_values=2), "1 beyond the limit"),
        (Limits(unit_records=2), "too many records"),
        (Limits(record_tokens=2), "3 tokens, beyond 2"),
    ],
)
def test_limits_hold_for_tensors(limits: Limits, named: str) -> None:
    records = [record(torch.tensor([262, 0, 198]), torch.rand(3))] * 3
    with pytest.raises(MalformedFile, match=named):
        read(save({"random_sample": records}), limits=limits)


def test_a_file_of_another_byte_order_is_refused() -> None:
    with zipfile.ZipFile(io.BytesIO(save(unit()))) as z:
        files = [(name, b"big" if name.endswith("byteorder") else z.read(name)) for name in z.namelist()]
    with pytest.raises(MalformedFile, match="byte order"):
        read(zip_up(files))
    legacy = save_legacy(unit()).replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89")
    with pytest.raises(MalformedFile, match="little-endian"):
        read(legacy)
