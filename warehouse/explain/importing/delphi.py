"""The results of EleutherAI's delphi: a folder of explanations and, for each scorer, one of what it was asked.

Source: EleutherAI/delphi delphi/__main__.py (names of the files), delphi/scorers/classifier/sample.py and
delphi/scorers/simulator/oai_autointerp/explanations/scoring.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from warehouse.decode.describe import describe
from warehouse.decode.json import load_json
from warehouse.errors import MalformedFile
from warehouse.explain.answers import Answer, AnswerScore
from warehouse.explain.importing.options import ImportOptions
from warehouse.explain.importing.rows import read_number
from warehouse.explain.scores import compute, measure_roc_auc
from warehouse.records import LIMITS, UnitId

SCORERS: Mapping[str, str] = {"detection": "detection", "fuzz": "fuzzing", "intruder": "intruder"}
"""Folders of classifiers' scores, each with what the kinds of its scores begin with."""
SIMULATION = "simulation"
_EVERYTHING = (-1, 0)
"""`distance` of the simulation score that is of all texts, inactive ones too; in some versions, only 0 is there."""
_NAME = re.compile(r"(.*)_latent([0-9]{1,9})", re.DOTALL)
_ALONE = re.compile(r"(?<![A-Za-z0-9])(?:layer)?_?([0-9]{1,4})(?![A-Za-z0-9])")
_LARGEST = 16 * 2**20


def is_results_folder(folder: Path) -> bool:
    """Say whether a folder is one of delphi's results."""
    return any((folder / "explanations").glob("*.txt"))


def iterate_results(folder: Path, how: ImportOptions) -> Iterator[tuple[str, list[Answer] | str]]:
    """Give the answer of each explanation of a folder of results, or why there is none, and which scores are not read.

    The files are named {module}_latent{number}.txt. The module's layer is the one number that stands alone in its
    name, as in layers.5.mlp. A file of scores that is malformed costs its own scores only.
    """
    for scorer in sorted((folder / "scores").glob("*/")):
        if scorer.name not in (*SCORERS, SIMULATION):
            yield str(scorer), f"scores of this kind are not read, only those of {', '.join((*SCORERS, SIMULATION))}"
    for path in sorted((folder / "explanations").rglob("*.txt")):
        try:
            name = str(path.relative_to(folder / "explanations"))
            unit = _read_name(name.removesuffix(".txt"), how)
            text = _load(path)
            if not isinstance(text, str) or not text.strip():
                raise MalformedFile(f"{describe(text)}, not an explanation")
            scores, faults = _read_scores(folder, name)
            yield str(path), [Answer(unit, how.require_origin(), text, how.explainer, scores=tuple(scores))]
            yield from faults
        except (MalformedFile, OSError) as e:
            yield str(path), str(e)


def classification_scores(examples: list[tuple[bool, bool, float | None]], prefix: str) -> tuple[AnswerScore, ...]:
    """Score what a scorer was asked.

    Args:
        examples: of each whether the latent is active on it, what was predicted, and the probability if it was given.
        prefix: what the kinds begin with.

    Returns:
        Balanced accuracy, F1 and, where all examples have a finite probability, the area under the ROC curve; None
        where a score is not defined, as where no example is active.
    """
    n = len(examples)
    n_true = sum(truth for truth, _, _ in examples)
    hits = sum(truth and guess for truth, guess, _ in examples)
    rejections = sum(not truth and not guess for truth, guess, _ in examples)
    n_guessed = sum(guess for _, guess, _ in examples)
    balanced = (hits / n_true + rejections / (n - n_true)) / 2 if 0 < n_true < n else None
    f1 = 2 * hits / (n_true + n_guessed) if n_true else None
    scores = [
        AnswerScore(f"{prefix}_balanced_accuracy", balanced, n_scored=n),
        AnswerScore(f"{prefix}_f1", f1, n_scored=n),
    ]
    truths = [truth for truth, _, _ in examples]
    probabilities = [p for _, _, p in examples if p is not None and math.isfinite(p)]
    if len(probabilities) == n:
        area = compute(measure_roc_auc(truths, probabilities), n)
        scores.append(AnswerScore(f"{prefix}_roc_auc", area, n_scored=n))
    return tuple(scores)


def _read_name(name: str, how: ImportOptions) -> UnitId:
    match = _NAME.fullmatch(name)
    if match is None:
        raise MalformedFile(f"{name!r} is not called module_latent0")
    if how.layer is not None:
        return how.unit_of(how.layer, int(match[2]))
    layers = _ALONE.findall(match[1])
    if len(layers) != 1:
        raise MalformedFile(f"the module {match[1]!r} has {len(layers)} numbers for a layer: give --layer")
    return how.unit_of(int(layers[0]), int(match[2]))


def _read_scores(folder: Path, name: str) -> tuple[list[AnswerScore], list[tuple[str, str]]]:
    """Give the scores of an explanation, and each file of scores that cannot be read with the reason."""
    scores: list[AnswerScore] = []
    faults: list[tuple[str, str]] = []
    for scorer in (*SCORERS, SIMULATION):
        path = next(
            (p for n in (name.replace("/", "--"), name) if (p := folder / "scores" / scorer / n).is_file()), None
        )
        if path is None:
            continue
        try:
            listed = _load(path)
            if not isinstance(listed, list):
                raise MalformedFile(f"{describe(listed)}, not a list")
            scores += _read_simulation(listed) if scorer == SIMULATION else _read_classified(listed, SCORERS[scorer])
        except (MalformedFile, OSError) as e:
            faults.append((str(path), f"these scores are not read: {e}"))
    return scores, faults


def _read_classified(listed: list[object], prefix: str) -> tuple[AnswerScore, ...]:
    examples = [_read_example(item, f"[{i}]") for i, item in enumerate(listed)]
    return classification_scores([example for example in examples if example is not None], prefix)


def _read_example(item: object, where: str) -> tuple[bool, bool, float | None] | None:
    """Read what was asked of one example, or None where the scorer gave no usable answer."""
    if not isinstance(item, dict) or not isinstance(item.get("activating"), bool):
        raise MalformedFile(f"{where}: {describe(item)}, not an example with activating")
    prediction, probability = item.get("prediction"), item.get("probability")
    if prediction is None:
        return None
    if prediction not in (0, 1):
        raise MalformedFile(f"{where}: a prediction of {describe(prediction)}, not true or false")
    return item["activating"], bool(prediction), read_number(probability, f"{where}.probability")


def _read_simulation(listed: list[object]) -> tuple[AnswerScore, ...]:
    """Read the correlation over all texts at once; delphi computes no other figure of a simulation."""
    found = {
        distance if isinstance(distance := item.get("distance"), int) else None: item
        for item in listed
        if isinstance(item, dict) and "ev_correlation_score" in item
    }
    whole = next((found[distance] for distance in _EVERYTHING if distance in found), None)
    if whole is None and len(found) == len(listed) == 1:
        (whole,) = found.values()
    if whole is None:
        raise MalformedFile(f"{len(listed)} items, and none with the ev_correlation_score of all texts (distance 0)")
    score = read_number(whole["ev_correlation_score"], "ev_correlation_score")
    texts = whole.get("scored_sequence_simulations")
    return (AnswerScore("ev_correlation", score, n_scored=len(texts) if isinstance(texts, list) else None),)


def _load(path: Path) -> object:
    with path.open("rb") as stream:
        data = stream.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise MalformedFile(f"more than {_LARGEST:,} bytes")
    return load_json(data, LIMITS)
