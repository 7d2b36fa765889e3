"""Explanations as Neuronpedia exports them (batches of jsonl.gz) and as its API gives them.

Source: hijohnnylin/neuronpedia apps/webapp/prisma/schema.prisma, models Explanation and ExplanationScore;
utils/neuronpedia-utils/neuronpedia_utils/export-data.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from warehouse.decode.describe import describe
from warehouse.decode.json import load_json
from warehouse.errors import MalformedFile
from warehouse.explain.answers import Answer, AnswerScore
from warehouse.explain.importing.options import Fields, ImportOptions, RowReader
from warehouse.explain.importing.rows import read_explanation, read_index, read_name, read_number, read_time
from warehouse.records import LIMITS, UnitId

_BESIDE = ("features", "activations")
_TOLD = ("origin", "explainer", "score_kind", "score", "created_at")
"""What our own export writes into `notes`, as Neuronpedia's fields refer to tables of its site."""
_SOURCE = re.compile(r"([0-9]{1,4})(?:-(.*))?")


def list_explanations(files: Sequence[Path]) -> list[Path]:
    """Leave out what lies beside the explanations in Neuronpedia's exports; without such an export, leave all.

    A source's folder is known by its source.jsonl, or by batches of features or activations. Where there is one, only
    its explanations are of use: the rest, and lists of what else was exported, are no explanations.
    """
    sources = {file.parent for file in files if file.name == "source.jsonl"}
    sources |= {file.parent.parent for file in files if _is_batch(file) and file.parent.name in _BESIDE}
    if not sources:
        return list(files)
    return [file for file in files if file.parent.name == "explanations" and file.parent.parent in sources]


def _is_batch(file: Path) -> bool:
    return file.name.startswith("batch-") and file.name.removesuffix(".gz").endswith(".jsonl")


def neuronpedia_reader(how: ImportOptions) -> RowReader:
    """Make the reader of Neuronpedia's objects: explanations, or features with a list of them.

    A source, as 6-res-jb, is a layer and the name of a set of sources. Which dataset that is, only the user knows; so
    one import takes one set of one model, the first that it meets if it is not told.
    """
    sets: list[tuple[str | None, str]] = []

    def read(fields: Fields, path: str) -> list[Answer]:
        listed = fields.get("explanations")
        items = listed if isinstance(listed, list) else [fields]
        return [_read(item, fields, path) for item in items]

    def _read(item: object, parent: Fields, path: str) -> Answer:
        if not isinstance(item, dict):
            raise MalformedFile(f"{describe(item)}, not an explanation")
        named = {key: parent[key] for key in ("modelId", "layer", "index") if key in parent} | item
        text = read_explanation(named, "description")
        told = _read_notes(named.get("notes"))
        return Answer(
            _read_unit(named),
            read_name(told, "origin") or how.require_origin(),
            text,
            _read_explainer(named) or read_name(told, "explainer") or how.explainer,
            scores=_read_scores(named.get("scores")) or _read_told_score(told),
            created_at=read_time(named, "createdAt") or read_time(told, "created_at"),
        )

    def _read_unit(fields: Fields) -> UnitId:
        source = fields.get("layer")
        match = _SOURCE.fullmatch(source if isinstance(source, str) else str(read_index(source, "layer")))
        if match is None:
            raise MalformedFile(f"layer: {describe(source)}, not a source as 6-res-jb")
        unit = how.unit_of(int(match[1]), read_index(fields.get("index"), "index"))
        found = (read_name(fields, "modelId"), match[2] or "")
        if how.source_set is not None and found[1] != how.source_set:
            raise MalformedFile(f"of the sources {found[1]!r}, where {how.source_set!r} was asked for")
        if not sets:
            sets.append(found)
        if found != sets[0]:
            raise MalformedFile(
                f"of the sources {found[1]!r} of {found[0]}, where this import began with {sets[0][1]!r} of "
                f"{sets[0][0]}: a dataset is one of them, --source-set says which"
            )
        return unit

    return read


def _read_notes(value: object) -> Fields:
    """Give what our own export wrote there, and nothing of what a person did."""
    if not isinstance(value, str) or not value.startswith("{"):
        return {}
    try:
        notes = load_json(value.encode("utf-8", "replace"), LIMITS)
    except MalformedFile:
        return {}
    return notes if isinstance(notes, dict) and notes.keys() == set(_TOLD) else {}


def _read_told_score(told: Fields) -> tuple[AnswerScore, ...]:
    kind = read_name(told, "score_kind")
    return () if kind is None else (AnswerScore(kind, read_number(told["score"], "notes.score")),)


def _read_explainer(fields: Fields) -> str | None:
    """Give the model that wrote the explanation, and the method, as gpt-4o-mini, oai_token-act-pair."""
    return ", ".join(filter(None, (read_name(fields, key) for key in ("explanationModelName", "typeName")))) or None


def _read_scores(value: object) -> tuple[AnswerScore, ...]:
    """Read scores; of two of one kind by different models, the later ones have the model in their kind."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise MalformedFile(f"scores: {describe(value)}, not a list")
    scores: list[AnswerScore] = []
    for i, item in enumerate(value):
        kind = read_name(item, "explanationScoreTypeName") if isinstance(item, dict) else None
        if kind is None:
            raise MalformedFile(f"scores[{i}]: {describe(item)}, not a score with explanationScoreTypeName")
        if any(kind == score.score_kind for score in scores):
            kind = f"{kind} ({read_name(item, 'explanationScoreModelName')})"
        scores.append(AnswerScore(kind, read_number(item.get("value"), f"scores[{i}].value")))
    return tuple(scores)
