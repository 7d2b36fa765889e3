"""`warehouse explain run`: units to a language model, its explanations and their scores into the lake."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from warehouse.cli_options import DEFAULT_LAKE, LakeOption, QuietOption
from warehouse.errors import WarehouseError
from warehouse.explain.endpoint import OPENAI_URL, Endpoint
from warehouse.explain_cli import (
    ContrastKind,
    ContrastOption,
    ContrastSizeOption,
    SamplerKind,
    SamplerOption,
    SeedOption,
    SplitSizeOption,
    WhereOption,
)
from warehouse.output import printable
from warehouse.quiet_prefect import prepare_prefect

if TYPE_CHECKING:
    from warehouse.explain.run import RunSummary
    from warehouse.explain.run_plan import RunOptions

_ENDPOINT = Endpoint("")


def run(
    where: WhereOption,
    model: Annotated[str, typer.Option("--model", help="Model, as the endpoint names it.")],
    base_url: Annotated[
        str, typer.Option(envvar="OPENAI_BASE_URL", help="What comes before /chat/completions there.")
    ] = OPENAI_URL,
    explainer: Annotated[
        str, typer.Option(metavar="NAME", help="Explainer, by name or as path/to/file.py:Class.")
    ] = "openai",
    score: Annotated[
        str, typer.Option(metavar="NAMES", help="Scorers likewise, as simulation,detection,fuzzing; none by default.")
    ] = "",
    sampler: SamplerOption = SamplerKind.openai,
    n: SplitSizeOption = 5,
    seed: SeedOption = 0,
    contrast: ContrastOption = ContrastKind.none,
    n_contrast: ContrastSizeOption = 5,
    limit: Annotated[int | None, typer.Option(min=1, help="Units at most, of those that are not done.")] = None,
    origin: Annotated[str, typer.Option(help="Name under which the answers stand in the lake.")] = "local",
    key_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Environment variable with the key; OPENAI_API_KEY, where set, by default."),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests under way at once.")] = _ENDPOINT.concurrency,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Requests a minute.")] = None,
    token_rate: Annotated[float | None, typer.Option(min=1, help="Tokens a minute, both ways together.")] = None,
    attempts: Annotated[
        int, typer.Option(min=1, help="Requests for one answer before it has failed.")
    ] = _ENDPOINT.attempts,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds that one answer may take.")
    ] = _ENDPOINT.timeout_seconds,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for an endpoint that answers nothing, before the run stops.")
    ] = _ENDPOINT.patience_seconds,
    price_in: Annotated[float | None, typer.Option(min=0, help="Price of a million prompt tokens.")] = None,
    price_out: Annotated[float | None, typer.Option(min=0, help="Price of a million answered tokens.")] = None,
    budget: Annotated[
        float | None, typer.Option(min=0, help="The most that this run may cost, in the currency of the prices.")
    ] = None,
    max_tokens_total: Annotated[int | None, typer.Option(min=0, help="The most tokens that this run may use.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the first unit's prompts and an estimate, and ask nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Go through units that are done too; what is paid for is not asked again.")
    ] = False,
    lake: LakeOption = DEFAULT_LAKE,
    quiet: QuietOption = False,
) -> None:
    """Explain units with a language model, and score the explanations. Run again, it does what is left.

    Example: warehouse explain run --where "component = 'mlp_post_act' AND layer = 5" --model gpt-4o-mini
    --score simulation,detection --dry-run
    """
    from warehouse.explain.budget import Prices
    from warehouse.explain.examples import SplitOptions
    from warehouse.explain.run_plan import RunOptions, check_options

    if (price_in is None) != (price_out is None):
        raise typer.BadParameter("prices come in pairs: give --price-in and --price-out")
    if force and dry_run:
        raise typer.BadParameter("--dry-run and --force exclude each other: a dry run does nothing")
    options = RunOptions(
        endpoint=Endpoint(model, base_url, key_env, concurrency, rate, token_rate, attempts, timeout, patience),
        explainer=explainer,
        scorers=tuple(dict.fromkeys(name.strip() for name in score.split(",") if name.strip())),
        splits=SplitOptions(sampler.value, n, seed, contrast.value, n_contrast),
        origin=origin,
        prices=None if price_in is None or price_out is None else Prices(price_in, price_out),
        money=budget,
        tokens=max_tokens_total,
        force=force,
    )
    check_options(options)
    _check_condition(lake, where)  # before Prefect takes its time to start
    if dry_run:
        _show_dry_run(lake, where, options, limit)
    else:
        _run(lake, where, options, limit, quiet)


def _check_condition(lake: str, where: str) -> None:
    import warehouse
    from warehouse.explain.jobs import select_units

    with warehouse.open(lake) as reader:
        if not len(select_units(reader, where)):
            raise WarehouseError(f"no unit of the lake {lake} fulfils the condition {where!r}")


def _run(lake: str, where: str, options: RunOptions, limit: int | None, is_quiet: bool) -> None:
    prepare_prefect()
    try:
        from flows.explain import explain
    except ModuleNotFoundError as e:
        if e.name != "openai":
            raise
        raise WarehouseError(
            "asking a model needs one more package: pip install 'activation-warehouse[explain]'"
        ) from e
    from flows.stopping import stoppable
    from warehouse.explain.run import RunStopped

    try:
        with stoppable(_note):
            summary = asyncio.run(explain(lake, where, options, limit, is_quiet))
    except RunStopped as e:
        _report(e.summary, options, lake, is_quiet)
        raise
    _report(summary, options, lake, is_quiet)
    n_failed, n_unscored = summary.tally.statuses.get("failed", 0), summary.tally.n_unscored
    if missing := [f"{n:,} units {what}" for n, what in ((n_failed, "failed"), (n_unscored, "lack scores")) if n]:
        raise WarehouseError(f"{' and '.join(missing)}: the same command asks for those again")


def _report(summary: RunSummary, options: RunOptions, lake: str, is_quiet: bool) -> None:
    if is_quiet:
        return
    tally = summary.tally
    named = ("ok", "failed", "refused", "unfit", "over_budget")
    counts = [f"{tally.statuses.get(name, 0):,} {name.replace('_', ' ')}" for name in named]
    if tally.n_unscored:
        counts.insert(1, f"{tally.n_unscored:,} of them without a score that was asked for")
    _note(f"units: {', '.join(counts)}; {summary.n_done_before:,} done before, {summary.n_left:,} left")
    _note_elsewhere(summary.n_done_elsewhere, options)
    for n_units, first in sorted(tally.reasons.values(), reverse=True)[:5]:
        _note(f"  {n_units:,} as {first}")
    spent, doubtful = summary.spent, summary.doubtful
    cost = "" if summary.cost is None else f", cost {summary.cost:,.6g}"
    _note(
        f"answers: {tally.n_asked:,} paid for, {tally.n_known:,} known from before; "
        f"{spent.prompt_tokens:,} + {spent.completion_tokens:,} tokens{cost}"
    )
    if doubtful.tokens:
        cost = "" if summary.doubtful_cost is None else f", at most {summary.doubtful_cost:,.6g}"
        _note(f"perhaps charged too: at most {doubtful.tokens:,} tokens of answers that were lost or uncounted{cost}")
    origin = options.origin.replace("'", "''")
    _note(f"see: warehouse sql \"FROM explanations WHERE origin = '{origin}' ORDER BY score DESC\" --lake {lake}")


def _note_elsewhere(n_units: int, options: RunOptions) -> None:
    if n_units:
        _note(
            f"{n_units:,} of those done before were asked of {options.endpoint.model!r} at another base URL: "
            "--force asks this one too, and --origin keeps its answers apart"
        )


def _show_dry_run(lake: str, where: str, options: RunOptions, limit: int | None) -> None:
    import warehouse
    from warehouse.explain.dry_run import DryRun
    from warehouse.explain.jobs import Unfit
    from warehouse.explain.run_plan import plan_run

    with warehouse.open(lake) as reader:
        plan = plan_run(reader, where, options, limit)
        _note_elsewhere(plan.n_done_elsewhere, options)
        dry_run = DryRun(reader, plan, options)
        first = dry_run.find_first()
        if first is None:
            _note(f"no units to explain, {plan.n_done:,} done before")
            return
        if isinstance(first, Unfit):
            _note(f"none of the first units can be explained; {first.unit_id} {first.reason}")
        else:
            for name, prompt in dry_run.list_prompts(first):
                _print(f"=== {name}: {first.unit_id}, at most {prompt.max_tokens:,} tokens of answer")
                for message in prompt.messages:
                    _print(f"--- {message.role}")
                    for line in message.content.split("\n"):
                        _print(line)
        estimate = dry_run.estimate()
    unfit = f", {estimate.n_unfit} of them without enough records" if estimate.n_unfit else ""
    _note(
        f"{estimate.n_units:,} units, {plan.n_done:,} done before; "
        f"from the prompts of {estimate.n_sampled}{unfit}: "
        f"{estimate.n_requests:,} requests, about {estimate.usage.prompt_tokens:,} tokens of prompts "
        f"and at most {estimate.usage.completion_tokens:,} of answers"
        + (
            f", at most {estimate.cost:,.4g}"
            if estimate.cost is not None
            else "; --price-in and --price-out tell the cost"
        )
    )


def _print(line: str) -> None:
    sys.stdout.write("\t".join(printable(part) for part in line.split("\t")) + "\n")


def _note(line: str) -> None:
    sys.stderr.write(printable(line) + "\n")
