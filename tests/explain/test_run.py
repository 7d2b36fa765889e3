"""Runs against a server that answers by rule: what is kept, what is paid, and what stops a run or goes on."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

import warehouse
import warehouse.explain_run_cli  # noqa: F401  (registers the command)
from tests.explain.lakes import DEAD, EMPTY, LATENT
from tests.explain.rule_server import ChatRequest, FaultName, Reply, RuleServer, serve_rules
from tests.indexes import failing_units
from tests.sql.lakes import LATENTS
from warehouse import cli
from warehouse.catalogue import build_catalogue
from warehouse.errors import QueryError, WarehouseError
from warehouse.explain import prompts
from warehouse.explain.budget import Prices
from warehouse.explain.chat import AskError
from warehouse.explain.dry_run import DryRun
from warehouse.explain.endpoint import Endpoint
from warehouse.explain.jobs import Job, SplitOptions
from warehouse.explain.protocols import UnknownPlugin
from warehouse.explain.run import RunSummary, open_run
from warehouse.explain.run_plan import RunOptions, check_options, plan_run
from warehouse.lake import Lake

KEY = "sk-a-key-that-must-stay-secret"
EXPLAINER = "warehouse.explain.explainers:OpenAIExplainer"
CORRELATION = "warehouse.explain.simulation:CorrelationScorer"
DETECTION = "warehouse.explain.detection:DetectionScorer"
SIMULATION = "warehouse.explain.simulation:SimulationScorer"
WHERE = f"model || '/' || component = '{LATENTS}'"
"""Seven latents, of which one is dead and one has no records."""
N_FIT = 5
N_REQUESTS = N_FIT * 9
"""An explanation and eight simulations each."""


@pytest.fixture(scope="module")
def served() -> Iterator[RuleServer]:
    with serve_rules() as server:
        yield server


@pytest.fixture
def server(served: RuleServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[RuleServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    yield served
    served.forget()
    served.key, served.delay = None, 0.0


@pytest.fixture(scope="module")
def copied_lake(tmp_path_factory: pytest.TempPathFactory, job_lake: Lake) -> Lake:
    lake = Lake(shutil.copytree(job_lake.root, tmp_path_factory.mktemp("run") / "lake"))
    build_catalogue(lake)
    return lake


@pytest.fixture
def lake(copied_lake: Lake) -> Lake:
    """A copy of the lake of jobs without answers, that a run may write to; its catalogue may know of earlier ones."""
    for name in ("answers", "completions"):
        shutil.rmtree(Path(copied_lake.root, name), ignore_errors=True)
    return copied_lake


@pytest.fixture
def options(server: RuleServer) -> RunOptions:
    endpoint = Endpoint("rule-1", server.url, attempts=2, backoff_seconds=0.01, concurrency=4)
    return RunOptions(endpoint, EXPLAINER, (SIMULATION,), SplitOptions(n=2))


def explain(lake: Lake, options: RunOptions, where: str = WHERE, limit: int | None = None) -> RunSummary:
    """Run without Prefect."""

    async def run() -> RunSummary:
        with warehouse.open(lake.root) as reader:
            plan = plan_run(reader, where, options, limit)
            async with open_run(reader, plan, options, lambda _: None) as under_way:
                for batch in plan.batches():
                    await under_way.do_batch(batch)
                return under_way.summarise()

    return asyncio.run(run())


def read_answers(lake: Lake) -> pl.DataFrame:
    answers = pl.read_parquet(Path(lake.root, "answers", "*.parquet"))
    unit_id = pl.concat_str("model", "component", pl.col("layer").cast(str), pl.col("unit").cast(str), separator="/")
    return answers.with_columns(unit_id=unit_id).sort("unit_id", "created_at")


def read_everything(lake: Lake) -> str:
    """Give all that a lake's explanation tables and names say, decompressed, and the bytes of its catalogue."""
    texts = [str(path) for path in Path(lake.root).rglob("*")]
    for path in [*Path(lake.root, "answers").rglob("*.parquet"), *Path(lake.root, "completions").rglob("*.parquet")]:
        texts.append(repr(pl.read_parquet(path, hive_partitioning=False).rows()))
    return "\n".join([*texts, lake.catalogue_path.read_bytes().decode("latin-1")])


