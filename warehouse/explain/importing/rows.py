"""Plain rows, of CSV or of JSON lines, with the names that the views of the warehouse have."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from warehouse.decode.describe import describe
from warehouse.errors import MalformedFile, UnknownUnit
from warehouse.explain.answers import Answer, AnswerScore
from warehouse.explain.importing.options import Fields, ImportOptions, RowReader
from warehouse.records import UnitId

_INDEX = re.compile(r"([0-9]{1,9})(?:\.0*)?")
_SCORE_COLUMNS = ("score_kind", "score", "score_low", "score_high", "n_scored")


def row_reader(how: ImportOptions) -> RowReader:
    """Make the reader of plain rows.

    A row has `unit_id`, or `layer` and `unit` and where these are not said otherwise `model` and `component`; an
    `explanation`; and if it wants `explainer`, `origin`, `created_at` (ISO 8601, in UTC where it has no zone),
    `score` with `score_kind`, `score_low`, `score_high` and `n_scored`, or `scores`, a list of objects with these
    names or one object of scores by their kinds. All else in it is left.
    """

    def read(fields: Fields, path: str) -> list[Answer]:
        return [
            Answer(
                unit_id=_read_unit(fields, how),
                origin=read_name(fields, "origin") or how.require_origin(),
                explanation=read_explanation(fields, "explanation"),
                explainer=read_name(fields, "explainer") or how.explainer,
                scores=_read_scores(fields, how),
                created_at=read_time(fields, "created_at"),
            )
        ]

    return read


def read_explanation(fields: Fields, name: str) -> str:
    """Read a text that must be there.

    Raises:
        MalformedFile: it is not, or is no text, or has no character but spaces.
    """
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip():
        raise MalformedFile(f"{name}: {_describe(value)}, not a text")
    return value


def read_name(fields: Fields, name: str) -> str | None:
    """Read a text that may be missing, null or empty, which is all None.

    Raises:
        MalformedFile: it is something else.
    """
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise MalformedFile(f"{name}: {describe(value)}, not a text")
    return value or None


def read_index(value: object, name: str) -> int:
    """Read a whole number from 0, which may be written as a text, or as 5.0.

    Raises:
        MalformedFile: it is none.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 10**9 and value == int(value):
        return int(value)
    if isinstance(value, str) and (match := _INDEX.fullmatch(value.strip())):
        return int(match[1])
    raise MalformedFile(f"{name}: {_describe(value)}, not a whole number from 0")


def read_number(value: object, name: str) -> float | None:
    """Read a number, which may be written as a text; null, NaN and what is infinite are None.

    Raises:
        MalformedFile: it is something else.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "null", "none")):
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise MalformedFile(f"{name}: {describe(value)}, not a number")
    try:
        number = float(value)
    except (ValueError, OverflowError) as e:
        raise MalformedFile(f"{name}: {describe(value)}, not a number") from e
    return number if abs(number) != float("inf") and number == number else None


def read_time(fields: Fields, name: str) -> datetime | None:
    """Read a moment in ISO 8601, taken as UTC where it has no zone; it may be missing.

    Raises:
        MalformedFile: it is something else.
    """
    text = read_name(fields, name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text.strip())
        moment.timestamp()
    except (ValueError, OverflowError) as e:
        raise MalformedFile(f"{name}: {describe(text)}, not a time as 2026-01-31T12:00:00Z") from e
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _read_unit(fields: Fields, how: ImportOptions) -> UnitId:
    if unit_id := read_name(fields, "unit_id"):
        try:
            return UnitId.parse(unit_id)
        except UnknownUnit as e:
            raise MalformedFile(str(e)) from e
    layer = (
        how.layer if fields.get("layer") is None and how.layer is not None else read_index(fields.get("layer"), "layer")
    )
    unit = read_index(fields.get("unit"), "unit")
    model, component = read_name(fields, "model"), read_name(fields, "component")
    if model and component:
        return UnitId(model, component, layer, unit)
    return how.unit_of(layer, unit)


def _read_scores(fields: Fields, how: ImportOptions) -> tuple[AnswerScore, ...]:
    value = fields.get("scores")
    if isinstance(value, dict):
        return tuple(AnswerScore(str(kind), read_number(score, f"scores.{kind}")) for kind, score in value.items())
    if isinstance(value, list):
        return tuple(_read_score(item, how, f"scores[{i}].") for i, item in enumerate(value))
    if value is not None:
        raise MalformedFile(f"scores: {describe(value)}, not a list or an object")
    return (_read_score(fields, how, ""),) if fields.get("score") is not None else ()


def _read_score(fields: object, how: ImportOptions, where: str) -> AnswerScore:
    if not isinstance(fields, dict):
        raise MalformedFile(f"{where.rstrip('.')}: {describe(fields)}, not an object")
    kind = read_name(fields, "score_kind") or how.score_kind
    if kind is None:
        raise MalformedFile(f"{where}score_kind is missing, so what the score measures is not said: give --score-kind")
    score, low, high = (read_number(fields.get(name), where + name) for name in _SCORE_COLUMNS[1:4])
    n_scored = fields.get("n_scored")
    return AnswerScore(kind, score, low, high, None if n_scored is None else read_index(n_scored, f"{where}n_scored"))


def _describe(value: object) -> str:
    return "nothing" if value is None else describe(value)
