"""The commands `warehouse explain import` and `warehouse explain embed`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from warehouse.cli_options import DEFAULT_LAKE, LakeOption
from warehouse.errors import WarehouseError
from warehouse.output import printable

_REASONS_SHOWN = 20


class ImportForm(StrEnum):
    """Forms of an import."""

    openai = "openai"
    neuronpedia = "neuronpedia"
    delphi = "delphi"
    csv = "csv"
    jsonl = "jsonl"


import_app = typer.Typer()


@import_app.command(name="import")
def import_results(
    path: Annotated[Path, typer.Argument(help="A file, or a folder of files.")],
    form: Annotated[
        ImportForm | None, typer.Option("--as", help="What the files are; by default what they look like.")
    ] = None,
    origin: Annotated[
        str | None, typer.Option(help="Who made the explanations: explanations.origin. Needed where rows do not say.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="model/component of the units, where the rows do not say.")
    ] = None,
    layer: Annotated[int | None, typer.Option(min=0, help="Layer of the units, where names do not say.")] = None,
    explainer: Annotated[str | None, typer.Option(help="What wrote them, where the rows do not say.")] = None,
    score_kind: Annotated[
        str | None, typer.Option(help="What their scores measure, where the rows do not say, as ev_correlation.")
    ] = None,
    source_set: Annotated[
        str | None, typer.Option(help="Of a Neuronpedia export: which sources are the dataset's, as res-jb.")
    ] = None,
    embed: Annotated[bool, typer.Option("--embed", help="Make their embeddings too, for search by meaning.")] = False,
    lake: LakeOption = DEFAULT_LAKE,
) -> None:
    """Take in explanations that others made. Run again, it adds nothing twice.

    Example: warehouse explain import results/ --dataset gpt2-small/mlp_post_act_ae_v4 --origin delphi-2026-10
    """
    from warehouse.catalogue import build_catalogue
    from warehouse.explain.importing import ImportOptions, import_explanations
    from warehouse.lake import Lake

    home = Lake(lake)
    known = home.datasets()
    if dataset is not None and (dataset not in known or known[dataset].holds != "activations"):
        names = ", ".join(sorted(key for key, d in known.items() if d.holds == "activations"))
        raise WarehouseError(f"no dataset {dataset!r}: known are {names}")
    how = ImportOptions(
        origin,
        None if form is None else form.value,
        None if dataset is None else known[dataset],
        layer,
        explainer,
        score_kind,
        source_set,
    )
    n_shown = 0

    def refuse(where: str, reason: str) -> None:
        nonlocal n_shown
        if n_shown < _REASONS_SHOWN:
            _note(f"{where}: {reason}")
        n_shown += 1

    summary = import_explanations(home, path, how, refuse)
    if summary.n_refused > _REASONS_SHOWN:
        _note(f"… and {summary.n_refused - _REASONS_SHOWN:,} more refused")
    build_catalogue(home)
    _note(
        f"{summary.n_new:,} explanations added, {summary.n_known:,} known before, {summary.n_refused:,} rows refused, "
        f"from {summary.n_files:,} files"
    )
    if embed:
        embed_texts(lake)


@import_app.command(name="embed")
def embed_texts(lake: LakeOption = DEFAULT_LAKE) -> None:
    """Make the embeddings that 'warehouse search --how meaning' compares, of explanations that have none yet."""
    from warehouse.explain.embed import embed_explanations
    from warehouse.lake import Lake

    def report(done: int, total: int) -> None:
        _note(f"{done:,} of {total:,} texts")

    _note(f"{embed_explanations(Lake(lake), report):,} texts embedded")


def _note(line: str) -> None:
    sys.stderr.write(printable(line) + "\n")
