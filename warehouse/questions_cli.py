"""The commands that ask questions across units: each a skin over the reader's method of the same name."""

from __future__ import annotations

from dataclasses import dataclass
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
    UnitArgument,
    open_lake,
)
from warehouse.errors import WarehouseError
from warehouse.output import Format, console, emit

if TYPE_CHECKING:
    import polars as pl

    from warehouse.reader import LakeReader


@dataclass(frozen=True, slots=True)
class _Ranking:
    """What `warehouse top` ranks units by: tokens, taken together; one but not another; or a pair, or a side of one."""

    tokens: tuple[str, ...]
    query: str | None
    key: str | None
    but_not: str | None
    by: str

    @property
    def is_of_pairs(self) -> bool:
        return self.query is not None or self.key is not None

    def require_one(self) -> None:
        """Refuse what is no ranking, or several.

        Raises:
            typer.BadParameter: with what to give instead.
        """
        if not self.tokens and not self.is_of_pairs:
            raise typer.BadParameter("give a token, or --query or --key for pairs")
        if self.is_of_pairs and (self.but_not is not None or len(self.tokens) + (self.query is not None) > 1):
            raise typer.BadParameter("a pair has one query token (TOKEN or --query) and one --key, and no --but-not")
        if self.but_not is not None and (len(self.tokens) != 1 or self.by != "max"):
            raise typer.BadParameter("--but-not goes with one TOKEN, and ranks by max")

    def rank(
        self, reader: LakeReader, k: int, model: str | None, component: str | None, layer: int | None, by: str = ""
    ) -> pl.DataFrame:
        """Ask the reader."""
        by = by or self.by
        if self.is_of_pairs:
            query = self.tokens[0] if self.tokens else self.query
            return reader.top_units_by_pair(query, self.key, k, model, component, layer, by)  # type: ignore[arg-type]
        if self.but_not is not None:
            return reader.top_units_but_not(self.tokens[0], self.but_not, k, model, component, layer)
        if len(self.tokens) > 1:
            return reader.top_units_of_tokens(self.tokens, k, model, component, layer, by)  # type: ignore[arg-type]
        return reader.top_units(self.tokens[0], k, model, component, layer, by)  # type: ignore[arg-type]

    def require_tokens(self, reader: LakeReader) -> None:
        """Refuse a token that no unit is active on where the ranking would just go without it.

        Raises:
            WarehouseError: with those that are like it.
        """
        from warehouse.absence import explain_no_units, find_unknown

        named = [*self.tokens, *([] if self.but_not is None else [self.but_not])]
        for token in find_unknown(reader.sql, named) if len(named) > 1 else ():
            raise WarehouseError(explain_no_units(reader.sql, [token], reader.near_tokens))

    def explain_nothing(self, reader: LakeReader, model: str | None, component: str | None, layer: int | None) -> str:
        """Say why there is none: only others have the tokens, or not the figure to rank by, or nobody has them."""
        from warehouse.absence import describe_gap, explain_no_units, is_per_pair

        if not self.is_of_pairs and is_per_pair(reader.sql, component):
            return f"{component} is per token pair: name the key token too, with --key"
        if gap := describe_gap(reader.sql, model, component, layer):
            return gap
        if not self.rank(reader, 1, None, None, None).is_empty():
            return f"no unit of this --model, --component and --layer is active on {self}, but others are"
        if self.but_not is None and not self.rank(reader, 1, None, None, None, "max").is_empty():
            why = "no random sample has it" if self.by == "mean" else "none of them has what it is divided by"
            return f"units are active on {self}, but {why}: --by max ranks them"
        tokens = [token for token in (*self.tokens, self.query, self.key) if token is not None]
        if self.but_not is not None and not reader.top_units(tokens[0], 1).is_empty():
            return f"every unit that is active on {tokens[0]!r} is so on {self.but_not!r} too"
        return explain_no_units(reader.sql, tokens, reader.near_tokens)

    def __str__(self) -> str:
        query = self.tokens[0] if self.is_of_pairs and self.tokens else self.query
        if self.is_of_pairs and self.key is None:
            return f"query {query!r}"
        if self.is_of_pairs:
            return f"key {self.key!r}" if query is None else f"{query!r} with key {self.key!r}"
        tokens = " or ".join(map(repr, self.tokens))
        return tokens if self.but_not is None else f"{tokens} but not {self.but_not!r}"


def top(
    tokens: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TOKEN ...]", help="Exactly as in the text: most words begin with a space."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Rank by the pair: TOKEN (any, without one) attends to this token.")
    ] = None,
    query: Annotated[str | None, typer.Option(help="Rank by pairs in which this token attends to any.")] = None,
    but_not: Annotated[
        str | None, typer.Option(help="Only units that this token moves ten times less, or not at all.")
    ] = None,
    k: RowsOption = 20,
    model: ModelOption = None,
    component: ComponentOption = None,
    layer: LayerOption = None,
    by: Annotated[
        str,
        typer.Option(help="max, mean, relative or share; of several tokens max, share or tokens; of pairs also abs."),
    ] = "max",
    lake: LakeOption = DEFAULT_LAKE,
    form: FormatOption = Format.table,
) -> None:
    """Rank the units that respond to a token, to several taken together, or to a pair, over all components at once.

    Examples: warehouse top " Avengers" --by share;  warehouse top " bank" --but-not " river";
    warehouse top " king" " queen" " prince";  warehouse top --key " the" --component attn_write_norm
    """
    asked = _Ranking(tuple(tokens or ()), query, key, but_not, by)
    asked.require_one()
    with open_lake(lake) as reader:
        asked.require_tokens(reader)
        found = asked.rank(reader, k, model, component, layer)
        if found.is_empty():
            raise WarehouseError(asked.explain_nothing(reader, model, component, layer))
    emit(found, form)


