"""The commands of `warehouse plot`: each draws one picture and writes it as PNG or SVG."""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from warehouse.cli_options import (
    DEFAULT_LAKE,
    ComponentOption,
    LakeOption,
    LayerOption,
    ModelOption,
    UnitArgument,
    open_lake,
)
from warehouse.errors import WarehouseError
from warehouse.output import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class StrengthKind(StrEnum):
    """What the strength of a token can be."""

    relative = "relative"
    max = "max"


class SelectivityKind(StrEnum):
    """Figures of selectivity."""

    entropy = "entropy"
    top_token_share = "top_token_share"


class SectionKind(StrEnum):
    """Sections of a unit's records."""

    random = "random"
    top = "top"
    quantile = "quantile"


plot_app = typer.Typer(no_args_is_help=True, help="Draw units, tokens and layers as PNG or SVG.")

OutOption = Annotated[
    Path | None, typer.Option("--out", help="File to write, .png or .svg; by default a .png here, named for the plot.")
]


@plot_app.command()
def unit(unit_id: UnitArgument, out: OutOption = None, lake: LakeOption = DEFAULT_LAKE) -> None:
    """Draw the histogram of a unit's activations in the random sample, and where its other records peak."""
    plot = _load_plot()
    file = _choose(plot, out, f"unit-{unit_id}")
    with open_lake(lake) as reader:
        figure = plot.draw_unit(reader, unit_id)
    _write(plot, figure, file)


@plot_app.command()
def token(
    token: Annotated[str, typer.Argument(help="A token exactly as in the text: most words begin with a space.")],
    by: Annotated[
        StrengthKind, typer.Option(help="relative to each unit's max activation, or the max activation itself.")
    ] = StrengthKind.relative,
    model: ModelOption = None,
    component: ComponentOption = None,
    layer: LayerOption = None,
    out: OutOption = None,
    lake: LakeOption = DEFAULT_LAKE,
) -> None:
    """Draw how strong a token is in each component and layer, by the unit that responds to it most.

    Example: warehouse plot token " Avengers" --out avengers.svg
    """
    plot = _load_plot()
    file = _choose(plot, out, f"token-{token}-{by}")
    with open_lake(lake) as reader:
        figure = plot.draw_token(reader, token, by.value, model, component, layer)
    _write(plot, figure, file)


@plot_app.command()
def selectivity(
    by: Annotated[
        SelectivityKind, typer.Option(help="entropy (low is selective) or top_token_share (high is selective).")
    ] = SelectivityKind.entropy,
    model: ModelOption = None,
    component: ComponentOption = None,
    layer: LayerOption = None,
    out: OutOption = None,
    lake: LakeOption = DEFAULT_LAKE,
) -> None:
    """Draw how selective the units of each layer and component are for tokens."""
    plot = _load_plot()
    file = _choose(plot, out, f"selectivity-{by}")
    with open_lake(lake) as reader:
        figure = plot.draw_selectivity(reader, by.value, model, component, layer)
    _write(plot, figure, file)


@plot_app.command()
def head(
    unit_id: UnitArgument,
    section: Annotated[
        SectionKind, typer.Option(help="Records to take; only the random ones are unbiased.")
    ] = SectionKind.random,
    out: OutOption = None,
    lake: LakeOption = DEFAULT_LAKE,
) -> None:
    """Draw where a head, or a latent by token pair, looks: by query and key position, and by distance."""
    plot = _load_plot()
    file = _choose(plot, out, f"head-{unit_id}")
    with open_lake(lake) as reader:
        figure = plot.draw_head(reader, unit_id, section.value)
    _write(plot, figure, file)


def _load_plot() -> ModuleType:
    try:
        from warehouse import plot
    except ModuleNotFoundError as e:
        if e.name is None or e.name.partition(".")[0] != "matplotlib":
            raise
        raise WarehouseError("plots need matplotlib: pip install 'activation-warehouse[plot]'") from e
    return plot


def _choose(plot: ModuleType, out: Path | None, stem: str) -> Path:
    """Give the file to write, and refuse a wrong one before anything is drawn."""
    file = out or Path(re.sub(r"[^\w.]+", "-", stem, flags=re.ASCII).strip("-")[:100] + ".png")
    if file.suffix.lower() not in plot.SUFFIXES:
        raise WarehouseError(f"--out {file}: the name must end in {' or '.join(plot.SUFFIXES)}")
    if not file.parent.is_dir():
        raise WarehouseError(f"--out {file}: there is no folder {file.parent}")
    return file


def _write(plot: ModuleType, figure: Figure, file: Path) -> None:
    plot.save(figure, file)
    sys.stderr.write(printable(f"{file} written") + "\n")
