"""Answers: what explanation runs and imports say of units, as rows of a lake.

A batch of answers is one Parquet file below `{lake}/answers/`. It is written to a temporary file and moved into place,
or put on a store in one request, so a file is its own commit: it is there whole or not at all. Its name depends on
what it holds (of an import) or on the run and its place in it, so that writing it again changes nothing, and no batch
takes the place of another's.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from warehouse.errors import LakeError
from warehouse.lake import Lake
from warehouse.records import UnitId
from warehouse.schema import arrow_schema

AnswerStatus: TypeAlias = Literal["ok", "failed", "refused", "unfit", "over_budget"]
STATUSES: tuple[AnswerStatus, ...] = ("ok", "failed", "refused", "unfit", "over_budget")
"""What came of a unit: only ok answers are explanations."""

LONGEST_TEXT = 65_536
"""Characters of an explanation."""
LONGEST_NAME = 200
"""Characters of an origin, explainer, kind of score or run."""
MOST_SCORES = 100
"""Scores of one explanation."""

_BATCH_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class AnswerScore:
    """A score of an explanation.

    Attributes:
        score_kind: what it measures, as ev_correlation, detection_f1 or roc_auc.
        score: the score, unitless; None where it is undefined.
        score_low: lower end of its 95 % interval, None without one.
        score_high: upper end.
        n_scored: what was scored: records for simulation, examples for detection, pairs for heads; None if unknown.
    """

    score_kind: str
    score: float | None
    score_low: float | None = None
    score_high: float | None = None
    n_scored: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said of one unit, or why nothing was.

    Attributes:
        unit_id: which unit.
        origin: who made the explanation: the name that a user gave the run or import.
        explanation: the text; None unless the status is ok.
        explainer: model or method that wrote it.
        status: ok, or what went wrong.
        error: why it did, one line; None for ok.
        scores: of different kinds, the one that counts first at the head.
        created_at: when it was made, with a time zone; None if unknown.
        prompt_tokens: tokens that were sent for it, and paid for by its run: 0 where the ledger had all of it.
        completion_tokens: tokens that were given back, likewise.
        cost: of these, in the currency of the prices that were given.
        run_id: run of `explain run` that it is of; None for imports.
    """

    unit_id: UnitId
    origin: str
    explanation: str | None = None
    explainer: str | None = None
    status: AnswerStatus = "ok"
    error: str | None = None
    scores: tuple[AnswerScore, ...] = ()
    created_at: datetime | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None
    run_id: str | None = None


def write_answers(lake: Lake, answers: Sequence[Answer], name: str | None = None) -> str:
    """Write a batch of answers as one file of the lake; the next catalogue has them.

    A lone surrogate in a text reads as U+FFFD, a score that is not finite as NULL.

    Args:
        lake: where; it must have been created.
        answers: at least one.
        name: of the file without suffix: letters, digits, `.`, `_` and `-`. By default a hash of the answers. Who
            gives a name sees to it that it is of this batch alone, as a run's id and a sequence number are.

    Returns:
        The name.

    Raises:
        LakeError: an answer is not as `Answer` says, or the lake cannot be written.
    """
    for answer in answers:
        if fault := find_fault(answer):
            raise LakeError(f"no answer of {answer.unit_id} can be kept: {fault}")
    keys = [answer_key(answer) for answer in answers]
    if name is None:
        name = f"import-{hashlib.sha256(repr(keys).encode()).hexdigest()[:24]}"
    if not answers or not _BATCH_NAME.fullmatch(name):
        raise LakeError(f"{name!r} is no name of a batch of {len(answers)} answers: letters, digits, '.', '_' and '-'")
    rows = _tabulate(answers, keys, name)
    try:
        lake.write_batch("answers", name, rows)
    except OSError as e:
        raise LakeError(f"cannot write to the lake {lake.url}: {e.strerror or e}") from e
    return name


