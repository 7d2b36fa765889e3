"""The client of an endpoint: what is asked again, what is one request's end, and what is the end of all."""

from __future__ import annotations

import asyncio
import json
import math
import re
import socket
import time
import traceback
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import quote

import pytest

from tests.explain.rule_server import ChatRequest, FaultName, Reply, RuleServer, serve_rules
from tests.explain.rules import split_tokens
from warehouse.errors import WarehouseError
from warehouse.explain.budget import Budget, Prices, Usage, bound_usage
from warehouse.explain.chat import AskError, BadAnswer, Completion, ContextTooLong, EndpointError, Message, OutOfBudget
from warehouse.explain.chat import Refused as RefusedByModel
from warehouse.explain.client import Client
from warehouse.explain.endpoint import Asked, Endpoint
from warehouse.explain.failures import TransientError, judge, read_retry_after
from warehouse.explain.replies import decode_body, read_completion

KEY = "sk-a-key-that-must-stay-secret"
ASKED = [Message("system", "You are a parrot."), Message("user", "hello there")]


@pytest.fixture(scope="module")
def served() -> Iterator[RuleServer]:
    with serve_rules(answer=lambda messages: f"you said {messages[-1]['content']}") as server:
        yield server


@pytest.fixture
def server(served: RuleServer) -> Iterator[RuleServer]:
    yield served
    served.forget()
    served.key, served.delay, served.retry_after = None, 0.0, 0.05


@pytest.fixture
def endpoint(server: RuleServer) -> Endpoint:
    return Endpoint("rule-1", server.url, attempts=2, backoff_seconds=0.01, patience_seconds=30)


def ask(endpoint: Endpoint, n: int = 1, budget: Budget | None = None, top_logprobs: int = 0) -> list[Completion]:
    """Ask n different questions at once; the first error is raised when all are over."""

    async def run() -> list[Completion]:
        async with Client(endpoint, budget or Budget()) as client:
            results = await asyncio.gather(
                *(
                    client.complete([*ASKED, Message("user", f"number {i}")], max_tokens=50, top_logprobs=top_logprobs)
                    for i in range(n)
                ),
                return_exceptions=True,
            )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if isinstance(result, Completion)]

    return asyncio.run(run())


def answer_tokens(request: ChatRequest) -> int:
    """Count a request's tokens and its answer's as the server does."""
    contents = [message["content"] for message in request.body["messages"]]
    return sum(math.ceil(len(content) / 4) for content in contents) + len(split_tokens(f"you said {contents[-1]}"))


def test_an_answer_comes_with_its_tokens_its_model_and_the_logprobs_that_were_asked_for(
    server: RuleServer, endpoint: Endpoint
) -> None:
    (plain,) = ask(endpoint)
    assert plain == Completion("you said number 0", plain.prompt_tokens, plain.completion_tokens, "rule-1")
    assert plain.prompt_tokens > 0 < plain.completion_tokens
    assert server.requests[0].body["messages"][-1] == {"role": "user", "content": "number 0"}
    assert "logprobs" not in server.requests[0].body
    (rich,) = ask(endpoint, top_logprobs=2)
    assert rich.logprobs is not None
    assert [token.token for token in rich.logprobs] == ["you", " ", "said", " ", "number", " ", "0"]
    assert set(rich.logprobs[-1].top) == {"0", "1"}
    assert rich.logprobs[-1].logprob == rich.logprobs[-1].top["0"] < 0


@pytest.mark.parametrize("fault", ["429", "500", "503", "cut", "half", "malformed", "html", "error"])
def test_what_may_pass_is_asked_again(server: RuleServer, endpoint: Endpoint, fault: FaultName) -> None:
    server.play(fault)
    assert ask(endpoint)[0].text == "you said number 0"
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("fault", "error", "line"),
    [
        ("context", ContextTooLong, "the prompt is longer than the model takes: This model's maximum context length"),
        ("refusal", RefusedByModel, "the model declines: I'm sorry, I can't help with that."),
        ("content_filter", RefusedByModel, "the endpoint's content filter withheld the answer"),
        ("empty", BadAnswer, "the answer has no choices"),
        ("blank", BadAnswer, "the answer is empty"),
        ("null", BadAnswer, "the answer is empty"),
        ("400", AskError, "the endpoint refuses the request (400): Something about this request is wrong"),
    ],
)
def test_a_request_that_cannot_be_answered_is_asked_once_and_the_next_one_is_answered(
    server: RuleServer, endpoint: Endpoint, fault: FaultName, error: type[AskError], line: str
) -> None:
    async def run() -> Completion:
        async with Client(endpoint, Budget()) as client:
            server.play(fault)
            with pytest.raises(error) as raised:
                await client.complete(ASKED, max_tokens=50)
            assert str(raised.value).startswith(line)
            assert len(server.requests) == 1
            return await client.complete(ASKED, max_tokens=50)

    assert asyncio.run(run()).text == "you said hello there"


