"""The demo: made files of all nine datasets and their siblings, built as real ones are, and a few questions."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

import warehouse
from flows.build import build
from flows.runners import Runner
from warehouse.mirror import FAMOUS_TOKEN, demo_spec, make_mirror
from warehouse.output import render
from warehouse.plan import Selection

_UNIT = "gpt2-small/mlp_post_act_ae_v4/5/16"
_EXPLAINED = "SELECT unit_id, explanation, score FROM explanations WHERE model = 'gpt2-xl' ORDER BY score DESC LIMIT 3"


def run_demo(folder: Path, workers: int, is_quiet: bool, console: Console) -> None:
    """Make the demo's mirror and lake in a folder, and print what they answer.

    Raises:
        WarehouseError: the folder cannot be written.
    """
    mirror, lake = folder / "mirror", folder / "lake"
    console.print(Text("These activations are made up, to show what the warehouse does.", style="bold"))
    console.print("The files have the forms and the places of OpenAI's; what the figures say means nothing. Real ones:")
    console.print("  warehouse build gpt2-xl/mlp_post_act --layers 0 --units 0-511", soft_wrap=True, highlight=False)
    spec = demo_spec()
    report = make_mirror(mirror, spec)
    _say(console, f"made {report.n_files} files, {report.n_bytes / 1e6:.1f} MB, in {mirror}")
    # By its model's name, since there are only 12 heads: units past the end of a dataset that is named are looked for.
    names = sorted({d.model if d.holds == "activations" else d.key for d in spec.datasets})
    summary = build(
        names,
        str(mirror),
        str(lake),
        Selection(spec.layers, spec.units),
        runner=Runner(workers=workers),
        is_quiet=is_quiet,
    )
    _say(
        console,
        f"built {summary.n_shards} shards, {summary.n_done_before} were there; {summary.ok} files ok, "
        f"{summary.absent} absent, {summary.rejected} rejected; {summary.n_records:,} records",
    )
    with warehouse.open(lake) as reader:
        _ask(console, f"warehouse status --lake {lake}")
        console.print(
            render(
                reader.sql(
                    "SELECT model, component, sum(ok) AS ok, sum(absent) AS absent, sum(rejected) AS rejected, "
                    "sum(failed) AS failed FROM coverage GROUP BY ALL ORDER BY ALL"
                )
            )
        )
        _ask(console, f'warehouse top "{FAMOUS_TOKEN}" --by relative --lake {lake}')
        console.print(render(reader.top_units(FAMOUS_TOKEN, k=12, by="relative")))
        _ask(console, f"warehouse unit {_UNIT} -k 2 --lake {lake}")
        console.print(reader.show(_UNIT, 2))
        _ask(console, f'warehouse sql "{_EXPLAINED}" --lake {lake}')
        console.print(render(reader.sql(_EXPLAINED)))
        _ask(console, f'warehouse top "{FAMOUS_TOKEN}" --key " France" -k 5 --lake {lake}')
        console.print(render(reader.top_units_by_pair(FAMOUS_TOKEN, " France", k=5)))
    _say(console, f'Ask on:  warehouse --help;  warehouse sql "FROM units LIMIT 5" --lake {lake}')


def _say(console: Console, line: str) -> None:
    console.print(Text(line, style="dim"))


def _ask(console: Console, command: str) -> None:
    console.print(Text(f"\n$ {command}", style="bold green"), soft_wrap=True)
