"""The results of EleutherAI's delphi: a folder of explanations and, for each scorer, one of what it was asked.

Source: EleutherAI/delphi delphi/__main__.py (names of the files) and delphi/scorers/classifier/sample.py.
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
from warehouse.explain.scores import compute, measure_roc_auc
from warehouse.records import LIMITS, UnitId

SCORERS: Mapping[str, str] = {"detection": "detection", "fuzz": "fuzzing", "intruder": "intruder"}
"""Folders of scores that are read, each with what the kinds of its scores begin with."""
_NAME = re.compile(r"(.*)_latent([0-9]{1,9})", re.DOTALL)
_ALONE = re.compile(r"(?<![A-Za-z0-9])(?:layer)?_?([0-9]{1,4})(?![A-Za-z0-9])")
_LARGEST = 16 * 2**20


def is_results_folder(folder: Path) -> bool:
    """Say whether a folder is one of delphi's results."""
    return any((folder / "explanations").glob("*.txt"))


def iterate_results(folder: Path, how: ImportOptions) -> Iterator[tuple[str, list[Answer] | str]]:
    """Give the answer of each explanation of a folder of results, or why there is none.

    The files are named {module}_latent{number}.txt. The module's layer is the one number that stands alone in its
    name, as in layers.5.mlp.
    """
    for path in sorted((folder / "explanations").rglob("*.txt")):
        try:
            name = str(path.relative_to(folder / "explanations"))
            unit = _read_name(name.removesuffix(".txt"), how)
            text = _load(path)
            if not isinstance(text, str) or not text.strip():
                raise MalformedFile(f"{describe(text)}, not an explanation")
            answer = Answer(unit, how.require_origin(), text, how.explainer, scores=_read_scores(folder, name))
            yield str(path), [answer]
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


def _read_scores(folder: Path, name: str) -> tuple[AnswerScore, ...]:
    scores: list[AnswerScore] = []
    for scorer, prefix in SCORERS.items():
        path = next(
            (p for n in (name.replace("/", "--"), name) if (p := folder / "scores" / scorer / n).is_file()), None
        )
        if path is None:
            continue
        asked = _load(path)
        if not isinstance(asked, list):
            raise MalformedFile(f"{path}: {describe(asked)}, not a list of examples")
        examples = [_read_example(item, f"{path}[{i}]") for i, item in enumerate(asked)]
        scores += classification_scores([example for example in examples if example is not None], prefix)
    return tuple(scores)


def _read_example(item: object, where: str) -> tuple[bool, bool, float | None] | None:
    """Read what was asked of one example, or None where the scorer gave no usable answer."""
    if not isinstance(item, dict) or not isinstance(item.get("activating"), bool):
        raise MalformedFile(f"{where}: {describe(item)}, not an example with activating")
    prediction, probability = item.get("prediction"), item.get("probability")
    if prediction is None:
        return None
    if prediction not in (0, 1) or not (probability is None or isinstance(probability, (int, float))):
        raise MalformedFile(f"{where}: a prediction of {describe(prediction)}, not true or false")
    return item["activating"], bool(prediction), None if probability is None else float(probability)


def _load(path: Path) -> object:
    with path.open("rb") as stream:
        data = stream.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise MalformedFile(f"{path}: more than {_LARGEST:,} bytes")
    return load_json(data, LIMITS)