@pytest.mark.parametrize(
    ("fault", "said"), [("500", "status 500"), ("malformed", "no chat completion"), ("html", "<!")]
)
def test_a_request_that_always_fails_fails_alone(
    server: RuleServer, endpoint: Endpoint, fault: FaultName, said: str
) -> None:
    server.play(fault, 2)
    with pytest.raises(AskError, match=rf"^no answer after 2 attempts: [^\n]*{said}"):
        ask(endpoint)
    assert len(server.requests) == 2


def test_an_endpoint_that_hangs_is_given_up_after_the_timeout_and_its_answer_counts_as_perhaps_paid(
    server: RuleServer, endpoint: Endpoint
) -> None:
    server.play("hang", 2)
    budget = Budget()
    with pytest.raises(AskError, match=r"^no answer after 2 attempts: no answer within 0\.1 s$"):
        ask(replace(endpoint, timeout_seconds=0.1), budget=budget)
    assert budget.spent == Usage()
    assert budget.doubtful.completion_tokens == 100


def test_a_rate_limit_holds_back_every_request_until_the_endpoint_wants_more(
    server: RuleServer, endpoint: Endpoint
) -> None:
    server.retry_after = 0.3
    server.play("429")
    ask(replace(endpoint, concurrency=1), n=2)
    first, *others = [request.time for request in server.requests]
    assert len(others) == 2
    assert all(moment - first >= 0.3 for moment in others)


def test_many_429s_cost_no_request_its_attempts(server: RuleServer, endpoint: Endpoint) -> None:
    server.retry_after = 0.01
    server.play("429", 12)
    assert len(ask(replace(endpoint, concurrency=2), n=4)) == 4


def test_no_more_requests_are_under_way_than_allowed_and_no_more_sent_than_the_rates_allow(
    server: RuleServer, endpoint: Endpoint
) -> None:
    server.delay = 0.02
    ask(replace(endpoint, concurrency=3), n=9)
    assert server.most_at_once == 3
    server.forget()
    server.delay = 0.0
    began = time.monotonic()
    ask(replace(endpoint, requests_per_minute=1200), n=5)
    assert server.requests[-1].time - began >= 4 * 60 / 1200
    began = time.monotonic()
    ask(replace(endpoint, tokens_per_minute=60_000), n=3)  # each takes 50 tokens of answer at most, and its prompt
    assert server.requests[-1].time - began >= 2 * 50 * 60 / 60_000


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (KEY, r"^http://127\.0\.0\.1:\d+/v1 refuses the key in OPENAI_API_KEY \(401\)$"),
        (None, r"^http://127\.0\.0\.1:\d+/v1 wants a key \(401\): put it in OPENAI_API_KEY, "),
    ],
)
def test_a_wrong_or_missing_key_stops_all_requests(
    server: RuleServer, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, key: str | None, line: str
) -> None:
    server.key = "another key altogether"
    monkeypatch.setenv("OPENAI_API_KEY", key or "")
    with pytest.raises(EndpointError, match=line):
        ask(replace(endpoint, concurrency=1), n=5)
    assert len(server.requests) == 1
    assert server.requests[0].headers.get("authorization") == (f"Bearer {key}" if key else None)


def test_a_key_is_read_from_the_variable_that_is_named(
    server: RuleServer, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = KEY
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    monkeypatch.setenv("LAB_KEY", f"{KEY}\n")
    assert ask(replace(endpoint, key_env="LAB_KEY"))[0].text == "you said number 0"
    with pytest.raises(EndpointError, match="^the environment variable NO_KEY holds no key$"):
        ask(replace(endpoint, key_env="NO_KEY"))


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("404", r"has no model 'rule-1': The model does not exist$"),
        ("quota", r"has no credit left for this key \(429\)"),
    ],
)
def test_what_no_request_can_mend_stops_them_all(
    server: RuleServer, endpoint: Endpoint, fault: FaultName, line: str
) -> None:
    server.play(fault)
    with pytest.raises(EndpointError, match=line):
        ask(replace(endpoint, concurrency=1), n=5)
    assert len(server.requests) == 1


