"""Explainers and scorers against a model that answers by rule: right explanations score near 1, wrong ones near 0."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.explain.rule_server import ChatRequest, FaultName, RuleServer, serve_rules
from tests.explain.rules import name_tokens
from tests.explain.units import GOOD_HEAD, GOOD_NEURON, WORDS, WRONG_HEAD, WRONG_NEURON, make_head, make_neuron
from warehouse.errors import WarehouseError
from warehouse.explain.budget import Budget
from warehouse.explain.chat import BadAnswer, EndpointError, Refused
from warehouse.explain.client import Client
from warehouse.explain.detection import DetectionScorer, FuzzingScorer
from warehouse.explain.endpoint import Endpoint
from warehouse.explain.examples import Example, Job
from warehouse.explain.explainers import OpenAIExplainer, TokenActivationExplainer
from warehouse.explain.gathering import gather_answers
from warehouse.explain.pair_detection import PairDetectionScorer
from warehouse.explain.prompts import to_text
from warehouse.explain.protocols import (
    Explainer,
    Score,
    Scorer,
    UnknownPlugin,
    UnusableAnswer,
    load_explainer,
    load_scorer,
)
from warehouse.explain.simulation import CorrelationScorer, SimulationScorer
from warehouse.pairs import unflatten_pairs
from warehouse.records import UnitId

REAL = Path(__file__).parents[3] / "shared" / "real"


@dataclass
class Asking:
    """A server that answers by rule, and a client that asks it without asking again; opening one takes a while."""

    server: RuleServer
    loop: asyncio.Runner
    client: Client

    @property
    def requests(self) -> list[ChatRequest]:
        return self.server.requests

    def explain(self, explainer: Explainer, job: Job) -> str:
        return self.loop.run(explainer.explain(job, self.client))

    def score(self, scorer: Scorer, job: Job, explanation: str) -> dict[str, Score]:
        return {each.kind: each for each in self.loop.run(scorer.score(job, explanation, self.client))}


def open_client(server: RuleServer) -> Client:
    return Client(Endpoint("rule-1", server.url, attempts=1, backoff_seconds=0.01), Budget())


@pytest.fixture(scope="module")
def opened() -> Iterator[Asking]:
    with serve_rules() as server, asyncio.Runner() as loop:
        client = open_client(server)
        yield Asking(server, loop, client)
        loop.run(client.__aexit__(None, None, None))


@pytest.fixture
def asking(opened: Asking) -> Iterator[Asking]:
    yield opened
    opened.server.forget()


def values(scores: dict[str, Score]) -> dict[str, float]:
    return {kind: score.value for kind, score in scores.items() if score.value is not None}


# right and wrong -----------------------------------------------------------------------------------------------------


def test_a_units_explanation_by_rule_is_of_what_it_responds_to(asking: Asking) -> None:
    for job, scorer in ((make_neuron(n_each=8), CorrelationScorer()), (make_head(), PairDetectionScorer())):
        explanation = asking.explain(OpenAIExplainer(), job)
        ((kind, found),) = asking.score(scorer, job, explanation).items()
        assert found.value is not None and found.value > 0.9, (kind, explanation)


def test_simulation_tells_right_from_wrong(asking: Asking) -> None:
    right = asking.score(SimulationScorer(), make_neuron(), GOOD_NEURON)
    wrong = asking.score(SimulationScorer(), make_neuron(), WRONG_NEURON)
    assert list(right) == ["ev_correlation", "rsquared", "absolute_dev_explained", "r2"]
    assert min(values(right).values()) > 0.7 and right["ev_correlation"].value > 0.95  # type: ignore[operator]
    assert len(wrong) == 4 and max(values(wrong).values()) < 0.1
    for found in right.values():
        assert found.n == 10 and found.n_missing == 0 and found.low <= found.value <= found.high <= 1  # type: ignore[operator]
    assert len(asking.requests) == 40


def test_correlation_alone_is_the_same_at_half_the_price(asking: Asking) -> None:
    (alone,) = asking.score(CorrelationScorer(), make_neuron(), GOOD_NEURON).values()
    assert len(asking.requests) == 10
    assert alone == asking.score(SimulationScorer(), make_neuron(), GOOD_NEURON)["ev_correlation"]


def test_simulation_without_logprobs_takes_the_numbers_as_written(asking: Asking) -> None:
    asking.server.play("no logprobs", 10)
    not_given = asking.score(CorrelationScorer(), make_neuron(), GOOD_NEURON)
    not_asked = asking.score(replace(CorrelationScorer(), top_logprobs=0), make_neuron(), GOOD_NEURON)
    assert not_given == not_asked and values(not_given)["ev_correlation"] > 0.95
    assert ["logprobs" in request.body for request in asking.requests] == [True] * 10 + [False] * 10


@pytest.mark.parametrize("scorer", [DetectionScorer(), FuzzingScorer()], ids=lambda scorer: scorer.name)
def test_detection_and_fuzzing_tell_right_from_wrong(asking: Asking, scorer: Scorer) -> None:
    right = values(asking.score(scorer, make_neuron(), GOOD_NEURON))
    assert right == {f"{scorer.name}_{figure}": 1.0 for figure in ("balanced_accuracy", "f1", "roc_auc")}
    wrong = values(asking.score(scorer, make_neuron(), name_tokens([" nowhere"])))
    assert wrong[f"{scorer.name}_balanced_accuracy"] == wrong[f"{scorer.name}_roc_auc"] == 0.5
    assert wrong[f"{scorer.name}_f1"] == 0
    assert len(asking.requests) == 4


def test_pair_detection_tells_right_from_wrong(asking: Asking) -> None:
    right = asking.score(PairDetectionScorer(), make_head(), GOOD_HEAD)["pair_detection_roc_auc"]
    wrong = asking.score(PairDetectionScorer(), make_head(), WRONG_HEAD)["pair_detection_roc_auc"]
    assert (right.value, right.n) == (1.0, 10) and wrong.value == 0.5
    assert len(asking.requests) == 20


def test_detection_without_logprobs_gives_no_roc_auc(asking: Asking) -> None:
    asking.server.play("no logprobs")
    found = asking.score(DetectionScorer(), make_neuron(), GOOD_NEURON)
    assert list(found) == ["detection_balanced_accuracy", "detection_f1"]


def test_what_is_asked_is_what_a_dry_run_shows_and_the_same_every_time(asking: Asking) -> None:
    for job, scorer in (
        (make_neuron(), SimulationScorer()),
        (make_neuron(), DetectionScorer()),
        (make_neuron(), FuzzingScorer()),
        (make_head(), PairDetectionScorer()),
    ):
        asking.server.forget()
        asking.score(scorer, job, "anything")
        asked = {(r.question, r.body["max_tokens"], r.body.get("top_logprobs", 0)) for r in asking.requests}
        shown = [(p.messages[-1].content, p.max_tokens, p.top_logprobs) for p in scorer.prompts(job, "anything")]
        assert asked == set(shown) and len(asking.requests) == len(shown)
        assert scorer.prompts(job, "anything") == scorer.prompts(job, "anything")
        assert replace(scorer, seed=9).prompts(job, "x") != scorer.prompts(job, "x") or scorer.name == "simulation"


def test_a_simulations_answer_has_room_for_every_token(asking: Asking) -> None:
    job = make_neuron()
    asking.score(SimulationScorer(), job, GOOD_NEURON)
    for prompt in SimulationScorer().prompts(job, GOOD_NEURON):
        written = asking.server.answer([{"content": message.content} for message in prompt.messages])
        assert len(written.encode()) / 2 < prompt.max_tokens


# which examples ------------------------------------------------------------------------------------------------------


def test_fuzzing_shows_each_active_text_once_right_and_once_wrong_never_together() -> None:
    questions = [prompt.messages[-1].content for prompt in FuzzingScorer().prompts(make_neuron(), "x")]
    texts = [[line.split(": ", 1)[1] for line in question.splitlines()[2:]] for question in questions]
    plain = [[text.replace("⟦", "").replace("⟧", "") for text in batch] for batch in texts]
    assert [len(batch) for batch in plain] == [5, 5] and set(plain[0]) == set(plain[1]) and len(set(plain[0])) == 5
    assert len({text for batch in texts for text in batch}) == 10


def test_contrasting_examples_are_negatives_of_detection_and_not_of_fuzzing(asking: Asking) -> None:
    job = make_neuron()
    unknown = Example(
        UnitId("gpt2-small", "mlp_post_act", 3, 15),
        "top",
        None,
        0,
        (" king", " x"),
        np.full(2, np.nan, np.float32),
        None,
    )
    contrasted = replace(job, splits={**job.splits, "contrast": (unknown,) * 4})
    found = asking.score(DetectionScorer(), contrasted, GOOD_NEURON)["detection_balanced_accuracy"]
    assert found.n == 14 and found.value == pytest.approx((1 + 5 / 9) / 2)
    assert FuzzingScorer().prompts(contrasted, "x") == FuzzingScorer().prompts(job, "x")


def test_an_interval_of_detection_draws_as_many_active_texts_as_there_are(asking: Asking) -> None:
    found = asking.score(DetectionScorer(), make_neuron(), name_tokens(WORDS))["detection_f1"]
    assert found.low == found.value == found.high == pytest.approx(2 / 3)  # of 5 right and 5 wrong ones in each draw


def test_what_a_scorer_is_not_for_gets_no_score_and_asks_nothing(asking: Asking) -> None:
    always = replace(make_neuron(), splits={**make_neuron().splits, "test": make_neuron().splits["train"]})
    for scorer in (SimulationScorer(), DetectionScorer(), FuzzingScorer()):
        assert asking.score(scorer, make_head(), GOOD_HEAD) == {}
    assert asking.score(PairDetectionScorer(), make_neuron(), GOOD_NEURON) == {}
    assert asking.score(DetectionScorer(), always, GOOD_NEURON) == {}
    assert asking.requests == []


def test_pairs_that_are_asked_about_are_the_five_strongest_and_five_below_a_tenth_of_the_largest() -> None:
    job, draw = make_head(), np.random.default_rng(1)
    evenly = tuple(replace(each, activations=draw.uniform(0, 8, 78).astype(np.float32)) for each in job.splits["test"])
    job = replace(job, splits={**job.splits, "test": evenly})
    activations = {}
    for example in job.splits["test"]:
        for place, (query, key) in enumerate(zip(*unflatten_pairs(12, 78), strict=True)):
            activations[to_text(example.tokens, {int(query)}, {int(key)})] = float(example.activations[place])
    questions = [prompt.messages[-1].content for prompt in PairDetectionScorer().prompts(job, "x")]
    asked = [activations[question.partition("Text: ")[2]] for question in questions]
    assert asked[:5] == sorted(activations.values(), reverse=True)[:5]
    assert len(set(questions)) == 10 and max(asked[5:]) < 0.1 * job.max_activation


# what goes wrong -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", ["other", "refusal", "content_filter", "empty", "null", "thinking", "malformed", "context"]
)
def test_records_without_a_usable_answer_are_counted_and_left_out(asking: Asking, fault: FaultName) -> None:
    asking.server.play(fault, 2)
    (found,) = asking.score(CorrelationScorer(), make_neuron(), GOOD_NEURON).values()
    assert (found.n, found.n_missing) == (8, 2) and found.value > 0.95  # type: ignore[operator]
    asking.server.play(fault)
    detected = asking.score(DetectionScorer(), make_neuron(), GOOD_NEURON)["detection_balanced_accuracy"]
    assert (detected.n, detected.n_missing) == (5, 5)


def test_a_scorer_without_any_usable_answer_says_why(asking: Asking) -> None:
    asking.server.play("other", 20)
    with pytest.raises(UnusableAnswer, match="no number for 24 of 24 tokens; it begins 'What a lovely question"):
        asking.score(SimulationScorer(), make_neuron(), GOOD_NEURON)
    asking.server.forget()
    asking.server.play("other", 10)
    with pytest.raises(UnusableAnswer, match="neither 0 nor 1"):
        asking.score(PairDetectionScorer(), make_head(), GOOD_HEAD)


def test_calibration_without_answers_leaves_the_correlation(asking: Asking) -> None:
    prompts = [prompt.messages[-1].content for prompt in SimulationScorer().prompts(make_neuron(), GOOD_NEURON)]
    rule, calibration = asking.server.answer, set(prompts[10:])
    asking.server.answer = lambda messages: "no" if messages[-1]["content"] in calibration else rule(messages)
    try:
        found = asking.score(SimulationScorer(), make_neuron(), GOOD_NEURON)
    finally:
        asking.server.answer = rule
    assert list(values(found)) == ["ev_correlation"] and len(found) == 4


def test_what_stops_a_run_is_not_taken_for_a_missing_answer(asking: Asking) -> None:
    with serve_rules(key="sk-another") as closed, pytest.raises(EndpointError):
        replace(asking, client=open_client(closed)).score(SimulationScorer(), make_neuron(), GOOD_NEURON)


def test_what_stops_a_run_gives_up_the_other_questions() -> None:
    async def stop() -> None:
        raise EndpointError("nobody there")

    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(EndpointError, match="nobody there"):
        asyncio.run(asyncio.wait_for(gather_answers([wait(), stop(), wait()]), 30))


@pytest.mark.parametrize(
    ("fault", "error"),
    [("refusal", Refused), ("content_filter", Refused), ("thinking", UnusableAnswer), ("blank", BadAnswer)],
)
def test_an_explanation_that_is_none_is_an_error_of_its_own(
    asking: Asking, fault: FaultName, error: type[WarehouseError]
) -> None:
    asking.server.play(fault)
    with pytest.raises(error):
        asking.explain(TokenActivationExplainer(), make_neuron())


# finding one's own ---------------------------------------------------------------------------------------------------

OWN = """
from dataclasses import dataclass
from warehouse.explain.chat import Message
from warehouse.explain.protocols import Prompt, Score

