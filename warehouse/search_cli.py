"""The command `warehouse search`: explanations by words, by a regular expression, or by meaning."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from warehouse.cli_options import (
    DEFAULT_LAKE,
    ComponentOption,
    FormatOption,
    LakeOption,
    LayerOption,
    ModelOption,
    RowsOption,
    open_lake,
)
from warehouse.errors import WarehouseError
from warehouse.output import Format, emit

if TYPE_CHECKING:
    from warehouse.reader import LakeReader

_SHOWN = ("rank", "unit_id", "score", "explanation")


class SearchKind(StrEnum):
    """Ways to search."""

    words = "words"
    regex = "regex"
    meaning = "meaning"


def search(
    text: Annotated[str, typer.Argument(help="What the explanations are about.")],
    how: Annotated[
        SearchKind, typer.Option(help="By words (BM25), as a regular expression, or by meaning (extra semantic).")
    ] = SearchKind.words,
    k: RowsOption = 20,
    min_score: Annotated[float | None, typer.Option(help="Only explanations with at least this score.")] = None,
    score_kind: Annotated[str | None, typer.Option(help="Only scores of this kind.")] = None,
    origin: Annotated[str | None, typer.Option(help="Only explanations of this origin.")] = None,
    explainer: Annotated[str | None, typer.Option(help="Only explanations by this explainer.")] = None,
    model: ModelOption = None,
    component: ComponentOption = None,
    layer: LayerOption = None,
    where: Annotated[
        str | None, typer.Option(metavar="SQL", help="Condition over the rows and the view units, as below.")
    ] = None,
    lake: LakeOption = DEFAULT_LAKE,
    form: FormatOption = Format.table,
) -> None:
    """Search the explanations of units, published, imported and of runs, best first.

    Example: warehouse search royalty --min-score 0.5 --where "top_token <> ' king'"
    """
    with open_lake(lake) as reader:
        found = reader.search_explanations(
            text,
            how.value,
            k,
            model,
            component,
            layer,
            min_score=min_score,
            origin=origin,
            explainer=explainer,
            score_kind=score_kind,
            where=where,
        )
        if found.is_empty():
            raise WarehouseError(_explain_nothing(reader, text, how))
    emit(found.select(_SHOWN) if form is Format.table else found, form)


def _explain_nothing(reader: LakeReader, text: str, how: SearchKind) -> str:
    """Say why nothing was found: there are no explanations, only others pass the filters, or none has the words."""
    if reader.sql("SELECT 1 FROM explanation_texts LIMIT 1").is_empty():
        return (
            "the lake has no explanations: build published ones, as 'warehouse build gpt2-xl/explanations', or bring "
            "others with 'warehouse explain import'"
        )
    if not reader.search_explanations(text, how.value, 1).is_empty():
        return "explanations match, but none that passes these filters"
    hint = ": --how meaning looks for the like of it" if how is SearchKind.words else ""
    return f"no explanation here has a word of {text!r}{hint}" if how is SearchKind.words else f"no match of {text!r}"
