"""Whatever the bytes are, the outcome is a record or a MalformedFile with a short printable reason."""

from __future__ import annotations

import contextlib
import gzip
import pickle
import pickletools

import numpy as np
import orjson
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.decode.files import plain, read, record, save, save_legacy, text, unit
from warehouse.errors import MalformedFile
from warehouse.records import Limits

TENSORS = unit(random_sample=[record(torch.tensor([262, 0]), torch.rand(2)), record(activations=torch.rand(3).half())])
ARRAYS = unit(random_sample=[record(np.array(["a", "b"]), np.array([1.0, 2.0])), record(["a"], np.ones(1))])
VALID = {
    "json": orjson.dumps(unit()),
    "json nan": orjson.dumps(unit(mean="X")).replace(b'"X"', b"NaN"),
    "zip": save(TENSORS),
    "legacy": save_legacy(TENSORS),
    **{f"pickle {protocol}": pickle.dumps(ARRAYS, protocol) for protocol in (0, 2, 5)},
    "gzip": gzip.compress(orjson.dumps(unit())),
}
FORMS = pytest.mark.parametrize("form", VALID)
OPCODES = [op.code.encode("latin-1") for op in pickletools.opcodes]


def survive(data: bytes) -> None:
    for per in ("token", "token_pair"):
        try:
            read(data, per=per, limits=Limits(file_bytes=1_000_000))
        except MalformedFile as e:
            assert str(e).isprintable() and 0 < len(str(e)) < 1500


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200), st.sampled_from([b"", b"{", b"PK", b"\x1f\x8b\x08", b"\x80\x02", b"\x80\x04", b"(", b"c"])
)
def test_any_bytes(data: bytes, start: bytes) -> None:
    survive(start + data)


@FORMS
def test_the_files_to_be_changed_are_whole(form: str) -> None:
    assert len(plain(read(VALID[form]).record)["random_sample"]) == 2


@FORMS
@settings(max_examples=250, deadline=None)
@given(st.data())
def test_a_file_with_bytes_changed(form: str, data: st.DataObject) -> None:
    changed = bytearray(VALID[form])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    survive(bytes(changed))


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.sampled_from(OPCODES)
        | st.sampled_from([text("a"), text("random_sample"), b"K\x01", b"q\x00", b"h\x00", b"N", b"]", b"}", b"("])
        | st.sampled_from(
            [b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n"]
        )
        | st.sampled_from([b"cneuron_explainer.activations.activations\nNeuronRecord\n", b"cnumpy\ndtype\n"])
        | st.binary(min_size=1, max_size=2),
        max_size=25,
    )
)
def test_any_opcodes(parts: list[bytes]) -> None:
    survive(b"\x80\x04" + b"".join(parts) + b".")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
STRAY = PLAIN | st.sampled_from(
    [torch.ones(2), torch.ones(()), torch.ones(2, 2).int(), np.ones(2), np.array(["x"]), np.ones(())]
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_value_in_any_place_of_a_unit(data: st.DataObject) -> None:
    root = unit()
    place = data.draw(st.sampled_from(list(root)))
    stray = data.draw(STRAY)
    where = data.draw(st.sampled_from(["field", "record", "tokens", "activations", "stacked", "index"]))
    if where == "field":
        root[place] = stray
    elif where == "record":
        root["random_sample"].append(stray)
    elif where == "index":
        root["neuron_id"] = {data.draw(st.sampled_from(["idx", "layer", "neuron_index"])): stray}
    else:
        fields = record()
        if where == "stacked":
            fields = {"tokens": [["a", "b"]], "activations": [[1, 2]]}
            root["random_sample"] = fields
        else:
            root["random_sample"].append(fields)
        fields[data.draw(st.sampled_from(["tokens", "activations"]))] = stray
    survive(save(root))
    with contextlib.suppress(TypeError):
        survive(orjson.dumps(root))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(st.text(max_size=5), st.floats(width=32, allow_nan=False, allow_infinity=False)), max_size=6
        ),
        max_size=5,
    )
)
def test_every_form_of_a_unit_decodes_to_the_same_record(records: list[list[tuple[str, float]]]) -> None:
    lists = [record([token for token, _ in pairs], [value for _, value in pairs]) for pairs in records]
    tensors = [r | {"activations": torch.tensor(r["activations"])} for r in lists]
    expected = [(r["tokens"], r["activations"]) for r in lists]
    for data in (
        orjson.dumps(unit(random_sample=lists)),
        save(unit(random_sample=lists)),
        save(unit(random_sample=tensors)),
        save_legacy(unit(random_sample=tensors)),
        *(pickle.dumps(unit(random_sample=lists), protocol) for protocol in range(6)),
        gzip.compress(save(orjson.dumps(unit(random_sample=lists)))),
    ):
        assert plain(read(data).record)["random_sample"] == expected