def test_every_unit_has_a_row_with_an_explanation_and_scores_or_with_the_reason_why_not(
    lake: Lake, server: RuleServer, options: RunOptions
) -> None:
    summary = explain(lake, replace(options, prices=Prices(1.0, 2.0)))
    assert summary.tally.statuses == {"ok": N_FIT, "unfit": 2}
    assert summary.tally.n_asked == len(server.requests) == len({request.question for request in server.requests})
    answers = read_answers(lake)
    assert answers.height == 7
    fit = answers.filter(pl.col("status") == "ok")
    assert fit["explanation"].to_list() == ['the tokens " cat"'] * N_FIT
    assert fit["explainer"].unique().to_list() == ["openai/rule-1"]
    assert all(scores[0]["score"] > 0.7 for scores in fit["scores"])
    assert fit["prompt_tokens"].sum() == summary.spent.prompt_tokens > 0
    assert fit["completion_tokens"].sum() == summary.spent.completion_tokens > 0
    assert fit["cost"].sum() == pytest.approx(summary.cost)
    assert summary.cost == (summary.spent.prompt_tokens + 2 * summary.spent.completion_tokens) / 1e6
    unfit = {row["unit_id"]: row["error"] for row in answers.filter(pl.col("status") == "unfit").to_dicts()}
    assert set(unfit) == {str(DEAD), str(EMPTY)}
    assert "has 0 and 0" in unfit[str(EMPTY)]


def test_a_second_run_does_and_asks_nothing_and_one_by_force_pays_nothing(
    lake: Lake, server: RuleServer, options: RunOptions
) -> None:
    explain(lake, options)
    server.forget()
    again = explain(lake, options)
    assert (again.n_units, again.n_done_before, server.requests) == (0, 7, [])
    forced = explain(lake, replace(options, force=True))
    assert (forced.tally.n_asked, server.requests) == (0, [])
    assert forced.tally.statuses == {"ok": N_FIT, "unfit": 2}
    answers = read_answers(lake).filter(pl.col("status") == "ok")
    assert answers.height == 2 * N_FIT
    assert answers.n_unique(["unit_id", "explanation"]) == N_FIT


def test_however_often_a_unit_is_scored_it_has_one_explanation_and_its_tokens_add_up_to_what_was_paid(
    lake: Lake, server: RuleServer, options: RunOptions
) -> None:
    passes = [(), (DETECTION,), (DETECTION, CORRELATION)]
    spent = [explain(lake, replace(options, scorers=scorers)).spent for scorers in passes]
    turned = explain(lake, replace(options, scorers=(CORRELATION, DETECTION)))
    assert (turned.n_units, turned.n_done_before) == (0, 7)
    explain(lake, replace(options, scorers=(), force=True))
    build_catalogue(lake)
    with warehouse.open(lake.root) as reader:
        explained = reader.sql(f"SELECT unit_id, score_kind FROM explanations WHERE {WHERE} AND origin = 'local'")
        assert explained["unit_id"].n_unique() == explained.height == N_FIT
        assert explained["score_kind"].unique().to_list() == ["detection_balanced_accuracy"]
        kinds = reader.sql("SELECT DISTINCT score_kind FROM explanation_scores WHERE origin = 'local' ORDER BY ALL")
        assert kinds["score_kind"].to_list() == [
            "detection_balanced_accuracy", "detection_f1", "detection_roc_auc", "ev_correlation",
        ]  # fmt: skip
        found = reader.search_explanations("cat", origin="local")
        assert sorted(found["unit_id"]) == sorted(explained["unit_id"])
        ((paid,),) = reader.sql("SELECT sum(prompt_tokens + completion_tokens) FROM answers").rows()
    assert paid == sum(usage.tokens for usage in spent) > 0
    assert failing_units(lake, "explanation_terms_agree") == []


def test_a_run_with_other_options_is_another_run_but_not_one_elsewhere_or_faster(
    lake: Lake, options: RunOptions
) -> None:
    explain(lake, replace(options, scorers=()), limit=2)
    done = replace(options, scorers=())
    faster = replace(done, endpoint=replace(done.endpoint, base_url="http://other/v1", concurrency=1))
    others = [
        options,
        replace(done, endpoint=replace(done.endpoint, model="rule-2")),
        replace(done, splits=SplitOptions(n=1)),
        replace(done, origin="lab"),
    ]
    with warehouse.open(lake.root) as reader:
        plans = [plan_run(reader, WHERE, each) for each in (done, faster)]
        assert [(plan.n_done, plan.n_done_elsewhere) for plan in plans] == [(2, 0), (2, 2)]
        assert [plan_run(reader, WHERE, other).n_done for other in others] == [0, 0, 0, 0]