@dataclass
class Longest:
    name: str = "longest"
    def prompts(self, job):
        return [Prompt((Message("user", "why?"),), 10)]
    async def explain(self, job, chat):
        return max((token for example in job.splits["train"] for token in example.tokens), key=len)

class Half:
    name = "half"
    def prompts(self, job, explanation):
        return []
    async def score(self, job, explanation, chat):
        return (Score("half", 0.5),)

class NoCoroutine(Longest):
    def explain(self, job, chat):
        return ""

class Demanding(Longest):
    def __init__(self, key):
        pass

number = 3
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own explainer.py"
    path.write_text(OWN)
    return path


def test_an_explainer_and_a_scorer_of_ones_own_come_from_a_file(asking: Asking, own: Path) -> None:
    assert asking.explain(load_explainer(f"{own}:Longest"), make_neuron()) == ' "prince"'
    assert values(asking.score(load_scorer(f"{own}:Half"), make_neuron(), "")) == {"half": 0.5}
    assert asking.requests == []


def test_an_explainer_comes_from_a_module_or_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere.py").write_text(OWN)
    about = tmp_path / "elsewhere-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[activation_warehouse.explainers]\nlong = elsewhere:Longest\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "elsewhere", raising=False)
    assert load_explainer("long").name == load_explainer("elsewhere:Longest").name == "longest"
    assert load_explainer("warehouse.explain.explainers:OpenAIExplainer") == OpenAIExplainer()


