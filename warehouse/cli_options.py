"""Options that several commands have, each with one name and one text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from warehouse.output import Format

if TYPE_CHECKING:
    from warehouse.reader import LakeReader

LakeOption = Annotated[str, typer.Option("--lake", envvar="WAREHOUSE_LAKE", help="Folder or URL of the lake.")]
DEFAULT_LAKE = "lake"
FormatOption = Annotated[Format, typer.Option("--format", help="How to print.")]
RowsOption = Annotated[int, typer.Option("-k", min=1, help="Rows at most.")]
ModelOption = Annotated[str | None, typer.Option(help="Only units of this model.")]
ComponentOption = Annotated[str | None, typer.Option(help="Only units of this component.")]
LayerOption = Annotated[int | None, typer.Option(help="Only units of this layer.")]
UnitArgument = Annotated[
    str, typer.Argument(help="model/component/layer/unit, as gpt2-small/mlp_post_act/5/131.", metavar="UNIT_ID")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")]


def open_lake(lake: str) -> LakeReader:
    """Open the lake that a command was given; only now is what reads it imported."""
    import warehouse

    return warehouse.open(lake)
