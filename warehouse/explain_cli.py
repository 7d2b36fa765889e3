"""The commands of `warehouse explain`: jobs for the tools that explain units, and what becomes of them."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from warehouse.cli_options import DEFAULT_LAKE, LakeOption, QuietOption
from warehouse.output import printable


class FormKind(StrEnum):
    """Forms of an export."""

    openai = "openai"
    delphi = "delphi"
    neuronpedia = "neuronpedia"
    jsonl = "jsonl"


class SamplerKind(StrEnum):
    """Ways to choose a job's examples."""

    openai = "openai"
    top = "top"
    random = "random"
    quantile = "quantile"
    stratified = "stratified"


class ContrastKind(StrEnum):
    """Where contrasting examples come from."""

    none = "none"
    inactive = "inactive"
    random = "random"
    similar = "similar"
    tokens = "tokens"


explain_app = typer.Typer(no_args_is_help=True, help="Feed tools that explain units, and take their answers back.")

WhereOption = Annotated[
    str, typer.Option(metavar="SQL", help='Condition over the view units, as "layer = 5 AND n_top >= 20".')
]
SamplerOption = Annotated[SamplerKind, typer.Option(help="How examples are chosen for the splits.")]
SplitSizeOption = Annotated[
    int | None,
    typer.Option("--n", min=1, help="Examples of a split (openai: of each list); as many as there are by default."),
]
SeedOption = Annotated[int, typer.Option(help="Seed of all that is drawn.")]
ContrastOption = Annotated[
    ContrastKind, typer.Option(help="Contrasting examples: the unit's own inactive texts, or other units' records.")
]
ContrastSizeOption = Annotated[
    int, typer.Option("--n-contrast", min=1, help="Examples of each of the two contrast splits.")
]
_SECONDS_BETWEEN_LINES = 10.0


@explain_app.command()
def export(
    where: WhereOption,
    form: Annotated[FormKind, typer.Option("--as", help="Whose form to write.")],
    out: Annotated[Path, typer.Option(help="Folder for the files; a rerun goes on in it.")],
    sampler: SamplerOption = SamplerKind.openai,
    n: SplitSizeOption = None,
    seed: SeedOption = 0,
    contrast: ContrastOption = ContrastKind.none,
    n_contrast: ContrastSizeOption = 5,
    floor: Annotated[
        float,
        typer.Option(min=0, max=1, help="Part of a unit's largest activation below which it counts as inactive."),
    ] = 0.0,
    lake: LakeOption = DEFAULT_LAKE,
    quiet: QuietOption = False,
) -> None:
    """Write units as jobs for a tool that explains them. Run again, it does what is left.

    openai, delphi and neuronpedia have every record of a unit; --sampler, --n, --seed and --contrast choose the
    examples of jsonl, and --floor is for delphi and neuronpedia.

    Example: warehouse explain export --where "component = 'mlp_post_act' AND layer = 5" --as jsonl --n 5 --out jobs
    """
    import warehouse
    from warehouse.explain.examples import SplitOptions
    from warehouse.explain.export import export_units
    from warehouse.explain.formats import FormatOptions

    splits = SplitOptions(sampler.value, n, seed, contrast.value, n_contrast)
    if form is not FormKind.jsonl and splits != SplitOptions():
        raise typer.BadParameter(
            f"{form} has every record of a unit: --sampler, --n, --seed and --contrast are jsonl's"
        )
    if floor and form not in (FormKind.delphi, FormKind.neuronpedia):
        raise typer.BadParameter(f"{form} has activations as they are: --floor is for delphi and neuronpedia")
    with warehouse.open(lake) as reader:
        progress = Progress(quiet)
        summary = export_units(reader, where, form.value, FormatOptions(splits, floor), out, progress.show)
    if quiet:
        return
    _note(f"{summary.n_units:,} units in {out}, {summary.n_done_before:,} done before")
    for reason, n_unfit in list(summary.reasons.items())[:5]:
        _note(f"{n_unfit:,} left out: {reason}")
    _note(f"what was written, and what was not and why: {out / 'manifest.json'}, {out / 'unfit.jsonl'}")


class Progress:
    """Says on stderr now and then how far an export is."""

    def __init__(self, is_quiet: bool) -> None:
        self._is_quiet = is_quiet
        self._began = self._told = time.monotonic()

    def show(self, n_done: int, n_units: int) -> None:
        """Take in that units are done, and say so if it is time."""
        now = time.monotonic()
        if self._is_quiet or now - self._told < _SECONDS_BETWEEN_LINES:
            return
        self._told = now
        _note(f"{n_done:,} of {n_units:,} units, {n_done / (now - self._began):,.0f} a second")


def _note(line: str) -> None:
    sys.stderr.write(printable(line) + "\n")
