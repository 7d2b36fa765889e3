"""What the files of the siblings say, as rows: explanations of units, related units and related tokens.

Source: AI neuron_explainer/explanations/explanations.py, neuron_explainer/activations/token_connections.py and
neuron-viewer/src/interpAPI.ts, where the names of the fields are; TDB neuron_explainer/explanations/explanations.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias, cast

import numpy as np

from warehouse.datasets import Dataset
from warehouse.decode.container import sniff, unpack
from warehouse.decode.describe import describe
from warehouse.decode.json import load_json
from warehouse.decode.layout import check_unit
from warehouse.decode.values import read_float
from warehouse.errors import MalformedFile
from warehouse.records import Limits

Row: TypeAlias = tuple[object, ...]
"""A row of a table without its first two columns, which are the same for all rows of a file: `unit` and `about`."""
Fields: TypeAlias = Mapping[str, object]
Reader: TypeAlias = Callable[[Fields, Dataset, int, int, int, Limits], Iterator[tuple[str, Row]]]
"""Gives the rows of one object, each with its table; for the arguments see `read_explanations`."""

ORIGIN = "openai"
MOST_ENTRIES = 100_000
"""Entries of one list: explanations, units or tokens. GPT-2 has 50,257 tokens, and no published list is near that."""
LONGEST_TEXT = 65_536
"""Characters of an explanation."""

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_MISSING = object()
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNIT_NAME = re.compile(r"([0-9]{1,9})_([0-9]{1,9})")
_UP_TO_NAN = re.compile(rb'((?:"(?:[^"\\]++|\\.)*+"?|[^"N]++|N(?!aN))*+)(NaN|\Z)', re.DOTALL)
"""Strings and all else, up to a bare NaN or the end: whatever the text is, it matches, and no byte is read twice."""
_DIRECTIONS = {"upstream": "c_fc", "downstream": "c_proj"}
_SIGNS = ("positive", "negative")
_SCORE_KINDS = {"scored_simulation": ("ev_correlation", "rsquared", "absolute_dev_explained")}
_HEAD_SCORE_KINDS = {"scored_attention_simulation": ("roc_auc",)}
"""The scores of a simulation by the name of its field, the one that counts first."""


def load_objects(data: bytes, limits: Limits) -> tuple[list[Fields], str]:
    """Read a file of one JSON object, or of several, one a line.

    Returns:
        The objects, at least one; and the form, json or json+gzip.

    Raises:
        MalformedFile: anything else, or beyond the limits.
    """
    form = sniff(data)
    packing = ""
    if form == "gzip":
        data = unpack(data, limits)
        form, packing = sniff(data), "+gzip"
    if len(data) > limits.file_bytes:
        raise MalformedFile(f"a file of {len(data)} bytes, beyond {limits.file_bytes}")
    if form != "json":
        raise MalformedFile(f"a file in the form {form}, where JSON is expected")
    if 0 < data.count(b"NaN") <= MOST_ENTRIES:
        # Python writes an undefined score so, which orjson does not read: what reads it too takes ten times as long.
        data = _UP_TO_NAN.sub(lambda match: match[1] + (b"null" if match[2] else b""), data)
    lines = [line for line in data.split(b"\n", MOST_ENTRIES) if line.strip()]
    is_by_line = all(line.strip()[:1] == b"{" and line.strip()[-1:] == b"}" for line in lines[1:])
    objects = [load_json(text, limits) for text in (lines if len(lines) > 1 and is_by_line else [data])]
    for value in objects:
        if not isinstance(value, dict):
            raise MalformedFile(f"{describe(value)}, not a JSON object")
    return cast(list[Fields], objects), form + packing


# explanations -----------------------------------------------------------------------------------------------------


def read_explanations(
    fields: Fields, dataset: Dataset, layer: int, unit: int, first: int, limits: Limits
) -> Iterator[tuple[str, Row]]:
    """Give the rows of a NeuronSimulationResults, or of the AttentionSimulationResults of a head.

    Args:
        fields: the object, whose fields may have their old names.
        dataset: which.
        layer: the layer that the file's path names.
        unit: the unit that the file's path names.
        first: explanations that the file has before this object.
        limits: bounds its numbers.

    Yields:
        Rows of explanations, and after each those of explanation_scores: one for each score that is a number.

    Raises:
        MalformedFile: not such an object, or another unit's.
    """
    scored = _get(fields, "scored_explanations", "scored_explanation_or_baseline_list")
    name = fields.get("dataclass_name")
    if scored is _MISSING or name not in (None, "NeuronSimulationResults", "AttentionSimulationResults"):
        raise MalformedFile(f"not the explanations of a unit: {describe(fields)}")
    for key in ("neuron_id", "attention_head_id", "attention_id"):
        check_unit(fields.get(key), key, layer, unit, limits)
    for i, item in enumerate(_read_list(scored, "scored_explanations")):
        where = f"scored_explanations[{i}]"
        if not isinstance(item, dict):
            raise MalformedFile(f"{where}: {describe(item)}, not a scored explanation")
        text = _get(item, "explanation", "explanation_or_baseline")
        explanation = _read_text(None if text is _MISSING else text, f"{where}.explanation", LONGEST_TEXT)
        is_of_head = dataset.kind == "head" or "scored_attention_simulation" in item
        ((simulation, kinds),) = (_HEAD_SCORE_KINDS if is_of_head else _SCORE_KINDS).items()
        scores = _read_scores(item.get(simulation), f"{where}.{simulation}", kinds, limits)
        rank = first + i
        yield "explanations", (rank, explanation, None, scores.get(kinds[0]), kinds[0], ORIGIN, None)
        for kind, score in scores.items():
            yield "explanation_scores", (rank, kind, score, ORIGIN)


def _read_scores(simulation: object, where: str, kinds: tuple[str, ...], limits: Limits) -> dict[str, float]:
    """Read the scores of a scored simulation, without those that are null, NaN, infinite or not there."""
    if simulation is None:
        return {}
    if not isinstance(simulation, dict):
        raise MalformedFile(f"{where}: {describe(simulation)}, not a scored simulation")
    scores = {}
    for kind in kinds:
        score = read_float(simulation.get(f"{kind}_score"), f"{where}.{kind}_score", limits)
        if score is not None and math.isfinite(score):
            scores[kind] = score
    return scores


# related units and tokens ----------------------------------------------------------------------------------------


def read_related_units(
    fields: Fields, dataset: Dataset, layer: int, unit: int, first: int, limits: Limits
) -> Iterator[tuple[str, Row]]:
    """Give the rows of the neurons with the largest weights from or to a neuron; arguments as `read_explanations`.

    Yields:
        Rows of related_units. A side may be null: the first layer has no upstream, the last no downstream.

    Raises:
        MalformedFile: not such an object, or a unit that the dataset does not have.
    """
    if first or not any(side in fields for side in _DIRECTIONS.values()):
        raise MalformedFile(f"not the related units of one unit: {describe(fields)}")
    for direction, side in _DIRECTIONS.items():
        lists = _read_mapping(fields.get(side), side)
        for sign in _SIGNS:
            keys = f"top_{sign}_neurons", f"top_{sign}_weights"
            for rank, name, weight in _read_pairs(lists, *keys, f"{side}.", limits):
                place = _read_unit_name(name, dataset, f"{side}.{keys[0]}[{rank}]")
                yield "related_units", (direction, sign, rank, *place, weight)


def read_related_tokens(
    fields: Fields, dataset: Dataset, layer: int, unit: int, first: int, limits: Limits
) -> Iterator[tuple[str, Row]]:
    """Give the rows of a TokenLookupTableSummaryOfNeuron (by activation) or a WeightBasedSummaryOfNeuron (by weight).

    Arguments as `read_explanations`.

    Yields:
        Rows of related_tokens.

    Raises:
        MalformedFile: not such an object.
    """
    by_weight = {f"{direction}_{sign}": (direction, sign) for direction in ("input", "output") for sign in _SIGNS}
    is_by_activation = "tokens" in fields and "average_activations" in fields
    if first or not (is_by_activation or any(key in fields for key in by_weight)):
        raise MalformedFile(f"not the related tokens of one unit: {describe(fields)}")
    if is_by_activation:
        for rank, token, strength in _read_pairs(fields, "tokens", "average_activations", "", limits):
            text = _read_text(token, f"tokens[{rank}]", limits.token_bytes)
            yield "related_tokens", ("activation", None, None, rank, text, strength)
        return
    for key, labels in by_weight.items():
        lists = _read_mapping(fields.get(key), key)
        for rank, token, strength in _read_pairs(lists, "tokens", "strengths", f"{key}.", limits):
            text = _read_text(token, f"{key}.tokens[{rank}]", limits.token_bytes)
            yield "related_tokens", ("weight", *labels, rank, text, strength)


def _read_pairs(
    lists: Fields, names: str, numbers: str, where: str, limits: Limits
) -> Iterator[tuple[int, object, float | None]]:
    """Give each name of a list with its number in another, and its place; nulls among the names are left out."""
    found, values = (_read_list(lists.get(key), f"{where}{key}") for key in (names, numbers))
    if len(found) != len(values):
        raise MalformedFile(f"{where}{names}: {len(found)} of them for {len(values)} {numbers}")
    for rank, (name, value) in enumerate(zip(found, values, strict=True)):
        number = read_float(value, f"{where}{numbers}[{rank}]", limits)
        if number is not None and abs(number) > _FLOAT32_MAX:
            raise MalformedFile(f"{where}{numbers}[{rank}]: {describe(value)}, infinite or beyond float32")
        if name is not None:
            yield rank, name, number


def _read_unit_name(value: object, dataset: Dataset, where: str) -> tuple[int, int]:
    """Read a unit's name, written LAYER_UNIT."""
    match = _UNIT_NAME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise MalformedFile(f"{where}: {describe(value)}, not a unit as layer_unit")
    layer, unit = map(int, match.groups())
    if layer >= dataset.n_layers or unit >= dataset.units_per_layer:
        raise MalformedFile(
            f"{where}: {describe(value)}, beyond {dataset.n_layers} layers of {dataset.units_per_layer} units"
        )
    return layer, unit


# plain values -----------------------------------------------------------------------------------------------------


def _get(fields: Fields, *names: str) -> object:
    """Give a field by today's name or an older one; _MISSING where there is none."""
    return next((fields[name] for name in names if name in fields), _MISSING)


def _read_mapping(value: object, where: str) -> Fields:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MalformedFile(f"{where}: {describe(value)}, not a mapping")
    return cast(Fields, value)


def _read_list(value: object, where: str) -> list[object]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > MOST_ENTRIES:
        raise MalformedFile(f"{where}: {describe(value)}, not a list of at most {MOST_ENTRIES}")
    return value


def _read_text(value: object, where: str, longest: int) -> str:
    """Read a text; a lone surrogate reads as U+FFFD."""
    if not isinstance(value, str) or len(value) > longest:
        raise MalformedFile(f"{where}: {describe(value)}, not a text of at most {longest} characters")
    return value if value.isascii() else _SURROGATE.sub("\ufffd", value)