def find_fault(answer: Answer) -> str | None:
    """Say what of an answer is not as it must be, or give None."""
    names = [answer.origin, answer.explainer, answer.run_id, *(s.score_kind for s in answer.scores)]
    kinds = [s.score_kind for s in answer.scores]
    if answer.status not in STATUSES:
        return f"status {answer.status!r} is none of {', '.join(STATUSES)}"
    if (answer.status == "ok") != (answer.explanation is not None):
        return (
            f"its status is {answer.status}, and its explanation {'missing' if answer.explanation is None else 'there'}"
        )
    if (
        answer.explanation is not None
        and not 0 < len(answer.explanation.strip()) <= len(answer.explanation) <= LONGEST_TEXT
    ):
        return f"an explanation of {len(answer.explanation):,} characters, where 1 to {LONGEST_TEXT:,} are taken"
    if not answer.origin or any(name is not None and not 0 < len(name) <= LONGEST_NAME for name in names):
        return f"origin, explainer, run and kinds of score have 1 to {LONGEST_NAME} characters"
    if len(kinds) > MOST_SCORES or len(kinds) != len(set(kinds)):
        return f"{len(kinds)} scores of {len(set(kinds))} kinds: at most {MOST_SCORES}, each kind once"
    if answer.created_at is not None and answer.created_at.tzinfo is None:
        return "created_at has no time zone"
    return None


def answer_key(answer: Answer) -> int:
    """Give a 64-bit hash of what an answer says, the same for the same answer everywhere."""
    scores = [(s.score_kind, *map(_finite, (s.score, s.score_low, s.score_high)), s.n_scored) for s in answer.scores]
    created = answer.created_at.timestamp() if answer.created_at else None
    said = (
        str(answer.unit_id), answer.origin, answer.explanation, answer.explainer, answer.status, answer.error, scores,
        created, answer.prompt_tokens, answer.completion_tokens, answer.cost, answer.run_id,
    )  # fmt: skip
    digest = hashlib.blake2b(repr(said).encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def read_keys(lake: Lake) -> NDArray[np.uint64]:
    """Give the keys of all answers that the lake has, sorted.

    Raises:
        LakeError: a batch cannot be read.
    """
    found = [np.empty(0, np.uint64)]
    try:
        for path in lake.batches("answers"):
            for rows in lake.iterate_batch(path, ["answer_key"]):
                found.append(rows["answer_key"].to_numpy())
    except (pa.ArrowException, OSError) as e:
        raise LakeError(f"cannot read the answers of {lake.url}: {e}") from e
    return np.sort(np.concatenate(found))


def _tabulate(answers: Sequence[Answer], keys: Sequence[int], name: str) -> pa.Table:
    ranks: Counter[UnitId] = Counter()
    rows = []
    for answer, key in zip(answers, keys, strict=True):
        unit = answer.unit_id
        rank = None
        if answer.status == "ok":
            rank, ranks[unit] = ranks[unit], ranks[unit] + 1
        rows.append(
            {
                "model": unit.model,
                "component": unit.component,
                "layer": unit.layer,
                "unit": unit.unit,
                "batch": name,
                "rank": rank,
                "origin": _clean(answer.origin),
                "explanation": _clean(answer.explanation),
                "explainer": _clean(answer.explainer),
                "status": answer.status,
                "error": _clean(answer.error),
                "scores": [
                    {
                        "score_kind": _clean(s.score_kind),
                        "score": _finite(s.score),
                        "score_low": _finite(s.score_low),
                        "score_high": _finite(s.score_high),
                        "n_scored": s.n_scored,
                    }
                    for s in answer.scores
                ],
                "created_at": answer.created_at,
                "prompt_tokens": answer.prompt_tokens,
                "completion_tokens": answer.completion_tokens,
                "cost": _finite(answer.cost),
                "run_id": answer.run_id,
                "answer_key": key,
            }
        )
    return pa.Table.from_pylist(rows, schema=arrow_schema("answers"))


def _clean(text: str | None) -> str | None:
    return text if text is None or text.isascii() else _SURROGATE.sub("\ufffd", text)


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
