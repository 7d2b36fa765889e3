"""Makes the files that the decoder's tests read: units as plain objects, in every form that can hold them."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch

from warehouse.datasets import Dataset
from warehouse.decode import Decoded, decode
from warehouse.errors import MalformedFile
from warehouse.records import LIMITS, ActivationRecord, Limits, NeuronRecord

LAYER, UNIT = 5, 131


def dataset(per: str = "token", tokenizer: str | None = "gpt2") -> Dataset:
    return Dataset("gpt2-small", "test", "latent", per, 12, 3072, ("{layer}/{unit}.pt",), tokenizer=tokenizer)  # type: ignore[arg-type]


def record(tokens: Any = (" the", "\ufffd", '"\n\\,\0'), activations: Any = (0.5, -0.0, 3)) -> dict[str, Any]:
    return {
        "dataclass_name": "ActivationRecord",
        "tokens": list(tokens) if isinstance(tokens, tuple) else tokens,
        "activations": list(activations) if isinstance(activations, tuple) else activations,
    }


def unit(**changed: Any) -> dict[str, Any]:
    """A whole NeuronRecord as plain objects, with some fields changed; a field set to ... is left out."""
    fields: dict[str, Any] = {
        "dataclass_name": "NeuronRecord",
        "neuron_id": {"dataclass_name": "NeuronId", "layer_index": LAYER, "neuron_index": UNIT},
        "random_sample": [record(), record((" a",), (-0.17,))],
        "random_sample_by_quantile": [[record((" q",), (1.0,))], []],
        "quantile_boundaries": [0.5, 0.9],
        "mean": 0.25,
        "variance": 1,
        "skewness": None,
        "kurtosis": -3.5,
        "most_positive_activation_records": [record((" best",), (9.75,)), record((), ())],
    }
    fields |= changed
    return {name: value for name, value in fields.items() if value is not ...}


def read(data: bytes, per: str = "token", tokenizer: str | None = "gpt2", limits: Limits = LIMITS) -> Decoded:
    return decode(data, dataset(per, tokenizer), LAYER, UNIT, limits)


def save(root: Any) -> bytes:
    """What torch.save writes today: a zip."""
    file = io.BytesIO()
    torch.save(root, file)
    return file.getvalue()


def save_legacy(root: Any) -> bytes:
    """What torch.save wrote before torch 1.6."""
    file = io.BytesIO()
    torch.save(root, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def zip_up(files: Iterable[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive by the standard library, which allows two files of one name."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", method) as z:
        for name, content in files:
            z.writestr(name, content)
    return archive.getvalue()


def zip_pickle(pickled: bytes, *storages: bytes) -> bytes:
    """A torch archive with the given pickle and storages."""
    return zip_up([("x/data.pkl", pickled), *((f"x/data/{i}", storage) for i, storage in enumerate(storages))])


def text(value: str) -> bytes:
    """The opcode of a string."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def plain(found: NeuronRecord) -> dict[str, Any]:
    """A decoded record as plain lists, to compare."""

    def section(records: list[ActivationRecord]) -> list[tuple[list[str], list[float]]]:
        for r in records:
            assert r.activations.dtype == np.float32 and r.activations.ndim == 1
        return [(r.tokens, r.activations.tolist()) for r in records]

    buckets = found.random_sample_by_quantile
    return {
        "layer_index": found.layer_index,
        "unit_index": found.unit_index,
        "most_positive_activation_records": section(found.most_positive_activation_records),
        "random_sample": section(found.random_sample),
        "random_sample_by_quantile": None if buckets is None else [section(bucket) for bucket in buckets],
        "quantile_boundaries": found.quantile_boundaries,
        "moments": [found.mean, found.variance, found.skewness, found.kurtosis],
    }


def expect(root: Any) -> dict[str, Any]:
    """The same of an object that the writer's own library read: the oracle, by the plainest of means."""

    def numbers(values: Any) -> list[float]:
        return torch.as_tensor(values).to(torch.float32).tolist() if len(values) else []

    def get(value: Any, name: str) -> Any:
        return value.get(name) if isinstance(value, dict) else getattr(value, name)

    def section(records: Any) -> list[tuple[list[str], list[float]]]:
        if isinstance(records, dict):
            pairs = zip(records["tokens"], records["activations"], strict=True)
        else:
            pairs = ((get(r, "tokens"), get(r, "activations")) for r in records or [])  # type: ignore[assignment]
        return [(texts(tokens), numbers(values)) for tokens, values in pairs]

    buckets = get(root, "random_sample_by_quantile")
    moments = [get(root, name) for name in ("mean", "variance", "skewness", "kurtosis")]
    return {
        "layer_index": LAYER,
        "unit_index": UNIT,
        "most_positive_activation_records": section(get(root, "most_positive_activation_records")),
        "random_sample": section(get(root, "random_sample")),
        "random_sample_by_quantile": None if buckets is None else [section(bucket) for bucket in buckets],
        "quantile_boundaries": get(root, "quantile_boundaries"),
        "moments": [None if moment is None else float(moment) for moment in moments],
    }


def texts(tokens: Any) -> list[str]:
    """Tokens as strings; ids are looked up in the few words of the tests."""
    plain_tokens = tokens if isinstance(tokens, list) else list(np.asarray(tokens).tolist())
    return [WORDS[token] if isinstance(token, int) else token for token in plain_tokens]


WORDS = {0: "!", 262: " the", 1212: "This", 50256: "<|endoftext|>", 198: "\n", 220: " "}
"""Some of GPT-2's tokens, from the paper's vocabulary file."""


def peak_memory(call: Callable[[], object], refusal: str) -> int:
    """The most memory that a call took on its way to being refused."""
    tracemalloc.start()
    try:
        with pytest.raises(MalformedFile, match=refusal):
            call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