class Likeness(StrEnum):
    """What similar units have in common."""

    tokens = "tokens"
    texts = "texts"


def similar(
    unit_id: UnitArgument,
    k: RowsOption = 20,
    model: ModelOption = None,
    component: ComponentOption = None,
    layer: LayerOption = None,
    by: Annotated[
        Likeness, typer.Option(help="tokens: the profile of tokens that they respond to; texts: top texts they share.")
    ] = Likeness.tokens,
    lake: LakeOption = DEFAULT_LAKE,
    form: FormatOption = Format.table,
) -> None:
    """Rank the units of any component that respond to the same tokens, or have the same top texts, as a unit does.

    Example: warehouse similar gpt2-small/mlp_post_act_ae_v1/5/16 --component mlp_post_act_ae_v4
    """
    from warehouse.absence import describe_gap, explain_no_twins

    asked = (unit_id, k, model, component, layer)
    with open_lake(lake) as reader:
        shown = None
        if by is Likeness.texts:
            found = reader.units_with_shared_texts(*asked)
        elif form is Format.table:
            shown = reader.show_similar(*asked)
            found = shown.frame
        else:
            found = reader.similar_units(*asked)
        if found.is_empty():
            gap = describe_gap(reader.sql, model, component, layer)
            none = explain_no_twins(reader.sql, unit_id) if by is Likeness.tokens else "no other has its top texts"
            raise WarehouseError(gap or none)
    if shown:
        console().print(shown)
    else:
        emit(found, form)


def coactive(
    unit_id: UnitArgument,
    k: RowsOption = 20,
    model: ModelOption = None,
    component: ComponentOption = None,
    layer: LayerOption = None,
    by: Annotated[str, typer.Option(help="count of positions where both fire, or share of those of either.")] = "count",
    lake: LakeOption = DEFAULT_LAKE,
    form: FormatOption = Format.table,
) -> None:
    """Rank the units that fire on the same texts at the same positions as a unit does.

    Example: warehouse coactive gpt2-small/mlp_post_act_ae_v1/5/16 --by share
    """
    from warehouse.absence import describe_gap

    with open_lake(lake) as reader:
        found = reader.coactive_units(unit_id, k, model, component, layer, by)  # type: ignore[arg-type]
        if found.is_empty():
            gap = describe_gap(reader.sql, model, component, layer)
            raise WarehouseError(gap or f"no unit of those asked for fires where {unit_id} does")
    emit(found, form)


def profile(
    unit_id: UnitArgument, k: RowsOption = 20, lake: LakeOption = DEFAULT_LAKE, form: FormatOption = Format.table
) -> None:
    """Rank the tokens that a unit responds to, or the token pairs of a head: counts, means and shares.

    Example: warehouse profile gpt2-xl/mlp_post_act/0/0
    """
    with open_lake(lake) as reader:
        found = reader.top_tokens(unit_id, k)
        if found.is_empty():
            found = reader.top_pairs(unit_id, k)
        if found.is_empty():
            raise WarehouseError(f"{unit_id} is never active, so it has no tokens")
    emit(found, form)


def tokens(
    pattern: Annotated[str, typer.Argument(help="What to look for among the lake's tokens.")],
    how: Annotated[str, typer.Option(help="exact, prefix, regex, or loose: but for case and leading space.")] = "loose",
    lake: LakeOption = DEFAULT_LAKE,
    form: FormatOption = Format.table,
) -> None:
    """Find tokens of the lake, with how often they occur and how many units are active on them.

    Example: warehouse tokens paris
    """
    with open_lake(lake) as reader:
        found = reader.find_tokens(pattern, how)  # type: ignore[arg-type]
        if found.is_empty():
            near = reader.near_tokens(pattern) if how != "regex" else []
            hint = f"; like it are {', '.join(map(repr, near))}" if near else ""
            raise WarehouseError(f"no unit here is active on a token like {pattern!r}{hint}")
    emit(found, form)


class UnitOrder(StrEnum):
    """What ranks units by a context."""

    max = "max"
    texts = "texts"


def contexts(
    pattern: Annotated[str, typer.Argument(help="What the text holds.")],
    how: Annotated[str, typer.Option(help="phrase (whole tokens), substring or regex.")] = "phrase",
    k: RowsOption = 20,
    model: ModelOption = None,
    component: ComponentOption = None,
    layer: LayerOption = None,
    units: Annotated[
        UnitOrder | None, typer.Option(help="Rank units instead: by their max inside, or the number of texts.")
    ] = None,
    lake: LakeOption = DEFAULT_LAKE,
    form: FormatOption = Format.table,
) -> None:
    """Find texts, and the units that fire inside the match, strongest first.

    Example: warehouse contexts "the capital of" --component mlp_post_act
    """
    from warehouse.absence import describe_gap, explain_no_context

    asked = (pattern, how, k, model, component, layer)
    with open_lake(lake) as reader:
        shown = None
        if units is not None:
            found = reader.top_units_by_context(*asked, by=units.value)  # type: ignore[arg-type]
        elif form is Format.table:
            shown = reader.show_contexts(*asked)  # type: ignore[arg-type]
            found = shown.frame
        else:
            found = reader.contexts(*asked)  # type: ignore[arg-type]
        if found.is_empty():
            gap = describe_gap(reader.sql, model, component, layer)
            raise WarehouseError(gap or explain_no_context(reader.sql, pattern, how, component, reader.near_tokens))
    if shown:
        console().print(shown)
    else:
        emit(found, form)
