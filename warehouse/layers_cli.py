"""The commands about all units of a layer: each a skin over the reader's method of the same name."""

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
    UnitArgument,
    open_lake,
)
from warehouse.errors import WarehouseError
from warehouse.output import Format, emit

if TYPE_CHECKING:
    from warehouse.layer_searcher import Kind as KindName


def match(
    component_a: Annotated[str, typer.Argument(help="Whose units are matched.")],
    component_b: Annotated[str, typer.Argument(help="Among whose units each looks for its like.")],
    model: ModelOption = None,
    layer: LayerOption = None,
    layer_a: Annotated[int | None, typer.Option(help="Only units of this layer are matched.")] = None,
    layer_b: Annotated[int | None, typer.Option(help="Only among units of this layer.")] = None,
    lake: LakeOption = DEFAULT_LAKE,
    form: FormatOption = Format.table,
) -> None:
    """Give each unit of one component its most similar unit of another, and say whether that is mutual.

    Example: warehouse match mlp_post_act_ae_v1 mlp_post_act_ae_v4 --layer 5
    """
    from warehouse.absence import describe_gap

    with open_lake(lake) as reader:
        found = reader.match_units(component_a, component_b, model, layer, layer_a=layer_a, layer_b=layer_b)
        if found["match_unit_id"].is_null().all():
            a, b = (layer if side is None else side for side in (layer_a, layer_b))
            gap = describe_gap(reader.sql, model, component_a, a) or describe_gap(reader.sql, model, component_b, b)
            raise WarehouseError(gap or f"no unit of {component_a} shares a strong token with one of {component_b}")
    emit(found, form)


def head(
    unit_id: UnitArgument,
    lake: LakeOption = DEFAULT_LAKE,
    form: FormatOption = Format.table,
) -> None:
    """Show how strong an attention head, or a latent by token pair, is by the distance from query to key.

    Example: warehouse head gpt2-small/attn_write_norm/5/1
    """
    with open_lake(lake) as reader:
        found = reader.head_profile(unit_id)
        if found.is_empty():
            raise WarehouseError(f"{unit_id} is per token: only heads and latents by token pair have distances")
    emit(found, form)


class Pattern(StrEnum):
    """Where a head may look."""

    first_token = "first_token"
    previous_token = "previous_token"
    same_token = "same_token"
    induction = "induction"


def heads(
    by: Annotated[Pattern, typer.Option(help="The pattern to rank by.")] = Pattern.previous_token,
    k: RowsOption = 20,
    model: ModelOption = None,
    component: ComponentOption = None,
    layer: LayerOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    form: FormatOption = Format.table,
) -> None:
    """Rank heads, and latents by token pair, by the part of their activation that follows a pattern.

    Reads every pair of the random samples: name a layer of a large lake.

    Example: warehouse heads --by induction --component attn_write_norm --layer 5
    """
    from warehouse.absence import describe_gap

    with open_lake(lake) as reader:
        found = reader.head_patterns(model, component, layer)
        if found.is_empty():
            gap = describe_gap(reader.sql, model, component, layer)
            raise WarehouseError(gap or "none of those asked for is per token pair: only such units look back")
    emit(found.sort(by.value, descending=True, nulls_last=True, maintain_order=True).head(k), form)


class Kind(StrEnum):
    """Kinds of units that stand out."""

    dead = "dead"
    near_dead = "near_dead"
    duplicate = "duplicate"
    one_token = "one_token"


def kinds(
    kind: Annotated[Kind | None, typer.Argument(help="Which to list; else how many of each a layer has.")] = None,
    model: ModelOption = None,
    component: ComponentOption = None,
    layer: LayerOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    form: FormatOption = Format.table,
) -> None:
    """Count or list units that are dead, nearly dead, duplicates of others, or active on one token alone.

    Example: warehouse kinds one_token --component mlp_post_act_ae_v4
    """
    from warehouse.absence import describe_gap

    with open_lake(lake) as reader:
        if kind is None:
            found = reader.unit_kinds_by_layer(model, component, layer)
        else:
            name: KindName = kind.value
            found = reader.units_of_kind(name, model, component, layer)
        if found.is_empty():
            gap = describe_gap(reader.sql, model, component, layer)
            raise WarehouseError(gap or f"none of the units asked for is {'' if kind is None else kind.value}")
    emit(found, form)
