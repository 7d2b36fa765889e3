"""The layouts in which a unit's records are found: the one place to add another.

What comes in are plain objects: those of JSON, and of a pickle, where a TDB object is a `PickledObject` and a torch or
numpy array is a `Tensor`. What comes out is a NeuronRecord in which everything has been checked.

Source: TDB neuron_explainer/activations/activations.py; no public code shows the inside of a `.pt`, so what is not
known here is rejected with its keys, types and shapes.
"""

from __future__ import annotations

from warehouse.datasets import Dataset
from warehouse.decode.budget import Budget
from warehouse.decode.describe import describe
from warehouse.decode.inert import Tensor, as_mapping
from warehouse.decode.values import (
    Place,
    read_activations,
    read_float,
    read_index,
    read_tokens,
    view_array,
)
from warehouse.errors import MalformedFile
from warehouse.pairs import n_keys
from warehouse.records import ActivationRecord, FloatArray, Limits, NeuronRecord

_RECORD_LISTS = ("most_positive_activation_records", "random_sample", "random_sample_by_quantile")
_INDEX_NAMES = {"layer": ("layer_index", "layer"), "unit": ("neuron_index", "idx")}
"""The names of neuron_id's fields, today's and the one before."""


def read_neuron_record(root: object, dataset: Dataset, layer: int, unit: int, limits: Limits) -> NeuronRecord:
    """Read a unit's record from what its file holds.

    Args:
        root: the file's content as plain objects.
        dataset: says what an activation belongs to, and how ids become text.
        layer: the layer that the file's path names.
        unit: the unit that the file's path names.
        limits: bounds every part of it.

    Raises:
        MalformedFile: not a known layout, another unit's record, or a value that cannot be; with what was found, and
            where.
    """
    fields = as_mapping(root)
    if fields is None or not _is_neuron_record(fields):
        raise MalformedFile(f"not a NeuronRecord: {describe(root)}")
    check_unit(fields.get("neuron_id"), "neuron_id", layer, unit, limits)
    budget = Budget(limits)

    def read_list(name: str) -> list[ActivationRecord]:
        return _read_records(fields.get(name), name, dataset, budget)

    return NeuronRecord(
        layer_index=layer,
        unit_index=unit,
        most_positive_activation_records=read_list("most_positive_activation_records"),
        random_sample=read_list("random_sample"),
        random_sample_by_quantile=_read_buckets(fields.get("random_sample_by_quantile"), dataset, budget),
        quantile_boundaries=_read_boundaries(fields.get("quantile_boundaries"), limits),
        mean=read_float(fields.get("mean"), "mean", limits),
        variance=read_float(fields.get("variance"), "variance", limits),
        skewness=read_float(fields.get("skewness"), "skewness", limits),
        kurtosis=read_float(fields.get("kurtosis"), "kurtosis", limits),
    )


def _is_neuron_record(fields: dict[str, object]) -> bool:
    """Say whether a mapping is meant as a NeuronRecord: by its name, or without one by the lists it has."""
    name = fields.get("dataclass_name")
    return name == "NeuronRecord" if name is not None else any(key in fields for key in _RECORD_LISTS)


def check_unit(unit_id: object, where: str, layer: int, unit: int, limits: Limits) -> None:
    """Check that what a file says of its unit's name is what its path says; it need not say anything.

    Args:
        unit_id: the file's layer and index, a mapping or None.
        where: the key under which it stands.
        layer: the layer that the file's path names.
        unit: the unit that the file's path names.
        limits: bounds the numbers.

    Raises:
        MalformedFile: another unit's name, or none that can be read.
    """
    if unit_id is None:
        return
    fields = as_mapping(unit_id)
    if fields is None:
        raise MalformedFile(f"{where}: {describe(unit_id)}, not a mapping")
    for what, expected in (("layer", layer), ("unit", unit)):
        for name in _INDEX_NAMES[what]:
            found = read_index(fields.get(name), f"{where}.{name}", limits)
            if found not in (None, expected):
                raise MalformedFile(f"{where}.{name} is {describe(found)}, but the file's path says {what} {expected}")


