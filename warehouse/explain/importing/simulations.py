"""OpenAI's explanations with their simulations: NeuronSimulationResults and AttentionSimulationResults.

Source: AI neuron_explainer/explanations/explanations.py; TDB neuron_explainer/explanations/explanations.py.
"""

from __future__ import annotations

import re
from typing import cast

from warehouse.datasets import Dataset
from warehouse.decode.siblings import read_explanations
from warehouse.errors import MalformedFile
from warehouse.explain.answers import Answer, AnswerScore
from warehouse.explain.importing.options import Fields, ImportOptions, RowReader
from warehouse.explain.importing.rows import read_index
from warehouse.records import LIMITS, UnitId

UNIT_KEYS = ("neuron_id", "attention_head_id", "attention_id")
"""Where an object names its unit, by its newest name first."""
RESULT_KEYS = ("scored_explanations", "scored_explanation_or_baseline_list")
"""Where its explanations are, likewise."""
_RESULTS = ("NeuronSimulationResults", "AttentionSimulationResults")
_LAYER_KEYS = ("layer_index", "layer")
_INDEX_KEYS = ("neuron_index", "head_index", "unit_index", "idx", "index")
_PLACE = re.compile(r"(?:^|[/\\])([0-9]{1,9})[/\\]([0-9]{1,9})\.jsonl?(?:\.gz)?")


def simulation_reader(how: ImportOptions) -> RowReader:
    """Make the reader of simulation results.

    An object names its unit, or its file is called {layer}/{unit}.jsonl as on OpenAI's bucket.
    """

    def read(fields: Fields, path: str) -> list[Answer]:
        unit = _read_unit(fields, path, how)
        dataset = how.dataset
        if dataset is None:
            raise MalformedFile("whose unit this is, is not said: give --dataset model/component")
        _check_kind(fields, dataset)
        answers: list[Answer] = []
        scores: list[list[AnswerScore]] = []
        for table, row in read_explanations(fields, dataset, unit.layer, unit.unit, 0, LIMITS):
            if table == "explanations":
                _, text, _, score, kind, *_ = cast(tuple[int, str, None, float | None, str, str, None], row)
                answers.append(Answer(unit, how.require_origin(), text, how.explainer))
                scores.append([] if score is not None else [AnswerScore(kind, None)])
            else:
                _, kind, score, _ = cast(tuple[int, str, float, str], row)
                scores[-1].append(AnswerScore(kind, score))
        return [
            Answer(a.unit_id, a.origin, a.explanation, a.explainer, scores=tuple(s))
            for a, s in zip(answers, scores, strict=True)
        ]

    return read


def _check_kind(fields: Fields, dataset: Dataset) -> None:
    """See that what is said of heads is taken for heads, and what is said of neurons and latents for those."""
    named = [key for key in UNIT_KEYS if isinstance(fields.get(key), dict)]
    named += [name for name in (fields.get("dataclass_name"),) if name in _RESULTS]
    has_pairs = dataset.kind == "head" or dataset.per == "token_pair"
    for name in named:
        is_of_heads = name.lower().startswith("attention")
        if (is_of_heads and not has_pairs) or (not is_of_heads and dataset.kind == "head"):
            theirs = "attention heads" if is_of_heads else "neurons"
            raise MalformedFile(f"{name}: an object about {theirs}, where {dataset.key} has {dataset.kind}s")


def _read_unit(fields: Fields, path: str, how: ImportOptions) -> UnitId:
    for key in UNIT_KEYS:
        name = fields.get(key)
        if isinstance(name, dict):
            layer, unit = (next((name[k] for k in keys if k in name), None) for keys in (_LAYER_KEYS, _INDEX_KEYS))
            return how.unit_of(read_index(layer, f"{key}.layer_index"), read_index(unit, f"{key}.neuron_index"))
    match = _PLACE.search(path)
    if match is None:
        raise MalformedFile("the object names no unit, and its file is not called {layer}/{unit}.jsonl")
    return how.unit_of(int(match[1]), int(match[2]))