def test_the_warehouses_own_are_found_by_name() -> None:
    assert load_explainer("openai") == OpenAIExplainer()
    for name in ("simulation", "correlation", "detection", "fuzzing", "pair_detection"):
        assert load_scorer(name).name == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody", r"no explainer is called 'nobody': there are .*; or name one of yours as path/to/file.py:Class"),
        ("no/such/file.py:Longest", "cannot be loaded: FileNotFoundError: there is no file no/such/file.py"),
        ("no.such.module:Longest", "cannot be loaded: ModuleNotFoundError: No module named 'no'"),
        ("no such module:Longest", "'no such module' is neither a module's name nor a .py file"),
        ("{own}:Nothing", "cannot be loaded: AttributeError: .* has no attribute 'Nothing'"),
        ("{own}:number", "is a int, not a class"),
        ("{own}:Demanding", "cannot be made without arguments: .*missing 1 required positional argument: 'key'"),
        ("{own}:NoCoroutine", "is no explainer: it needs a `name`, a method `prompts` and an `async def explain`"),
        ("{own}:Half", "is no explainer"),
        ("{broken}:Longest", "cannot be loaded: SyntaxError"),
        ("{raising}:Longest", "cannot be loaded: ModuleNotFoundError: No module named 'not_installed'"),
    ],
)
def test_what_is_no_explainer_is_told_in_a_line(own: Path, name: str, message: str) -> None:
    broken, raising = own.with_name("broken.py"), own.with_name("raising.py")
    broken.write_text("class Longest(:\n")
    raising.write_text("import not_installed\n")
    for _ in range(2):  # a file that failed is not taken for one that was imported
        with pytest.raises(UnknownPlugin, match=message) as caught:
            load_explainer(name.format(own=own, broken=broken, raising=raising))
        assert "\n" not in str(caught.value)


