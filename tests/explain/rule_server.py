"""An OpenAI-compatible server on the loopback that answers by rule (`rules.py`), and fails when it is told to."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from socket import SO_LINGER, SOL_SOCKET
from struct import pack
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from tests.explain import rules
from tests.listening import Listening, listening

FaultName: TypeAlias = Literal[
    "429",  # too many requests; Retry-After as `retry_after` says
    "quota",  # 429 as well, but no waiting helps: the account is empty
    "500",
    "503",
    "400",  # the request is wrong, whatever that means
    "context",  # 400: the prompt is too long
    "401",
    "404",
    "hang",  # no answer, until the client goes away
    "cut",  # the connection breaks before the answer
    "half",  # the connection breaks in the middle of the answer
    "refusal",  # the model declines: message.refusal
    "content_filter",  # a filter declines: finish_reason
    "malformed",  # 200, and broken JSON
    "html",  # 200, and a page of a proxy
    "empty",  # no choices
    "blank",  # an answer of white space
    "null",  # an answer of null
    "other",  # an answer in words that is no answer to what was asked
    "thinking",  # an answer cut while it was still thinking
    "error",  # 200, and an error in the body, as some proxies have it
    "no usage",  # an answer without its token counts
    "no logprobs",  # an answer without log-probabilities, though they were asked for
]

_ERRORS: dict[str, tuple[int, str, str]] = {
    "429": (429, "rate_limit_exceeded", "Rate limit reached"),
    "quota": (429, "insufficient_quota", "You exceeded your current quota"),
    "500": (500, "server_error", "The server had an error"),
    "503": (503, "overloaded", "The engine is overloaded"),
    "400": (400, "invalid_request_error", "Something about this request is wrong"),
    "context": (400, "context_length_exceeded", "This model's maximum context length is 4096 tokens"),
    "401": (401, "invalid_api_key", "Incorrect API key provided"),
    "404": (404, "model_not_found", "The model does not exist"),
}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request that came.

    Attributes:
        path: as the client wrote it.
        headers: by their name in lower case.
        body: the decoded JSON; empty for GET.
        time: when it came, in seconds of `time.monotonic`.
    """

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    time: float

    @property
    def question(self) -> str:
        """What the last message says."""
        return str(self.body["messages"][-1]["content"])


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: its status, headers and body."""

    status: int
    body: bytes
    headers: Mapping[str, object] = field(default_factory=dict)


@dataclass
class RuleServer(Listening):
    """A model that is served.

    Attributes:
        key: what must be sent as bearer token, or None where anybody is let in.
        models: that it has.
        answer: what it says to a conversation, by default by rule.
        delay: seconds that every answer takes.
        retry_after: what 429 says of itself, None for nothing.
        requests: completions that were asked for, in their order, whatever came of them.
        most_at_once: the largest number of completions that were under way together.
    """

    limit: ClassVar[int] = 2**20
    key: str | None = None
    models: tuple[str, ...] = ("rule-1",)
    answer: Callable[[list[dict[str, str]]], str] = rules.answer
    delay: float = 0.0
    retry_after: float | None = 0.05
    requests: list[ChatRequest] = field(default_factory=list)
    most_at_once: int = 0
    _faults: deque[FaultName] = field(default_factory=deque)
    _under_way: int = 0

    @property
    def url(self) -> str:
        """The base URL, as a client wants it."""
        return f"{self.origin}/v1"

    def play(self, fault: FaultName, times: int = 1) -> None:
        """Answer the next completions badly, after those that are already to be answered badly."""
        assert fault in get_args(FaultName), fault
        self._faults.extend([fault] * times)

    def forget(self) -> None:
        """Forget the requests that came, and the faults that were still to be played."""
        self.requests.clear()
        self._faults.clear()
        self.most_at_once = 0

    async def respond(
        self, target: str, headers: Mapping[str, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        data = await reader.readexactly(int(headers.get("content-length", 0)))
        await self._answer(ChatRequest(target, headers, json.loads(data or b"{}"), time.monotonic()), reader, writer)

    async def _answer(self, request: ChatRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault: FaultName | None = None
        self._under_way += 1
        try:
            if request.path.endswith("/chat/completions"):
                self.requests.append(request)
                self.most_at_once = max(self.most_at_once, self._under_way)
                fault = self._faults.popleft() if self._faults else None
                await asyncio.sleep(self.delay)
            if fault == "hang":
                await reader.read(1)  # ends when the client closes
                return
            if fault == "cut":
                writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, pack("ii", 1, 0))
                writer.transport.abort()
                return
            reply = self._reply(request, fault)
        finally:
            self._under_way -= 1
        headers = {"Content-Type": "application/json", "Content-Length": len(reply.body), **reply.headers}
        lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}", *(f"{n}: {headers[n]}" for n in headers)]
        body = reply.body[: len(reply.body) // 2] if fault == "half" else reply.body
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        await writer.drain()
        if fault == "half":
            writer.close()

    def _reply(self, request: ChatRequest, fault: FaultName | None) -> Reply:
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return self._fail("401")
        if request.path == "/v1/models":
            return _json({"object": "list", "data": [{"id": model, "object": "model"} for model in self.models]})
        if request.path != "/v1/chat/completions":
            return Reply(404, b'{"detail": "Not Found"}')
        if request.body["model"] not in self.models:
            return self._fail("404")
        if fault in _ERRORS:
            return self._fail(fault)
        match fault:
            case "malformed":
                return Reply(200, b'{"id": "chatcmpl-1", "choices": [{"mess')
            case "html":
                return Reply(200, b"<!DOCTYPE html><html><body><h1>Sign in to the network</h1></body></html>")
            case "error":
                return _json({"error": {"message": "upstream provider failed", "code": 502}})
        return _json(self._complete(request.body, fault))

    def _fail(self, fault: str) -> Reply:
        status, code, message = _ERRORS[fault]
        headers = {"Retry-After": self.retry_after} if fault == "429" and self.retry_after is not None else {}
        return _json({"error": {"message": message, "type": code, "code": code}}, status, headers)

    def _complete(self, body: Mapping[str, Any], fault: FaultName | None) -> dict[str, Any]:
        """Give a chat completion, with what is wrong with it."""
        text: str | None = self.answer(body["messages"])
        finish_reason, refusal = "stop", None
        match fault:
            case "refusal":
                text, refusal = None, "I'm sorry, I can't help with that."
            case "content_filter":
                text, finish_reason = None, "content_filter"
            case "blank":
                text = " \n"
            case "null":
                text = None
            case "other":
                text = "What a lovely question! Let us talk about the weather instead."
            case "thinking":
                text, finish_reason = "<think>The first token is", "length"
        tokens = rules.split_tokens(text or "")
        choice = {"index": 0, "message": {"role": "assistant", "content": text, "refusal": refusal}}
        is_asked = body.get("logprobs") and fault != "no logprobs"
        choice["logprobs"] = {"content": _list_logprobs(tokens, body.get("top_logprobs") or 0)} if is_asked else None
        choice["finish_reason"] = finish_reason
        prompt_tokens = sum(math.ceil(len(message["content"]) / 4) for message in body["messages"])
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": len(tokens),
            "total_tokens": prompt_tokens + len(tokens),
        }
        completion = {"id": f"chatcmpl-{len(self.requests)}", "object": "chat.completion", "created": int(time.time())}
        return {
            **completion,
            "model": body["model"],
            "choices": [] if fault == "empty" else [choice],
            **({} if fault == "no usage" else {"usage": usage}),
        }


def _list_logprobs(tokens: list[str], n: int) -> list[dict[str, Any]]:
    listed = []
    for token in tokens:
        logprob, top = rules.give_logprobs(token, n)
        top_logprobs = [{"token": each, "logprob": value, "bytes": None} for each, value in top.items()]
        listed.append({"token": token, "logprob": logprob, "bytes": None, "top_logprobs": top_logprobs})
    return listed


def _json(content: object, status: int = 200, headers: Mapping[str, object] | None = None) -> Reply:
    return Reply(status, json.dumps(content).encode(), headers or {})


@contextmanager
def serve_rules(
    key: str | None = None,
    models: tuple[str, ...] = ("rule-1",),
    answer: Callable[[list[dict[str, str]]], str] = rules.answer,
) -> Iterator[RuleServer]:
    """Serve a model that answers by rule until the end of the block."""
    with listening(RuleServer(key, models, answer)) as server:
        yield server