def test_an_endpoint_that_is_not_there_is_known_soon(endpoint: Endpoint) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    with pytest.raises(EndpointError, match=rf"^nobody answers at {url}: \S"):
        ask(replace(endpoint, base_url=url), n=3)


def test_an_endpoint_that_goes_down_is_waited_for_as_long_as_patience_lasts(
    server: RuleServer, endpoint: Endpoint
) -> None:
    async def go_down_for_a_while(client: Client) -> None:
        await client.complete(ASKED, max_tokens=50)
        server.go_down()
        waiting = asyncio.create_task(client.complete(ASKED, max_tokens=50))
        await asyncio.wait([waiting], timeout=0.2)
        server.come_back()
        await waiting

    async def run(patience: float) -> None:
        async with Client(replace(endpoint, patience_seconds=patience), Budget()) as client:
            await go_down_for_a_while(client)

    asyncio.run(run(30))
    with pytest.raises(EndpointError, match=r"has answered nothing for \d+ s: "):
        asyncio.run(run(0.05))


def test_an_endpoint_that_refuses_everything_from_the_start_is_not_asked_for_every_unit(
    server: RuleServer, endpoint: Endpoint
) -> None:
    server.play("400", 100)
    with pytest.raises((AskError, EndpointError)):
        ask(replace(endpoint, concurrency=1), n=60)
    assert len(server.requests) == 20


def test_the_key_is_in_no_message_no_repr_and_no_traceback(
    server: RuleServer, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    asked = Asked(server.url, "rule-1", key=KEY)
    client = Client(endpoint, Budget())
    assert KEY not in repr([asked, endpoint, client, vars(client)["_asked"]])
    for status in (400, 401, 403, 404, 429, 500):
        assert KEY not in str(judge(status, {"error": {"message": f"bad key {KEY}", "code": KEY}}, {}, asked))
    server.key = "another key altogether"
    try:
        ask(endpoint)
    except WarehouseError as error:
        shown = "".join(traceback.format_exception(error))
        assert KEY not in shown
        assert "openai." not in shown  # the foreign error, whose text has all that the endpoint said


def test_an_answer_that_repeats_the_key_is_kept_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serve_rules(answer=lambda _: f"your key is {KEY}!") as server:
        (answer,) = ask(Endpoint("rule-1", server.url), top_logprobs=2)
    assert answer.text == "your key is …!"
    assert answer.logprobs is None


LONG_KEY = f"sk-proj-{'+aB3/x9_'.join('QRSTUVWXYZ')}"


def give_answers(said: str) -> Iterator[str]:
    """Give the lines that come of it where an endpoint says something in each place that is shown."""
    asked = Asked("http://host/v1", "rule-1", key=LONG_KEY)
    refusal = {"choices": [{"message": {"refusal": said}}]}
    yield str(read_completion(decode_body(json.dumps(refusal).encode(), asked), asked))
    with pytest.raises(BadAnswer) as raised:
        decode_body(f"<html>{said}".encode(), asked)
    yield str(raised.value)
    for status in (400, 404, 429, 500):
        for code in ("", "model_not_found", "insufficient_quota", "context_length_exceeded", "content_filter"):
            yield str(judge(status, {"error": {"message": said, "code": code}}, {}, asked))
            yield str(judge(status, said, {}, asked))


@pytest.mark.parametrize(
    "form",
    [
        LONG_KEY,
        quote(LONG_KEY, safe=""),
        b64encode(LONG_KEY.encode()).decode(),
        b64encode(f":{LONG_KEY}".encode()).decode(),
        b64encode(f"me:{LONG_KEY}\n".encode()).decode(),
        urlsafe_b64encode(f"Bearer {LONG_KEY}".encode()).decode(),
    ],
    ids=["plain", "quoted", "base64", "after one byte", "after three bytes", "as a bearer"],
)
def test_no_part_of_the_key_is_left_where_an_answer_is_cut(form: str) -> None:
    # What stands at the ends of a base64 form is of its surroundings too; the pieces lie well within it.
    pieces = {form[i : i + 8] for i in range(16, len(form) - 24)}
    for n_before in (*range(0, 64, 3), *range(200, 310, 5)):
        for line in give_answers(f"{'x ' * (n_before // 2)}{'y' * (n_before % 2)}{form} is wrong"):
            assert not any(piece in line for piece in pieces), (n_before, line)


@pytest.mark.parametrize(
    "listed", [[("a", [KEY])], [(f"my{KEY}", [])], [(KEY[:9], ["x"]), (KEY[9:], [])], [(c, []) for c in KEY]]
)
def test_logprobs_whose_tokens_hold_the_key_or_make_it_up_are_left_out(listed: list[tuple[str, list[str]]]) -> None:
    def read(key: str) -> Completion | AskError:
        asked = Asked("http://host/v1", "rule-1", key=key)
        content = [
            {"token": token, "logprob": 0.0, "top_logprobs": [{"token": each, "logprob": -1.0} for each in top]}
            for token, top in listed
        ]
        choice = {"message": {"content": "cats"}, "logprobs": {"content": content}}
        return read_completion(decode_body(json.dumps({"choices": [choice]}).encode(), asked), asked)

    assert read(KEY) == Completion("cats", 0, 0, "rule-1")
    other = read("another key altogether")
    assert isinstance(other, Completion)
    assert other.logprobs is not None


@pytest.mark.parametrize(
    ("key", "is_hidden"),
    [("EMPTY", False), ("ollama", False), ("a1b2c", False), ("a1b2c3", True), ("lm-studio", True), ("x" * 12, True)],
)
def test_short_keys_and_words_that_stand_in_for_one_are_no_secret(key: str, is_hidden: bool) -> None:
    said = f"what {key} is"
    assert Asked("http://host/v1", "m", key=key).hide(said) == ("what … is" if is_hidden else said)


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("localhost:8000", "^--base-url is no URL of an endpoint"),
        ("ftp://host/v1", "^--base-url is no URL of an endpoint"),
        ("http://[::1", "^--base-url is no URL of an endpoint"),
        ("http://me:secret@host/v1", r"^a base URL has no password and no query: give http://host/v1, "),
        ("https://host/v1?key=secret", r"^a base URL has no password and no query: give https://host/v1, "),
    ],
)
def test_a_base_url_that_is_none_or_holds_a_secret_is_refused(url: str, line: str) -> None:
    with pytest.raises(EndpointError, match=line) as raised:
        Client(Endpoint("m", url), Budget())
    assert "secret" not in str(raised.value)


