"""Neuronpedia's own export form: a folder for each source, with batches of features, activations and explanations.

Its scorers take a text for active where its values sum to more than 0, so what is below 0, or below the floor, is 0.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from warehouse.datasets import Dataset
from warehouse.explain.examples import Unfit
from warehouse.explain.formats import FormatOptions, OutputShard, Written, make_parent
from warehouse.explain.units import UnitRecords, iterate_units
from warehouse.reader import LakeReader
from warehouse.records import FloatArray, UnitId

NOTES = (
    "{modelId}/{layer}-{component}/{features,activations,explanations}/batch-{n}.jsonl.gz, and the three files that "
    "Neuronpedia's import reads first; a source's name is the layer, a dash and the component.",
    "Values below 0, and below floor times the unit's largest, are 0: Neuronpedia takes sum(values) > 0 for active.",
    "Top records have binMin = binContains = -1, as those of SAEDashboard have; others are in tenths of the range from "
    "0 to the unit's largest activation, and binContains is the part of the random sample's token activations that is "
    "in the tenth, null without a random sample. frac_nonzero is of the random sample too.",
    "creatorId and authorId are the user that a new Neuronpedia has; an explanation's scores are in its notes.",
    "The three kinds of lines have one set of keys each, as the import takes a table's columns from its first line.",
)
CREATOR = "clkht01d40000jv08hvalcvly"
_N_BINS = 10

_EXPLANATIONS = """
SELECT
  unit,
  explanation,
  explainer,
  origin,
  score_kind,
  score,
  created_at
FROM explanations
WHERE model = $model AND component = $component AND layer = $layer
  AND unit BETWEEN $first AND $last AND explanation IS NOT NULL
ORDER BY
  unit,
  origin,
  explainer,
  explanation,
  score_kind
"""

Line = dict[str, Any]


def write_shard(reader: LakeReader, shard: OutputShard, options: FormatOptions, folder: Path) -> Written:
    """Write the three batches of a shard, but none without a line: their import trips over it."""
    written = Written()
    name = shard.units[0]
    source = folder / name.model / _source_id(name)
    kept: set[int] = set()
    with ExitStack() as stack:
        features, activations, explanations = (
            stack.enter_context(_Batch(source / kind / f"batch-{shard.number_in_layer}.jsonl.gz"))
            for kind in ("features", "activations", "explanations")
        )
        for unit in iterate_units(reader, shard.units):
            if unit.dataset.per != "token":
                written.unfit.append(
                    Unfit(unit.unit_id, "has activations per token pair, and Neuronpedia takes tokens")
                )
                continue
            lines = list(_activations_of(unit, options.floor))
            features.write(_feature_of(unit, lines))
            for line in lines:
                activations.write(line)
            kept.add(unit.unit_id.unit)
        for line in _explanations_of(reader, shard, kept):
            explanations.write(line)
    if kept and shard.number_in_layer == 0:
        _write_source(source, name, reader.lake.datasets()[f"{name.model}/{name.component}"])
    written.n_units = len(kept)
    written.counts |= {"activations": activations.n_lines, "explanations": explanations.n_lines}
    return written


class _Batch:
    """A file of lines, packed, that is only made when there is a line."""

    def __init__(self, path: Path) -> None:
        self.n_lines = 0
        self._path = path
        self._stack = ExitStack()
        self._stream: gzip.GzipFile | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def write(self, line: Line) -> None:
        """Append a line."""
        if self._stream is None:
            packed = self._stack.enter_context(make_parent(self._path).open("wb"))
            # No name and no time in it, so that equal lines are equal files.
            self._stream = gzip.GzipFile("", "wb", 5, packed, mtime=0)
            self._stack.callback(self._stream.close)
        self._stream.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))
        self.n_lines += 1


def _source_id(name: UnitId) -> str:
    return f"{name.layer}-{name.component}"


def _key(name: UnitId) -> Line:
    return {"modelId": name.model, "layer": _source_id(name), "index": str(name.unit)}


def _id(*parts: object) -> str:
    """Give a row's id, the same in every export: a row that is imported again is the same row."""
    return "c" + hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:24]


def _feature_of(unit: UnitRecords, activations: Iterable[Line]) -> Line:
    return {
        **_key(unit.unit_id),
        "sourceSetName": unit.unit_id.component,
        "creatorId": CREATOR,
        "maxActApprox": max((line["maxValue"] for line in activations), default=0.0),
        "frac_nonzero": unit.row["active_fraction"] or 0.0,
        "hasVector": False,
        "vector": [],
    }


