"""The command line: a thin skin over the flows and the reader. Results go to stdout, all else to stderr."""

from __future__ import annotations

import os
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from warehouse import layers_cli, questions_cli
from warehouse.cli_options import (
    DEFAULT_LAKE,
    ComponentOption,
    FormatOption,
    LakeOption,
    ModelOption,
    QuietOption,
    UnitArgument,
    open_lake,
)
from warehouse.datasets import PUBLIC_BUCKET
from warehouse.errors import WarehouseError
from warehouse.explain_cli import explain_app
from warehouse.explain_import_cli import import_app
from warehouse.explain_run_cli import run
from warehouse.options import FetchOptions
from warehouse.output import Format, console, emit, printable
from warehouse.plot_cli import plot_app
from warehouse.quiet_prefect import prepare_prefect
from warehouse.search_cli import search
from warehouse.serve_cli import serve

if TYPE_CHECKING:
    from flows.shards import BuildSummary
    from warehouse.plan import Selection


class RunnerKind(StrEnum):
    """Where shards can be done."""

    local = "local"
    dask = "dask"
    ray = "ray"


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="--debug, anywhere, shows the traceback of an error.",
)
export_app = typer.Typer(no_args_is_help=True, help="Give data out in the forms that other tools take.")
app.add_typer(export_app, name="export")
app.add_typer(plot_app, name="plot")
explain_app.command()(run)
explain_app.add_typer(import_app)
app.add_typer(explain_app, name="explain")

