"""The fast way through plain JSON against the general decoder: the same rows, or none."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from warehouse import flatten
from warehouse.datasets import Dataset, builtin_datasets
from warehouse.decode import Decoded, decode
from warehouse.decode.numbers import INVALID, parse_float
from warehouse.decode.vocabulary import Vocabulary
from warehouse.errors import MalformedFile
from warehouse.flatten import Flattener

PER_TOKEN = builtin_datasets()["gpt2-xl/mlp_post_act"]
PER_PAIR = builtin_datasets()["gpt2-small/attn_write_norm"]


def scan_number(text: str) -> float | None:
    """Parse by the scanner; None where it leaves the number to others."""
    end, value = parse_float(np.frombuffer(text.encode() + b"\0" * 8, np.uint8), 0)
    if end == INVALID:
        return None
    assert end == len(text)
    return float(np.float32(value))


decimals = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, width=16).map(repr),
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr),
    st.floats(allow_nan=False, allow_infinity=False, width=64).map(repr),
    st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?", fullmatch=True),
)


@given(decimals)
@example("-0.0")
@example("0.1208")
@example("1.00000005960464477539062500000")  # the middle between two float32
@example("1.00000005960464477539062500001")
@example("16777217")
@example("0.000000000000000000000000000000000000011754943508222875")
@example("340282346638528859811704183484516925440")
@example("123456789012345678901234567890e-20")
@settings(max_examples=500, deadline=None)
def test_a_number_is_the_nearest_float32_or_is_left_to_others(text: str) -> None:
    scanned = scan_number(text)
    if scanned is not None:
        expected = np.float32(float(text))
        assert np.float32(scanned) == expected
        assert math.copysign(1, scanned) == math.copysign(1, expected)


@pytest.mark.parametrize("text", ["0.1208", "-0.1637", "3.9922", "7", "0", "-0.0", "1e-3", "0.12345678901234567"])
def test_published_kinds_of_numbers_are_not_left_to_others(text: str) -> None:
    assert scan_number(text) == np.float32(float(text))


@pytest.mark.parametrize("text", ["", "-", ".5", "5.", "01", "+1", "1e", "NaN", "Infinity", "1e99", "1e-99", "0x10"])
def test_what_is_no_plain_number_is_left_to_others(text: str) -> None:
    with_end = text + ","
    data = np.frombuffer(with_end.encode() + b"\0" * 8, np.uint8)
    end, _ = parse_float(data, 0)
    assert end == INVALID or with_end[end] != ","


# characters that matter to the scanner, beside any others: ends, escapes, separators, and lengths around 8 and 16 bytes
texts = st.one_of(
    st.text(max_size=20),
    st.text(alphabet='",\\\n\0 ab[]{}:\x7fé�\U0001f600', max_size=24),
    st.integers(0, 40).map(lambda n: "abcdefghijklmnopqrstuvwxyz0123456789ABCD"[:n]),
)
values = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def record_json(draw: st.DrawFn, is_pair: bool) -> dict[str, Any]:
    tokens = draw(st.lists(texts, max_size=6))
    n = len(tokens)
    if is_pair and n:
        m = draw(st.integers(1, n))
        n_values = sum(min(i + 1, m) for i in range(n))
    else:
        n_values = n
    activations = draw(st.lists(values, min_size=n_values, max_size=n_values))
    items = [("tokens", tokens), ("activations", activations)]
    if draw(st.booleans()):
        items.append(("dataclass_name", "ActivationRecord"))
    return dict(draw(st.permutations(items)))


@st.composite
def file_json(draw: st.DrawFn, is_pair: bool) -> bytes:
    records = st.lists(record_json(is_pair), max_size=4)
    items: dict[str, Any] = {
        "most_positive_activation_records": draw(records),
        "random_sample": draw(records),
        "random_sample_by_quantile": draw(st.one_of(st.none(), st.lists(records, max_size=3))),
        "neuron_id": {"layer_index": 3, "neuron_index": 5},
        "quantile_boundaries": draw(st.one_of(st.none(), st.lists(values, max_size=4))),
        "mean": draw(st.one_of(st.none(), st.just(math.nan), values)),
    }
    kept = draw(st.lists(st.sampled_from(sorted(items)), unique=True, min_size=1))
    document = {name: items[name] for name in {*kept, "random_sample"}}
    spaced = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r\n ")]))
    text = json.dumps(document, separators=spaced, ensure_ascii=draw(st.booleans()))
    return text.encode("utf-8", "surrogatepass")


def flatten_one(data: bytes, dataset: Dataset, *, is_fast: bool) -> dict[str, pa.Table] | str:
    """Flatten one file, by the scanner where it will, or never; a reason where the file is rejected."""
    flattener = Flattener(dataset)
    if not is_fast:
        flattener._add_plain = lambda *_: None  # type: ignore[method-assign]
    try:
        flattener.add(3, 5, data)
    except MalformedFile as e:
        return str(e)
    return flattener.flush()


def in_order(tables: dict[str, pa.Table]) -> dict[str, list[dict[str, Any]]]:
    """Give rows without the order of sections and tokens, which follows the file in one way and not in the other."""
    rows = {name: table.to_pylist() for name, table in tables.items()}
    rows["records"].sort(key=lambda r: (r["section"], r["quantile"] or 0, r["rank"]))
    for name in ("token_stats", "pair_stats"):
        if name in rows:
            rows[name].sort(key=lambda r: [r.get(k, "") for k in ("token", "query_token", "key_token")])
    return rows


@pytest.mark.parametrize("dataset", [PER_TOKEN, PER_PAIR], ids=["token", "token_pair"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_the_scanner_and_the_general_decoder_give_the_same_rows(dataset: Dataset, data: st.DataObject) -> None:
    content = data.draw(file_json(dataset.per == "token_pair"))
    fast, general = (flatten_one(content, dataset, is_fast=fast) for fast in (True, False))
    if isinstance(fast, str) or isinstance(general, str):
        assert fast == general
    else:
        assert in_order(fast) == in_order(general)


@settings(max_examples=300, deadline=None)
@given(content=file_json(False), data=st.data())
def test_a_damaged_file_ends_the_same_by_the_scanner_and_without(content: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(content) - 1))
    damage = data.draw(st.sampled_from([b"", b'"', b"\\", b",", b"]", b"}", b"\0", b"\xff", b"1", b"null", b" "]))
    damaged = content[:place] + damage + content[place + 1 :]
    fast, general = (flatten_one(damaged, PER_TOKEN, is_fast=fast) for fast in (True, False))
    if isinstance(fast, str) or isinstance(general, str):
        assert fast == general
    else:
        assert in_order(fast) == in_order(general)


def test_truncation_at_any_byte_is_rejected() -> None:
    record = {"tokens": [" a", 'b"\\'], "activations": [0.5, -0.25]}
    content = json.dumps({"random_sample": [record], "random_sample_by_quantile": [[], [record]], "mean": 1.5}).encode()
    assert not isinstance(flatten_one(content, PER_TOKEN, is_fast=True), str)
    for end in range(len(content)):
        assert isinstance(flatten_one(content[:end], PER_TOKEN, is_fast=True), str), end


def test_a_key_written_with_escapes_is_read_as_json_reads_it() -> None:
    record = b'{"tokens":["a"],"activations":[1]}'
    content = b'{"random_sample":[%b],"random\\u005fsample":[]}' % record
    tables = flatten_one(content, PER_TOKEN, is_fast=True)
    assert not isinstance(tables, str)
    assert tables["records"].num_rows == 0


def test_a_bad_token_of_one_file_does_not_slip_into_the_next() -> None:
    bad = b'{"random_sample":[{"tokens":["\xc3"],"activations":[1]}]}'
    flattener = Flattener(PER_TOKEN)
    for _ in range(2):
        with pytest.raises(MalformedFile, match="UTF-8"):
            flattener.add(3, 5, bad)
    flattener.add(3, 5, b'{"random_sample":[{"tokens":["\xc3\xa9","\\ud800"],"activations":[1,2]}]}')
    flattener.add(3, 6, b'{"random_sample":[{"tokens":["\\ud800"],"activations":[1]}]}')
    assert flattener.flush()["records"]["tokens"].to_pylist() == [["é", "�"], ["�"]]


def test_tokens_spelt_in_different_ways_are_one_token() -> None:
    content = b'{"random_sample":[{"tokens":["A","\\u0041","\\/","/"],"activations":[1,2,3,4]}]}'
    tables = flatten_one(content, PER_TOKEN, is_fast=True)
    assert not isinstance(tables, str)
    counted = {row["token"]: (row["n"], row["max_activation"]) for row in tables["token_stats"].to_pylist()}
    assert counted == {"A": (2, 2.0), "/": (2, 4.0)}


def test_plain_files_do_take_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.dumps({"random_sample": [{"tokens": [" a"], "activations": [0.1208]}], "mean": math.nan}).encode()
    seen: list[bytes] = []

    def watch(data: bytes, dataset: Dataset, layer: int, unit: int) -> Decoded:
        seen.append(data)
        return decode(data, dataset, layer, unit)

    monkeypatch.setattr(flatten, "decode", watch)
    Flattener(PER_TOKEN).add(3, 5, content)
    assert seen == [b'{"random_sample": [], "mean": NaN}']


def test_a_vocabulary_grows_past_its_first_table_and_keeps_every_number() -> None:
    tokens = [f"token number {n}" if n % 3 else f"t{n}" for n in range(60_000)]
    document = {"random_sample": [{"tokens": tokens, "activations": [1.0] * len(tokens)}] * 2}
    tables = flatten_one(json.dumps(document).encode(), PER_TOKEN, is_fast=True)
    assert not isinstance(tables, str)
    assert tables["records"]["tokens"].to_pylist() == [tokens, tokens]
    assert len(Vocabulary()) == 0