def _activations_of(unit: UnitRecords, floor: float) -> Iterator[Line]:
    """Give the lines of a unit's texts, each once: top records first, then from the strongest tenth to the weakest."""
    once = unit.first_of_each_text(i for i in range(len(unit)) if len(unit.codes[i]))
    largest = max([0.0, *map(unit.largest, once)])
    clamped = {i: _clamp(unit.activations[i], floor * largest) for i in once}
    drawn = [unit.activations[i] for i in range(len(unit)) if unit.sections[i] == "random"]
    edges = np.linspace(0, largest, _N_BINS + 1)
    contains = _part_in_each(np.maximum(np.concatenate(drawn), 0), edges) if drawn else None
    bins = {i: -1 if unit.sections[i] == "top" else _bin_of(float(v.max()), edges) for i, v in clamped.items()}
    for i in sorted(clamped, key=lambda i: (bins[i] >= 0, -bins[i], i)):
        values, bin_ = clamped[i], bins[i]
        peak = int(values.argmax())
        yield {
            "id": _id(unit.unit_id, unit.sections[i], unit.quantiles[i], unit.ranks[i]),
            **_key(unit.unit_id),
            "tokens": unit.tokens(i),
            "values": values,
            "maxValue": float(values[peak]),
            "maxValueTokenIndex": peak,
            "minValue": float(values.min()),
            "binMin": -1.0 if bin_ < 0 else float(edges[bin_]),
            "binMax": largest if bin_ < 0 else float(edges[bin_ + 1]),
            "binContains": -1.0 if bin_ < 0 else contains and contains[bin_],
            "qualifyingTokenIndex": peak,
            "dataIndex": None,
            "dataSource": None,
            "dfaValues": [],
            "dfaTargetIndex": None,
            "dfaMaxValue": None,
            "lossValues": [],
            "logitContributions": None,
            "creatorId": CREATOR,
        }


def _clamp(values: FloatArray, least: float) -> FloatArray:
    return np.where((values > 0) & (values >= least), values, np.float32(0))


def _bin_of(value: float, edges: NDArray[np.float64]) -> int:
    return min(int(np.searchsorted(edges, value, "right")) - 1, _N_BINS - 1)


def _part_in_each(values: FloatArray, edges: NDArray[np.float64]) -> list[float]:
    bins = np.clip(np.searchsorted(edges, values, "right") - 1, 0, _N_BINS - 1)
    parts: list[float] = (np.bincount(bins, minlength=_N_BINS) / max(len(values), 1)).tolist()
    return parts


def _explanations_of(reader: LakeReader, shard: OutputShard, kept: set[int]) -> Iterator[Line]:
    name = shard.units[0]
    place = {
        "model": name.model,
        "component": name.component,
        "layer": name.layer,
        "first": name.unit,
        "last": shard.units[-1].unit,
    }
    seen: set[str] = set()
    for row in reader.sql(_EXPLANATIONS, place).iter_rows(named=True):
        line = _explanation(UnitId(name.model, name.component, name.layer, row["unit"]), row)
        if row["unit"] in kept and line["id"] not in seen:
            seen.add(line["id"])
            yield line


def _explanation(name: UnitId, row: Mapping[str, Any]) -> Line:
    told = {key: row[key] for key in ("origin", "explainer", "score_kind", "score", "created_at")}
    return {
        "id": _id(name, row["explanation"], *told.values()),
        **_key(name),
        "authorId": CREATOR,
        "description": row["explanation"],
        "typeName": None,
        "explanationModelName": None,
        "notes": orjson.dumps(told).decode(),
    }


def _write_source(folder: Path, name: UnitId, dataset: Dataset) -> None:
    """Write the model, the set and the source that the batches belong to, which their import makes where missing."""
    owner = {"creatorId": CREATOR, "visibility": "PUBLIC"}
    files: dict[str, Line] = {
        "model": {
            "id": name.model,
            "displayNameShort": name.model,
            "displayName": name.model,
            "layers": dataset.n_layers,
            "neuronsPerLayer": dataset.units_per_layer if dataset.kind == "neuron" else 0,
            "owner": "OpenAI",
            **owner,
        },
        "sourceset": {
            "modelId": name.model,
            "name": name.component,
            "description": f"OpenAI's collated activations of {name.model}/{name.component}",
            "creatorName": "OpenAI",
            "hasDashboards": True,
            "urls": ["https://github.com/openai/automated-interpretability"],
            **owner,
        },
        "source": {"id": _source_id(name), "modelId": name.model, "setName": name.component, **owner},
    }
    for kind, line in files.items():
        (folder / f"{kind}.jsonl").write_bytes(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