def test_one_request_that_is_refused_or_too_long_is_its_units_row_and_the_rest_goes_on(
    lake: Lake, server: RuleServer, options: RunOptions
) -> None:
    alone = replace(options, scorers=(), endpoint=replace(options.endpoint, concurrency=1))
    server.play("refusal")
    server.play("context")
    server.play("malformed", 2)
    server.play("empty")
    summary = explain(lake, alone)
    assert summary.tally.statuses == {"refused": 1, "failed": 3, "ok": 1, "unfit": 2}
    errors = read_answers(lake).filter(pl.col("status").is_in(["refused", "failed"]))["error"].to_list()
    assert [error.split(":")[0] for error in errors] == [
        "the model declines",
        "the prompt is longer than the model takes",
        "no answer after 2 attempts",
        "the answer has no choices",
    ]
    again = explain(lake, alone)
    assert (again.n_done_before, again.tally.statuses) == (4, {"ok": 3})


def test_an_explanation_whose_scorer_fails_is_kept_and_says_so_and_nothing_is_asked_twice(
    lake: Lake, server: RuleServer, options: RunOptions, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        textwrap.dedent(
            """
            from warehouse.explain.chat import Message
            from warehouse.explain.protocols import Score, UnusableAnswer

            class Length:
                name = "length"
                def prompts(self, job, explanation):
                    return []
                async def score(self, job, explanation, chat):
                    return (Score("length", float(len(explanation)), n=1),)

            class Broken(Length):
                async def score(self, job, explanation, chat):
                    for _ in range(2):
                        await chat.complete([Message("user", "well?")], max_tokens=5)
                    raise UnusableAnswer("no idea")

            class Other(Length):
                async def score(self, job, explanation, chat):
                    return (Score("length", -1.0, n=1), Score("other", 2.0, n=1))
            """
        )
    )
    named = replace(options, scorers=tuple(f"{file}:{name}" for name in ("Length", "Broken", "Other")))
    explain(lake, named, limit=1)
    (row,) = read_answers(lake).to_dicts()
    assert (row["status"], row["error"]) == ("ok", "no idea")
    length = float(len('the tokens " cat"'))
    assert [(score["score_kind"], score["score"]) for score in row["scores"]] == [("length", length), ("other", 2.0)]
    assert [request.question for request in server.requests[1:]] == ["well?"]
    with warehouse.open(lake.root) as reader:
        assert plan_run(reader, WHERE, named).n_done == 0


def test_a_scorer_in_a_file_counts_by_what_the_file_says_wherever_it_lies(
    lake: Lake, server: RuleServer, options: RunOptions, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        textwrap.dedent(
            """
            from warehouse.explain.protocols import Score

            class Length:
                name = "length"
                def prompts(self, job, explanation):
                    return []
                async def score(self, job, explanation, chat):
                    return (Score("length", float(len(explanation)), n=1),)
            """
        )
    )
    named = replace(options, scorers=(f"{file}:Length",))
    explain(lake, named, limit=1)
    with warehouse.open(lake.root) as reader:
        assert plan_run(reader, WHERE, named).n_done == 1
        moved = file.rename(tmp_path / "moved.py")
        named = replace(named, scorers=(f"{moved}:Length",))
        assert plan_run(reader, WHERE, named).n_done == 1
        moved.write_text(moved.read_text().replace("float(", "2.0 * float("))
        assert plan_run(reader, WHERE, named).n_done == 0
        moved.unlink()
        with pytest.raises(UnknownPlugin, match=r"moved\.py:Length' cannot be read: No such file"):
            plan_run(reader, WHERE, named)


BREAKING = """
from warehouse.explain.chat import Message

def look_up(unit):
    return {}[unit]

class Breaking:
    name = "breaking"
    def prompts(self, job):
        return [look_up(job.unit_id.unit)]
    async def explain(self, job, chat):
        answer = await chat.complete([Message("user", f"well, {job.unit_id}?")], max_tokens=5)
        if job.unit_id.unit in (1, 4):
            look_up("KEY" * job.unit_id.unit)
        return answer.text if job.unit_id.unit < 6 else answer

class Numbers:
    name = "numbers"
    def prompts(self, job, explanation):
        return []
    async def score(self, job, explanation, chat):
        return {"score": 1.0}
"""