# real neurons --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the published excerpts are not at {REAL}")
def test_real_neurons_of_one_token_score_high_by_their_own_explanation_and_low_by_others(asking: Asking) -> None:
    jobs = {path.parent.name: read_real(path) for path in (REAL / "data" / "collated-activations").rglob("*.json")}
    explanations = {layer: asking.explain(OpenAIExplainer(), job) for layer, job in jobs.items()}
    assert len(explanations) == 6
    # The published explanations of these two name a token, "all" and "'s"; those of the other four name an idea, which
    # a model that knows only tokens cannot simulate.
    for layer, token in (("6", '" all"'), ("13", '"\'s"')):
        assert token in explanations[layer]
        found = {by: asking.score(CorrelationScorer(), jobs[layer], said) for by, said in explanations.items()}
        reached = {by: scores["ev_correlation"].value or 0.0 for by, scores in found.items()}
        assert reached.pop(layer) > 0.75 and max(reached.values()) < 0.4, layer


def read_real(path: Path) -> Job:
    """Make a job of an excerpt, which has too few records for splits: what it was scored on is not held out."""
    record = msgspec.json.decode(path.read_bytes())
    unit_id = UnitId("gpt2-xl", "mlp_post_act", int(path.parent.name), int(path.stem))

    def make(rank: int, content: dict[str, Any]) -> Example:
        activations = np.array(content["activations"], np.float32)
        return Example(unit_id, "top", None, rank, tuple(content["tokens"]), activations, None)

    top = tuple(make(i, each) for i, each in enumerate(record["most_positive_activation_records"]))
    test = tuple(make(i, each) for i, each in enumerate(record["random_sample"]))
    largest = max(float(example.activations.max()) for example in top)
    return Job(unit_id, "neuron", "token", largest, {"train": top, "test": test, "calibration": (), "valid": ()})