def test_the_budget_is_never_exceeded_and_nearly_used_up(server: RuleServer, endpoint: Endpoint) -> None:
    budget = Budget(Prices(1e6, 1e6), money=600)  # a price of 1 a token
    server.delay = 0.005
    with pytest.raises(
        OutOfBudget, match=r"^stopped by --budget: \d+ of 600 is spent, and the next request may cost 199$"
    ):
        ask(endpoint, n=200, budget=budget)
    most_of_one = bound_usage([*ASKED, Message("user", "number 100")], 50).tokens
    assert 600 - most_of_one < budget.spent.tokens <= 600
    assert budget.spent.tokens == sum(answer_tokens(request) for request in server.requests)


@pytest.mark.parametrize(
    ("budget", "line"),
    [
        (Budget(Prices(1, 1), money=1.0), r"stopped by --budget: 1\.4 of 1 is spent"),
        (Budget(tokens=1_000_000), r"stopped by --max-tokens-total: 1,400,000 of 1,000,000 tokens are used"),
    ],
)
def test_an_endpoint_that_counts_more_than_a_request_can_take_stops_the_run_where_the_budget_is_exceeded(
    server: RuleServer, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, budget: Budget, line: str
) -> None:
    def reply(request: ChatRequest, fault: FaultName | None) -> Reply:
        body = json.loads(answer(request, fault).body)
        body["usage"] = {"prompt_tokens": 1_000_000, "completion_tokens": 400_000}
        return Reply(200, json.dumps(body).encode())

    answer = server._reply
    monkeypatch.setattr(server, "_reply", reply)

    async def run() -> None:
        async with Client(replace(endpoint, concurrency=1), budget) as client:
            await client.complete(ASKED, max_tokens=50)  # it is paid for, so it is given
            assert re.match(line, str(client.stopped_by))
            with pytest.raises(OutOfBudget, match="counted 1,400,000 tokens for a request of at most "):
                await client.complete(ASKED, max_tokens=50)

    asyncio.run(run())
    assert len(server.requests) == 1