def test_a_plugin_that_breaks_costs_its_unit_and_says_where_without_the_key(
    lake: Lake, server: RuleServer, options: RunOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    file = tmp_path / "mine.py"
    file.write_text(BREAKING.replace("KEY", KEY))
    mine = replace(options, explainer=f"{file}:Breaking", scorers=(f"{file}:Numbers",))
    summary = explain(lake, mine)
    assert summary.stopped_by is None
    errors = {int(row["unit"]): row["error"] for row in read_answers(lake).to_dicts() if row["status"] != "unfit"}
    assert errors == {
        0: "scorer numbers gave a dict, not a tuple of scores",
        1: "KeyError in mine.py:5: '…'",
        4: "KeyError in mine.py:5: '…………'",
        5: "scorer numbers gave a dict, not a tuple of scores",
        6: "explainer breaking gave a Completion, not a text",
    }
    assert summary.tally.n_asked == N_FIT
    with warehouse.open(lake.root) as reader, pytest.raises(AskError, match=r"^KeyError in mine\.py:5: \d$"):
        dry_run = DryRun(reader, plan_run(reader, WHERE, mine), mine)
        first = dry_run.find_first()
        assert isinstance(first, Job)
        dry_run.list_prompts(first)


def test_a_plugin_that_breaks_on_every_unit_stops_the_run(
    lake: Lake, server: RuleServer, options: RunOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warehouse.explain.run._MOST_BROKEN", 3)
    file = tmp_path / "mine.py"
    file.write_text(BREAKING)
    summary = explain(
        lake,
        replace(
            options,
            endpoint=replace(options.endpoint, concurrency=1),
            explainer=EXPLAINER,
            scorers=(f"{file}:Numbers",),
        ),
    )
    assert summary.stopped_by == "3 units in a row broke on an error: scorer numbers gave a dict, not a tuple of scores"
    assert summary.n_left > 0
    assert read_answers(lake).filter(pl.col("explanation").is_not_null()).height == 3


def test_what_stops_a_run_leaves_what_was_done_and_the_next_run_pays_for_nothing_twice(
    lake: Lake, server: RuleServer, options: RunOptions
) -> None:
    budgeted = replace(options, tokens=5000)
    stopped = explain(lake, budgeted)
    assert stopped.stopped_by is not None
    assert stopped.stopped_by.startswith("stopped by --max-tokens-total: ")
    assert 0 < stopped.spent.tokens <= 5000
    paid = stopped.tally.n_asked
    assert paid == len(server.requests)
    rows = read_answers(lake).to_dicts()
    assert {row["status"] for row in rows} <= {"ok", "unfit", "over_budget"}
    assert all(row["error"].startswith("stopped by") for row in rows if row["status"] == "over_budget")
    rest = explain(lake, options)
    assert rest.stopped_by is None
    assert rest.tally.n_asked + paid == len(server.requests) == N_REQUESTS
    assert len({request.question for request in server.requests}) == N_REQUESTS
    done = read_answers(lake).filter(pl.col("status") == "ok")
    assert done["unit_id"].n_unique() == done.height == N_FIT


def test_an_endpoint_that_goes_down_stops_the_run_and_nothing_that_was_paid_for_is_asked_again(
    lake: Lake, server: RuleServer, options: RunOptions
) -> None:
    def answer(messages: list[dict[str, str]]) -> str:
        if len(server.requests) >= 7:
            server.break_off()
        return by_rule(messages)

    by_rule, server.answer = server.answer, answer
    try:
        hasty = replace(options.endpoint, patience_seconds=0.1, timeout_seconds=2)
        summary = explain(lake, replace(options, endpoint=hasty))
    finally:
        server.answer = by_rule
        server.come_back()
    assert summary.stopped_by is not None
    assert "has answered nothing for" in summary.stopped_by
    answered = summary.tally.n_asked
    assert 0 < answered < 20
    server.forget()
    rest = explain(lake, options)
    assert rest.tally.n_asked == len(server.requests) == N_REQUESTS - answered
    done = read_answers(lake).filter(pl.col("status") == "ok")
    assert done["unit_id"].n_unique() == done.height == N_FIT


RUN_ALONE = """
import sys
from pathlib import Path
from tests.explain.test_run import EXPLAINER, SIMULATION, explain
from warehouse.explain.endpoint import Endpoint
from warehouse.explain.jobs import SplitOptions
from warehouse.explain.run_plan import RunOptions
from warehouse.lake import Lake
explain(Lake(sys.argv[1]), RunOptions(Endpoint("rule-1", sys.argv[2], concurrency=2), EXPLAINER, (SIMULATION,), SplitOptions(n=2)))
"""  # noqa: E501


def test_a_run_that_is_killed_loses_at_most_what_was_in_flight_and_pays_for_nothing_twice(
    lake: Lake, server: RuleServer, options: RunOptions
) -> None:
    server.delay = 0.05
    process = subprocess.Popen(
        [sys.executable, "-c", RUN_ALONE, lake.root, server.url], cwd=Path(__file__).parents[2], start_new_session=True
    )
    try:
        while len(server.requests) < 13:
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    server.delay = 0.0
    summary = explain(lake, options)
    counts = Counter(request.question for request in server.requests)
    asked_twice = sum(n - 1 for n in counts.values())
    assert asked_twice <= 2  # two at once
    assert summary.tally.n_known >= 13 - 2 - 1
    done = read_answers(lake).filter(pl.col("status") == "ok")
    assert done["unit_id"].n_unique() == done.height == N_FIT


def test_a_wrong_condition_and_a_plugin_that_is_not_there_are_refused_before_anything_is_asked(
    lake: Lake, server: RuleServer, options: RunOptions
) -> None:
    with pytest.raises(QueryError, match="layr"):
        explain(lake, options, "layr = 0")
    with pytest.raises(WarehouseError, match="no explainer is called 'nobody'"):
        explain(lake, replace(options, explainer="nobody"))
    with pytest.raises(WarehouseError, match="^a budget needs prices: "):
        check_options(replace(options, money=1.0))
    assert server.requests == []


# the command and the flow ---------------------------------------------------------------------------------------------

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    lake: Lake, server: RuleServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Run the command; gives its exit code, stdout and stderr."""
    before = dict(os.environ)

    def run_command(*given: str) -> tuple[int, str, str]:
        what = ["--where", WHERE, "--model", "rule-1", "--base-url", server.url, "--lake", lake.root, "--n", "2"]
        arguments = ["warehouse", "explain", "run", "--explainer", EXPLAINER, "--attempts", "1", *what, *given]
        monkeypatch.setattr(sys, "argv", arguments)
        code = 0
        try:
            cli.main()
        except SystemExit as e:
            code = int(e.code or 0)
        return code, *capfd.readouterr()

    yield run_command
    os.environ.clear()
    os.environ.update(before)


def test_the_command_explains_scores_and_catalogues_and_its_key_is_nowhere(
    run: Run, lake: Lake, server: RuleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_KEY", KEY)
    server.key = KEY
    priced = ["--price-in", "0.5", "--price-out", "1.5", "--budget", "1"]
    code, out, err = run("--score", SIMULATION, "--key-env", "LAB_KEY", "--debug", *priced)
    assert (code, out) == (0, "")
    assert "units: 5 ok, 0 failed, 0 refused, 2 unfit, 0 over budget; 0 done before, 0 left" in err
    assert f"answers: {len(server.requests)} paid for, 0 known from before; " in err
    assert ", cost 0.0" in err
    query = err.partition('warehouse sql "')[2].partition('" --lake')[0]
    with warehouse.open(lake.root) as reader:
        found = reader.sql(query)
    assert found["unit_id"].n_unique() == found.height == N_FIT
    assert found.filter(pl.col("score") > 0.7).height == N_FIT
    assert KEY not in out + err + read_everything(lake)


def test_units_for_which_a_scorer_had_no_answer_are_counted_and_tried_again(
    run: Run, lake: Lake, server: RuleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reply(request: ChatRequest, fault: FaultName | None) -> Reply:
        is_scoring = request.body["messages"][0]["content"] == prompts.SIMULATE
        return Reply(500, b"{}") if is_scoring else answer(request, fault)

    answer = server._reply
    with monkeypatch.context() as patch:
        patch.setattr(server, "_reply", reply)
        code, _, err = run("--score", SIMULATION)
    assert code == 1
    assert "units: 5 ok, 5 of them without a score that was asked for, 0 failed, " in err
    assert err.splitlines()[-1] == "error: 5 units lack scores: the same command asks for those again"
    server.forget()
    code, _, err = run("--score", SIMULATION)
    assert code == 0
    assert "units: 5 ok, 0 failed, 0 refused, 0 unfit, 0 over budget; 2 done before, 0 left" in err
    assert {request.body["messages"][0]["content"] for request in server.requests} == {prompts.SIMULATE}


def test_what_was_paid_for_is_in_the_catalogue_however_a_run_ends(
    run: Run, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warehouse.explain.run_plan.BATCH_UNITS", 4)
    monkeypatch.setattr("flows.explain.BATCHES_AT_ONCE", 1)
    damaged = Path(lake.root, f"completions/model={LATENT.model}/component={LATENT.component}/layer={LATENT.layer}")
    damaged.mkdir(parents=True)
    (damaged / "000006-000006-1-00000000.parquet").write_bytes(b"in the way of the second batch")
    code, _, err = run()
    assert code == 1
    assert "cannot be read: remove it" in err.splitlines()[-1]
    with warehouse.open(lake.root) as reader:
        assert reader.sql("FROM explanations WHERE origin = 'local'").height > 0


def test_a_wrong_key_is_one_line_and_shows_itself_neither_in_a_traceback_nor_in_the_lake(
    run: Run, lake: Lake, server: RuleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.key = "another"
    code, out, err = run("--debug")
    assert code == 1
    assert "Traceback" in err
    last = err.splitlines()[-1]
    assert last.startswith(f"error: {server.url} refuses the key in OPENAI_API_KEY (401); what was done is kept")
    assert KEY not in out + err + read_everything(lake)
    assert "openai" not in err.replace("OPENAI_API_KEY", "")


def test_a_dry_run_prints_the_first_units_prompts_and_an_estimate_and_asks_nothing(
    run: Run, lake: Lake, server: RuleServer
) -> None:
    code, out, err = run("--dry-run", "--score", SIMULATION, "--price-in", "1", "--price-out", "1")
    assert (code, server.requests) == (0, [])
    assert out.startswith(f"=== openai: {LATENT}, at most ")
    assert "\n cat\t10\n" in out
    n_requests = N_FIT * (1 + out.count("=== simulation: "))
    assert n_requests > N_FIT
    assert f"7 units, 0 done before; from the prompts of 7, 2 of them without enough records: {n_requests} req" in err
    assert ", at most 0.0" in err
    assert not Path(lake.root, "answers").exists()
    assert not Path(lake.root, "completions").exists()


def test_units_that_the_same_model_did_at_another_base_url_are_told(
    run: Run, lake: Lake, server: RuleServer, options: RunOptions
) -> None:
    elsewhere = Endpoint("rule-1", server.url.replace("127.0.0.1", "localhost"))
    explain(lake, replace(options, scorers=(), endpoint=elsewhere))
    server.forget()
    code, _, err = run("--dry-run")
    assert (code, server.requests) == (0, [])
    assert f"{N_FIT} of those done before were asked of 'rule-1' at another base URL: --force asks this one too" in err


@pytest.mark.parametrize(
    ("given", "code", "line"),
    [
        (["--budget", "1"], 1, "error: a budget needs prices: give --price-in and --price-out"),
        (["--price-in", "1"], 2, "prices come in pairs"),
        (["--score", "nobody"], 1, "error: no scorer is called 'nobody'"),
        (["--key-env", "NOT_SET"], 1, "error: the environment variable NOT_SET holds no key"),
        (
            ["--base-url", "http://me:word@host/v1"],
            1,
            "error: a base URL has no password and no query: give http://host",
        ),
        (["--where", "1 = (SELECT"], 1, "error: the condition '1 = (SELECT'"),
        (["--where", "layer = 99"], 1, "fulfils the condition 'layer = 99'"),
    ],
)
def test_what_cannot_be_run_is_said_in_a_line(
    run: Run, server: RuleServer, given: list[str], code: int, line: str
) -> None:
    found, _, err = run(*given)
    assert found == code
    assert line in err
    assert server.requests == []