def _read_records(value: object, where: str, dataset: Dataset, budget: Budget) -> list[ActivationRecord]:
    """Read a list of records, in one of the layouts it has: a list of mappings, or one mapping of stacked lists.

    Stacked is {"tokens": [n_records, n_tokens], "activations": [n_records, n_values]}.
    """
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        budget.take(len(value), "records", where)
        records = [_read_fields(item, where, i) for i, item in enumerate(value)]
        tokens = read_tokens([r["tokens"] for r in records], lambda i: f"{where}[{i}].tokens", dataset, budget)
        activations_of = [r["activations"] for r in records]
        activations = read_activations(activations_of, lambda i: f"{where}[{i}].activations", budget)
        return _make_records(tokens, activations, lambda i: f"{where}[{i}].activations", dataset)
    stacked = as_mapping(value)
    if stacked is not None and "tokens" in stacked and "activations" in stacked:
        tokens = read_tokens(stacked["tokens"], lambda i: f"{where}.tokens[{i}]", dataset, budget)
        budget.take(len(tokens), "records", where)
        activations = read_activations(stacked["activations"], lambda i: f"{where}.activations[{i}]", budget)
        if len(tokens) != len(activations):
            raise MalformedFile(f"{where}: {len(activations)} rows of activations for {len(tokens)} rows of tokens")
        return _make_records(tokens, activations, lambda i: f"{where}.activations[{i}]", dataset)
    raise MalformedFile(f"{where}: {describe(value)}, neither a list of records nor their tokens and activations")


def _read_fields(item: object, where: str, i: int) -> dict[str, object]:
    fields = as_mapping(item)
    if fields is None or fields.get("tokens") is None or fields.get("activations") is None:
        raise MalformedFile(f"{where}[{i}]: {describe(item)}, not a record with tokens and activations")
    return fields


def _make_records(
    tokens: list[list[str]], activations: list[FloatArray], place: Place, dataset: Dataset
) -> list[ActivationRecord]:
    records = []
    for i, (texts, values) in enumerate(zip(tokens, activations, strict=True)):
        if dataset.per == "token_pair":
            try:
                n_keys(len(texts), len(values))
            except ValueError as e:
                raise MalformedFile(f"{place(i)}: {e}") from e
        elif len(values) != len(texts):
            raise MalformedFile(f"{place(i)}: {len(values)} values for {len(texts)} tokens")
        records.append(ActivationRecord(texts, values))
    return records


def _read_buckets(value: object, dataset: Dataset, budget: Budget) -> list[list[ActivationRecord]] | None:
    where = "random_sample_by_quantile"
    if value is None:
        return None
    if not isinstance(value, (list, tuple)):
        raise MalformedFile(f"{where}: {describe(value)}, not a list of buckets")
    if len(value) > budget.limits.unit_records:
        raise MalformedFile(f"{where}: {len(value)} buckets, beyond {budget.limits.unit_records}")
    return [_read_records(bucket, f"{where}[{i}]", dataset, budget) for i, bucket in enumerate(value)]


def _read_boundaries(value: object, limits: Limits) -> list[float] | None:
    where = "quantile_boundaries"
    if value is None:
        return None
    if isinstance(value, Tensor):
        array = view_array(value, 1, where, limits)
        value = array.tolist() if len(array) <= limits.boundaries else value
    if not isinstance(value, (list, tuple)) or len(value) > limits.boundaries:
        raise MalformedFile(f"{where}: {describe(value)}, not a list of at most {limits.boundaries} numbers")
    boundaries = [read_float(item, f"{where}[{i}]", limits) for i, item in enumerate(value)]
    return [float("nan") if boundary is None else boundary for boundary in boundaries]