def test_after_one_request_that_cost_more_than_it_can_the_next_ones_are_taken_to_do_so_too() -> None:
    budget = Budget(tokens=1000)

    async def run() -> None:
        async with budget.reserve(Usage(100, 50)) as reservation:
            reservation.settle(Usage(100, 200))
        async with budget.reserve(Usage(100, 50)):
            with pytest.raises(TimeoutError):  # 300 are spent, 300 are held, and this may take 500
                async with asyncio.timeout(0.01), budget.reserve(Usage(100, 100)):
                    pass
        with pytest.raises(
            OutOfBudget, match=r"300 of 1,000 tokens are used, and the next request may take 900; the e"
        ):
            async with budget.reserve(Usage(100, 200)):
                pass

    asyncio.run(run())
    assert budget.find_overdraft() is None


def test_a_limit_of_tokens_needs_no_prices_and_one_of_money_does(server: RuleServer, endpoint: Endpoint) -> None:
    with pytest.raises(OutOfBudget, match=r"^stopped by --max-tokens-total: 0 of 30 tokens are used, "):
        ask(endpoint, budget=Budget(tokens=30))
    assert server.requests == []
    with pytest.raises(WarehouseError, match=r"^a budget needs prices: give --price-in and --price-out"):
        Budget(money=1.0)


def test_answers_without_counts_are_reckoned_at_the_most_that_they_can_have_cost(
    server: RuleServer, endpoint: Endpoint
) -> None:
    server.play("no usage")
    budget = Budget()
    assert ask(endpoint, budget=budget)[0].prompt_tokens == 0
    assert budget.spent == Usage()
    assert budget.doubtful.completion_tokens == 50


def test_a_model_that_calls_the_limit_otherwise_and_takes_no_temperature_is_asked_in_its_words(
    server: RuleServer, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reply(request: ChatRequest, fault: FaultName | None) -> Reply:
        for param in ("max_tokens", "temperature"):
            if param in request.body:
                error = {"message": f"Unsupported parameter: {param!r}", "code": "unsupported", "param": param}
                return Reply(400, json.dumps({"error": error}).encode())
        return answer(request, fault)

    answer = server._reply
    monkeypatch.setattr(server, "_reply", reply)
    assert len(ask(endpoint, n=6)) == 6
    assert server.requests[-1].body["max_completion_tokens"] == 50


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (403, {"message": "You are not allowed to request logprobs from this model", "param": None}),
        (400, {"message": "Unsupported parameter", "param": "top_logprobs"}),
    ],
)
def test_an_endpoint_that_gives_no_logprobs_is_asked_without(
    server: RuleServer, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, status: int, error: dict[str, str | None]
) -> None:
    def reply(request: ChatRequest, fault: FaultName | None) -> Reply:
        is_refused = "top_logprobs" in request.body or "logprobs" in request.body
        return Reply(status, json.dumps({"error": error}).encode()) if is_refused else answer(request, fault)

    answer = server._reply
    monkeypatch.setattr(server, "_reply", reply)
    assert [completion.logprobs for completion in ask(endpoint, n=4, top_logprobs=5)] == [None] * 4
    assert "top_logprobs" not in server.requests[-1].body


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert read_retry_after(headers) == seconds


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error": {"message": "request (9000 tokens) exceeds the available context size"}}, ContextTooLong),
        (400, {"error": {"message": "…", "code": "content_policy_violation"}}, RefusedByModel),
        (403, {"error": {"message": "your input was flagged"}}, RefusedByModel),
        (403, {"error": {"message": "no"}}, EndpointError),
        (402, {"error": {"message": "Insufficient Balance"}}, EndpointError),
        (400, {"error": {"message": "x/y is not a valid model ID", "code": 400}}, AskError),
        (400, {"error": {"message": "model x/y is not a valid model"}}, EndpointError),
        (404, "<html>not here</html>", EndpointError),
        (529, None, TransientError),
        (503, ["?"], TransientError),
        (418, {"detail": [{"msg": "wrong"}]}, AskError),
    ],
)
def test_what_other_endpoints_say_is_understood(status: int, body: object, kind: type[Exception]) -> None:
    assert type(judge(status, body, {}, Asked("http://host/v1", "m"))) is kind


def test_an_endpoint_that_wants_too_long_a_pause_is_not_waited_for(server: RuleServer, endpoint: Endpoint) -> None:
    server.retry_after = 3600.0
    server.play("429")
    began = time.monotonic()
    with pytest.raises(EndpointError, match=r"wants to be left alone for 3,600 s, longer than --patience"):
        ask(endpoint)
    assert time.monotonic() - began < 30