Datasets = Annotated[
    list[str], typer.Argument(metavar="DATASET ...", help="model/component, or a model for all of its activations.")
]
SourceOption = Annotated[
    str, typer.Option(envvar="WAREHOUSE_SOURCE", help="Folder or URL that holds the bucket's tree.")
]
LayersOption = Annotated[str | None, typer.Option(help="Layers, as 0-3,7; all by default.")]
UnitsOption = Annotated[str | None, typer.Option(help="Units of each layer, as 0-511; all by default.")]
WorkersOption = Annotated[int, typer.Option(min=0, help="Processes; 0 for one on each core.")]
RunnerOption = Annotated[
    RunnerKind, typer.Option(help="Where shards are done: processes here, or the workers of a Dask or Ray cluster.")
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(help="The cluster, as tcp://host:8786 or ray://host:10001; by default one on this machine."),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Do again what is done, also from another source.")]
RetryOption = Annotated[
    list[str] | None,
    typer.Option(metavar="STATUS", help="Ask only for files that are failed, rejected or absent; may be repeated."),
]
RefreshOption = Annotated[
    bool, typer.Option("--refresh", help="Ask for every file again, and redo only the shards that changed.")
]
KeepRawOption = Annotated[
    bool,
    typer.Option("--keep-raw", help="Keep the files' bytes too, so that flatten needs no source."),
]
ConcurrencyOption = Annotated[int, typer.Option(min=1, help="Requests under way at once, all workers together.")]
MaxRateOption = Annotated[float | None, typer.Option(min=0.001, help="Requests a second, all workers together.")]
AttemptsOption = Annotated[int, typer.Option(min=1, help="Requests for one file before it has failed.")]
TimeoutOption = Annotated[float, typer.Option(min=0.1, help="Seconds that the source may be silent.")]
PatienceOption = Annotated[
    float, typer.Option(min=0, help="Seconds to wait for a source that answers nobody, before the build stops.")
]
FETCH = FetchOptions()


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import version

        sys.stdout.write(f"warehouse {version('activation-warehouse')}\n")
        raise typer.Exit


@app.callback()
def start(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Ask questions across every neuron, attention head and autoencoder latent of OpenAI's collated activations."""


@app.command()
def build(
    datasets: Datasets,
    source: SourceOption = PUBLIC_BUCKET,
    lake: LakeOption = DEFAULT_LAKE,
    layers: LayersOption = None,
    units: UnitsOption = None,
    retry: RetryOption = None,
    refresh: RefreshOption = False,
    force: ForceOption = False,
    keep_raw: KeepRawOption = False,
    concurrency: ConcurrencyOption = FETCH.concurrency,
    max_rate: MaxRateOption = FETCH.max_rate,
    attempts: AttemptsOption = FETCH.attempts,
    timeout: TimeoutOption = FETCH.timeout_seconds,
    patience: PatienceOption = FETCH.patience_seconds,
    runner: RunnerOption = RunnerKind.local,
    workers: WorkersOption = 0,
    scheduler: SchedulerOption = None,
    quiet: QuietOption = False,
) -> None:
    """Fetch datasets, flatten them and make the catalogue. Run again, it does what is left.

    Example: warehouse build gpt2-xl/mlp_post_act --layers 0-3 --units 0-511
    """
    prepare_prefect()
    from flows.build import build as flow
    from flows.runners import Runner
    from flows.sources import hide_secrets
    from flows.stopping import stoppable
    from warehouse.plan import Asking

    asking = Asking(force, tuple(retry or ()), refresh, keep_raw)
    options = FetchOptions(concurrency, max_rate, attempts, timeout, patience)
    where = Runner(runner.value, workers, scheduler)
    with stoppable(_note):
        summary = flow(datasets, hide_secrets(source), lake, _select(layers, units), asking, options, where, quiet)
    _report(summary, lake, quiet)


@app.command()
def extract(
    datasets: Datasets,
    source: SourceOption = PUBLIC_BUCKET,
    lake: LakeOption = DEFAULT_LAKE,
    layers: LayersOption = None,
    units: UnitsOption = None,
    retry: RetryOption = None,
    refresh: RefreshOption = False,
    force: ForceOption = False,
    concurrency: ConcurrencyOption = FETCH.concurrency,
    max_rate: MaxRateOption = FETCH.max_rate,
    attempts: AttemptsOption = FETCH.attempts,
    timeout: TimeoutOption = FETCH.timeout_seconds,
    patience: PatienceOption = FETCH.patience_seconds,
    runner: RunnerOption = RunnerKind.local,
    workers: WorkersOption = 0,
    scheduler: SchedulerOption = None,
    quiet: QuietOption = False,
) -> None:
    """Only fetch: keep the files' bytes in the lake's raw packs, for flatten."""
    prepare_prefect()
    from flows.extract import extract as flow
    from flows.runners import Runner
    from flows.sources import hide_secrets
    from flows.stopping import stoppable
    from warehouse.plan import Asking

    asking = Asking(force, tuple(retry or ()), refresh, keep_raw=True)
    options = FetchOptions(concurrency, max_rate, attempts, timeout, patience)
    where = Runner(runner.value, workers, scheduler)
    with stoppable(_note):
        summary = flow(datasets, hide_secrets(source), lake, _select(layers, units), asking, options, where, quiet)
    _report(summary, lake, quiet)


@app.command()
def flatten(
    datasets: Datasets,
    lake: LakeOption = DEFAULT_LAKE,
    force: ForceOption = False,
    runner: RunnerOption = RunnerKind.local,
    workers: WorkersOption = 0,
    scheduler: SchedulerOption = None,
    quiet: QuietOption = False,
) -> None:
    """Only flatten: turn raw packs into the lake's tables, without a source at hand."""
    prepare_prefect()
    from flows.flatten import flatten as flow
    from flows.runners import Runner
    from flows.stopping import stoppable

    with stoppable(_note):
        summary = flow(datasets, lake, force, Runner(runner.value, workers, scheduler), quiet)
    _report(summary, lake, quiet)


@app.command()
def catalogue(lake: LakeOption = DEFAULT_LAKE) -> None:
    """Only make the catalogue: the DuckDB file of views and macros over what is committed."""
    prepare_prefect()
    from flows.catalogue import catalogue as flow

    sys.stdout.write(f"{flow(lake)}\n")


@app.command()
def register(
    file: Annotated[Path, typer.Argument(help="TOML with [[dataset]] tables, as docs/register.md shows.")],
    lake: LakeOption = DEFAULT_LAKE,
) -> None:
    """Register datasets of another model in this lake: from then on they are like the built-in ones."""
    from warehouse.catalogue import build_catalogue
    from warehouse.lake import Lake

    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise WarehouseError(f"cannot read {file}: {e}") from e
    home = Lake(lake)
    for dataset in home.register(text, str(file)):
        sys.stdout.write(f"{dataset.key}\n")
    if home.catalogue_path.exists():
        build_catalogue(home)


@app.command()
def status(
    lake: LakeOption = DEFAULT_LAKE,
    model: ModelOption = None,
    component: ComponentOption = None,
    every: Annotated[bool, typer.Option("--all", help="Also layers of which nothing is built.")] = False,
    form: FormatOption = Format.table,
) -> None:
    """Show which files are expected, ok, absent, rejected, failed or missing, by dataset and layer."""
    import polars as pl

    from warehouse.catalogue import is_current

    with open_lake(lake) as reader:
        coverage = reader.sql(
            "FROM coverage WHERE model = coalesce($model, model) AND component = coalesce($component, component) "
            "ORDER BY model, component, layer",
            {"model": model, "component": component},
        )
        if form is not Format.table:
            emit(coverage, form)
            return
        shown = coverage if every else coverage.filter(pl.col("missing") < pl.col("expected"))
        emit(shown, form)
        bad = reader.sql(
            "SELECT unit_id, status, error FROM files WHERE status IN ('rejected', 'failed') "
            "AND model = coalesce($model, model) AND component = coalesce($component, component) ORDER BY ALL LIMIT 6",
            {"model": model, "component": component},
        )
        is_behind = not is_current(reader.lake)
    if is_behind:
        _note(f"the lake has changed since its catalogue was made: warehouse catalogue --lake {lake}")
    hidden = coverage.height - shown.height
    if hidden:
        _note(f"{hidden} more layers of which nothing is built: --all shows them")
    for unit_id, what, error in bad.head(5).iter_rows():
        _note(f"{unit_id} {what}: {error}")
    if bad.height > 5:
        _note("more: warehouse sql \"SELECT unit_id, status, error FROM files WHERE status IN ('rejected', 'failed')\"")


for question in (
    questions_cli.top,
    questions_cli.tokens,
    questions_cli.contexts,
    questions_cli.similar,
    questions_cli.coactive,
    questions_cli.profile,
    layers_cli.match,
    layers_cli.head,
    layers_cli.heads,
    layers_cli.kinds,
    search,
):
    app.command()(question)


@app.command()
def unit(
    unit_id: UnitArgument,
    k: Annotated[int, typer.Option("-k", min=0, help="Records of each section, and top tokens.")] = 5,
    lake: LakeOption = DEFAULT_LAKE,
    form: FormatOption = Format.table,
) -> None:
    """Show one unit: its moments, its top tokens, and its records shaded by activation.

    JSON is the NeuronRecord as its file had it; CSV and Parquet are its records.
    """
    with open_lake(lake) as reader:
        if form is Format.json:
            sys.stdout.buffer.write(reader.neuron_record(unit_id).to_json() + b"\n")
        elif form is Format.table:
            console().print(reader.show(unit_id, k))
        else:
            reader.unit(unit_id)
            emit(reader.records(unit_id), form)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help='A SELECT, as "FROM units LIMIT 5"; - reads it from stdin.')],
    lake: LakeOption = DEFAULT_LAKE,
    form: FormatOption = Format.table,
) -> None:
    """Run one SELECT over the lake, read-only and boxed in: no other file, no network, no settings.

    What there is to ask: "SELECT view_name, comment FROM duckdb_views() WHERE NOT internal"
    """
    with open_lake(lake) as reader:
        emit(reader.sql(sys.stdin.read() if query == "-" else query), form)


