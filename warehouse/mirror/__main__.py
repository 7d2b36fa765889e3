"""Make a mirror: `python -m warehouse.mirror OUT --dataset gpt2-xl/mlp_post_act --layers 0 --units 0-999`.

Siblings are made where they are named: `--dataset gpt2-xl/explanations`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from warehouse.datasets import builtin_datasets, select_datasets
from warehouse.errors import WarehouseError
from warehouse.mirror.text import Vocabulary
from warehouse.mirror.tree import MirrorSpec, demo_spec, make_mirror
from warehouse.plan import parse_ranges

app = typer.Typer(add_completion=False)


@app.command()
def make(
    out: Annotated[Path, typer.Argument(help="Folder that stands for the bucket.", file_okay=False)],
    dataset: Annotated[
        list[str] | None,
        typer.Option(help="Dataset, or model for its activations; may be given again. None: the demo's own mirror."),
    ] = None,
    layers: Annotated[str, typer.Option(help="Ranges and single layers, as 0-3,7.")] = "0",
    units: Annotated[str, typer.Option(help="Ranges and single units, as 0-511.")] = "0-99",
    vocabulary: Annotated[
        Vocabulary, typer.Option(help="gpt2: tokens as frequent as in real text; english: sentences to read.")
    ] = "gpt2",
    seed: Annotated[int, typer.Option(help="The same seed makes the same files.")] = 0,
) -> None:
    """Write made files in the tree of the bucket; by default XL-like, 150 records of 64 tokens each."""
    try:
        spec = demo_spec()
        if dataset:
            spec = MirrorSpec(
                tuple(select_datasets(dataset, builtin_datasets())),
                parse_ranges(layers, "layers"),
                parse_ranges(units, "units"),
                vocabulary=vocabulary,
            )
    except WarehouseError as e:
        raise typer.BadParameter(str(e)) from e
    report = make_mirror(out, spec, seed)
    typer.echo(
        f"{report.n_files:,} files, {report.n_bytes / 1e6:,.1f} MB in {out}; "
        f"{len(report.absent)} absent, {len(report.bad)} bad on purpose"
    )


if __name__ == "__main__":
    app()
