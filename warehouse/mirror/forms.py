"""File forms: a made unit as the bytes of a file, in every form that the warehouse must read, and in some that are bad.

No public code reads a published `.pt`, so which of its forms is the real one is not known: a mirror has them all.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from dataclasses import fields
from types import ModuleType
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warehouse.mirror.units import MadeUnit
from warehouse.records import ActivationRecord, NeuronRecord

Form: TypeAlias = Literal["json", "lists", "tensors", "stacked", "json_string", "object", "legacy"]
BadForm: TypeAlias = Literal["truncated", "html", "garbage"]

PT_FORMS: tuple[Form, ...] = ("lists", "tensors", "stacked", "json_string", "object", "legacy")
"""A mapping of Python lists; of small tensors beside token strings; of one tensor of ids and one of activations for
each record list; a string of JSON; a pickled object of TDB's class; and the lists again as torch wrote before 1.6."""

_TDB_MODULE = "neuron_explainer.activations.activations"
_MOMENTS = ("mean", "variance", "skewness", "kurtosis")
_NOT_FOUND_PAGE = b"<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head><body>Try again.</body></html>\n"


def choose_form(path: str, unit: int) -> Form:
    """Give the form of a unit's file: JSON unless its path ends in `.pt`, where the forms take turns."""
    return PT_FORMS[unit % len(PT_FORMS)] if path.endswith(".pt") else "json"


def encode_unit(made: MadeUnit, form: Form) -> bytes:
    """Give the bytes of a unit's file.

    Args:
        made: the unit.
        form: `json`, or one of PT_FORMS, all of which import torch.
    """
    record = made.to_record()
    match form:
        case "json":
            return _to_json(record)
        case "json_string":
            return _save(_to_json(record).decode("utf-8"))
        case "stacked":
            return _save(_to_mapping(record) | _stack_lists(made))
        case "tensors":
            return _save(_to_mapping(record, as_tensors=True))
        case "object":
            with _tdb_modules() as classes:
                return _save(_to_object(record, classes))
        case _:
            return _save(_to_mapping(record), is_zip=form != "legacy")


def spoil(data: bytes, form: BadForm) -> bytes:
    """Give a bad file instead of a good one: cut off, the error page of a proxy, or a damaged archive."""
    match form:
        case "truncated":
            return data[: len(data) * 2 // 3]
        case "html":
            return _NOT_FOUND_PAGE
        case "garbage":
            return b"PK\x03\x04" + bytes(255 - byte for byte in data[4:2048])


def _to_json(record: NeuronRecord) -> bytes:
    """Write as OpenAI did, an undefined moment as a bare NaN in units of even index, and as null in the others."""
    data = record.to_json()
    if (record.unit_index or 0) % 2 == 0:
        for name in _MOMENTS:
            data = data.replace(b'"%s":null' % name.encode(), b'"%s":NaN' % name.encode())
    return data


def _save(content: object, is_zip: bool = True) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=is_zip)
    return buffer.getvalue()


def _to_mapping(record: NeuronRecord, as_tensors: bool = False) -> dict[str, Any]:
    """Give NeuronRecord's fields as a mapping, with each record's activations as a list or as a tensor."""

    def convert(records: list[ActivationRecord]) -> list[dict[str, Any]]:
        if not as_tensors:
            return [{"tokens": r.tokens, "activations": r.activations.tolist()} for r in records]
        import torch

        return [{"tokens": r.tokens, "activations": torch.from_numpy(r.activations.copy())} for r in records]

    buckets = record.random_sample_by_quantile or []
    return {
        "neuron_id": {"layer_index": record.layer_index, "neuron_index": record.unit_index},
        "random_sample": convert(record.random_sample),
        "random_sample_by_quantile": [convert(bucket) for bucket in buckets],
        "quantile_boundaries": record.quantile_boundaries,
        **{name: getattr(record, name) for name in _MOMENTS},
        "most_positive_activation_records": convert(record.most_positive_activation_records),
    }


def _stack_lists(made: MadeUnit) -> dict[str, Any]:
    """Give each record list as two tensors: ids [n, n_tokens] and activations [n, n_values]."""
    import torch

    def stack(rows: NDArray[np.int64]) -> dict[str, Any]:
        return {"tokens": torch.from_numpy(made.ids[rows]), "activations": torch.from_numpy(made.activations[rows])}

    return {
        "random_sample": stack(made.random),
        "random_sample_by_quantile": [stack(bucket) for bucket in made.buckets],
        "most_positive_activation_records": stack(made.top),
    }


@contextlib.contextmanager
def _tdb_modules() -> Iterator[dict[str, type]]:
    """Stand in for TDB's modules while an object of its classes is pickled: pickle checks that the names are there."""
    names = ["neuron_explainer", "neuron_explainer.activations", _TDB_MODULE]
    before = {name: sys.modules.get(name) for name in names}
    modules = {name: ModuleType(name) for name in names}
    classes = {
        name: type(name, (), {"__module__": _TDB_MODULE}) for name in ("NeuronRecord", "ActivationRecord", "NeuronId")
    }
    for name, stand_in in classes.items():
        setattr(modules[_TDB_MODULE], name, stand_in)
    sys.modules.update(modules)
    try:
        yield classes
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _to_object(record: NeuronRecord, classes: dict[str, type]) -> object:
    """Give the record as an instance of the stand-in for TDB's class, its attributes in the order of ours."""

    def build(name: str, **attributes: object) -> object:
        instance = classes[name]()
        instance.__dict__.update(attributes)
        return instance

    def convert(value: Any) -> Any:
        match value:
            case ActivationRecord():
                return build("ActivationRecord", tokens=value.tokens, activations=value.activations.tolist())
            case list():
                return [convert(item) for item in value]
            case _:
                return value

    attributes = {
        field.name: convert(getattr(record, field.name))
        for field in fields(record)
        if field.name not in ("layer_index", "unit_index")
    }
    unit = build("NeuronId", layer_index=record.layer_index, neuron_index=record.unit_index)
    return build("NeuronRecord", neuron_id=unit, **attributes)