@app.command()
def check(lake: LakeOption = DEFAULT_LAKE, form: FormatOption = Format.table) -> None:
    """Check the lake against itself; the exit code is 1 if any check fails."""
    import polars as pl

    from warehouse.checks import run_checks
    from warehouse.lake import Lake

    home = Lake(lake)
    home.require()
    results = run_checks(home)
    frame = pl.DataFrame(
        {
            "check": [r.name for r in results],
            "failing": [r.n_failing for r in results],
            "holds": [r.title for r in results],
        },
    )
    emit(frame, form)
    for result in results:
        for row in result.sample:
            _note(f"{result.name}: {row}")
    if any(result.n_failing for result in results):
        raise typer.Exit(1)


app.command()(serve)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to make the demo's mirror and lake.")] = Path("demo"),
    workers: WorkersOption = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Make a small mirror of all nine datasets with made-up activations, build it, and ask it a few questions."""
    prepare_prefect()
    from flows.stopping import stoppable
    from warehouse.demo import run_demo

    with stoppable(_note):
        run_demo(folder, workers, quiet, console())


@export_app.command("neuron-records")
def export_neuron_records(
    datasets: Datasets,
    out: Annotated[Path, typer.Option(help="Folder for the tree of files.")],
    lake: LakeOption = DEFAULT_LAKE,
    layers: LayersOption = None,
    units: UnitsOption = None,
) -> None:
    """Write NeuronRecord JSON files again, in the bucket's tree, from the lake alone."""
    from warehouse.export import export_neuron_records as write
    from warehouse.lake import Lake

    home = Lake(lake)
    home.require()
    n_files = write(home, datasets, _select(layers, units), out)
    _note(f"{n_files:,} files written to {out}")


def main() -> None:
    """Run the command line, with one line on stderr for an error: exit code 1, or 2 for wrong usage."""
    arguments = sys.argv[1:]
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    is_debug = "--debug" in options
    if is_debug:
        arguments.remove("--debug")
    try:
        app(arguments, prog_name="warehouse")
    except WarehouseError as e:
        if is_debug:
            traceback.print_exc()
        _note(f"error: {e}")
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _note(line: str) -> None:
    sys.stderr.write(printable(line) + "\n")


def _select(layers: str | None, units: str | None) -> Selection:
    from warehouse.plan import Selection, parse_ranges

    return Selection(
        None if layers is None else parse_ranges(layers, "layers"),
        None if units is None else parse_ranges(units, "units"),
    )


def _report(summary: BuildSummary, lake: str, is_quiet: bool) -> None:
    unchanged = f", {summary.unchanged:,} unchanged" if summary.unchanged else ""
    if not is_quiet:
        _note(
            f"{summary.n_shards:,} shards done, {summary.n_done_before:,} done before"
            + (f", {summary.n_changed:,} of them again since their files had changed" if summary.n_changed else "")
        )
        _note(
            f"files: {summary.ok:,} ok, {summary.absent:,} absent, {summary.rejected:,} rejected, "
            f"{summary.failed:,} failed{unchanged}; {summary.n_records:,} records from {summary.bytes_in / 1e6:,.1f} MB"
        )
        if summary.absent and not summary.ok + summary.unchanged + summary.rejected + summary.failed:
            _note("none of the files is there: does the source hold the bucket's tree, from its root?")
        _note(f"see: warehouse status --lake {lake}")
    if summary.failed:
        raise WarehouseError(f"{summary.failed:,} files failed: --retry failed asks just for those")
