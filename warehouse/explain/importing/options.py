"""What an import is told, and what it says it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from warehouse.datasets import Dataset
from warehouse.errors import MalformedFile
from warehouse.explain.answers import Answer
from warehouse.records import UnitId

Form: TypeAlias = Literal["openai", "neuronpedia", "delphi", "csv", "jsonl"]
FORMS: tuple[Form, ...] = ("openai", "neuronpedia", "delphi", "csv", "jsonl")
Fields: TypeAlias = Mapping[str, object]
RowReader: TypeAlias = Callable[[Fields, str], list[Answer]]
"""Reads one row of a file (the second argument is the file's path) as answers.

Raises:
    MalformedFile: the row is not what the form has; the message says what was found.
"""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How explanations are taken in.

    Attributes:
        origin: who made them; None where each row says so.
        form: what the files are; None to go by what they hold.
        dataset: whose units they are about, where the rows do not say.
        layer: which layer, where a file's names do not say.
        explainer: what wrote them, where the rows do not say.
        score_kind: what their scores measure, where the rows do not say.
        source_set: of a Neuronpedia export with several, which is the dataset's, as res-jb.
    """

    origin: str | None = None
    form: Form | None = None
    dataset: Dataset | None = None
    layer: int | None = None
    explainer: str | None = None
    score_kind: str | None = None
    source_set: str | None = None

    def unit_of(self, layer: int, unit: int) -> UnitId:
        """Give the name of a unit of the dataset.

        Raises:
            MalformedFile: no dataset was given.
        """
        if self.dataset is None:
            raise MalformedFile("whose unit this is, is not said: give --dataset model/component")
        return UnitId(self.dataset.model, self.dataset.component, layer, unit)

    def require_origin(self) -> str:
        """Give the origin.

        Raises:
            MalformedFile: none was given.
        """
        if not self.origin:
            raise MalformedFile("who made the explanation is not said: give --origin")
        return self.origin


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What came of an import.

    Attributes:
        n_files: files that were read.
        n_new: explanations that were added.
        n_known: explanations that the lake had already.
        n_refused: rows that could not be taken.
    """

    n_files: int
    n_new: int
    n_known: int
    n_refused: int
