"""An OpenAI-compatible endpoint as a `Chat`: vLLM, llama.cpp, OpenAI or any other that has chat/completions.

How often, how fast and how patiently it is asked is decided here, for all requests together; the `openai` package
sends one request once. A key comes from the environment and goes nowhere but into a header: every foreign exception
becomes one of our own before it is raised, as its text, and those that it hangs on, may hold what was sent.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import httpx2
import msgspec
import openai

from warehouse.errors import WarehouseError
from warehouse.explain.budget import Budget, Usage, bound_usage, estimate_prompt_tokens
from warehouse.explain.chat import AskError, BadAnswer, Completion, EndpointError, Message, Refused
from warehouse.explain.endpoint import Endpoint, identify
from warehouse.explain.failures import TransientError, judge, shorten
from warehouse.explain.replies import MOST_BYTES, Body, count_tokens, decode_body, read_completion

_LONGEST_PAUSE = 30.0
_DIALECTS: dict[str, str | None] = {
    "max_tokens": "max_completion_tokens",
    "temperature": None,
    "logprobs": None,
    "top_logprobs": None,
}
"""What OpenAI's reasoning models call otherwise, or do not take."""
_FIRST_ATTEMPTS = 3
"""Attempts to reach an endpoint that has never answered: it is more likely not there than busy."""
_BUSY_ATTEMPTS = 4
"""Times the attempts for a request that a busy endpoint puts off while it answers others."""
_FIRST_REFUSALS = 20
"""Requests that an endpoint may refuse before it has answered any."""


class Pace:
    """Lets through so much a minute, evenly."""

    def __init__(self, per_minute: float | None) -> None:
        self._seconds_each = 0.0 if per_minute is None else 60.0 / per_minute
        self._free_at = time.monotonic()

    def take(self, amount: float) -> float:
        """Take a turn, and give the seconds until it comes."""
        now = time.monotonic()
        turn = max(self._free_at, now)
        self._free_at = turn + amount * self._seconds_each
        return turn - now

    def give_back(self, amount: float) -> None:
        """Say that so much less than what was taken came of a turn; negative for more."""
        self._free_at -= amount * self._seconds_each


class Client:
    """Asks one endpoint, until something happens after which no request is of use; a `Chat`.

    Used as a context manager, on one event loop.
    """

    def __init__(self, endpoint: Endpoint, budget: Budget) -> None:
        """Open an endpoint; nothing is sent yet.

        Args:
            endpoint: which, and how to ask it.
            budget: what the requests may cost, which also counts what they did.

        Raises:
            EndpointError: the key can be none, or the variable that was named for it is not set.
        """
        self._endpoint = endpoint
        self._budget = budget
        self._asked = identify(endpoint)
        self._openai = openai.AsyncOpenAI(
            api_key=self._asked.key or "none",
            base_url=self._asked.url,
            max_retries=0,
            timeout=endpoint.timeout_seconds,
        )
        self._headers = {} if self._asked.key else {"Authorization": openai.omit}
        self._dialect: dict[str, str | None] = {}
        self._slots = asyncio.Semaphore(endpoint.concurrency)
        self._requests, self._tokens = Pace(endpoint.requests_per_minute), Pace(endpoint.tokens_per_minute)
        self._resume_at = 0.0
        self._n_answered = self._n_refused = 0
        self._is_there = False
        self._failing_since: float | None = None
        self._stopped_by: WarehouseError | None = None
        self._has_stopped = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._openai.close()

    @property
    def stopped_by(self) -> WarehouseError | None:
        """Why no further request is sent, None where they are."""
        return self._stopped_by

    def hide(self, text: str) -> str:
        """Give a whole text without the key."""
        return self._asked.hide(text)

    def stop(self, reason: WarehouseError) -> None:
        """Send no further request; those under way are waited for, as they are paid for."""
        if self._stopped_by is None:
            self._stopped_by = reason
            self._has_stopped.set()

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        top_logprobs: int = 0,
        purpose: str = "",
    ) -> Completion:
        """Ask for the next message of a conversation, again where that may help.

        Raises:
            AskError: there is no answer to this; others may yet be answered.
            EndpointError: the endpoint answers nothing; from then on, nothing is sent.
            OutOfBudget: asking might cost more than what is left; likewise.
        """
        request: dict[str, Any] = {
            "model": self._endpoint.model,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "max_tokens": max_tokens,
            "temperature": temperature,
        }
        if top_logprobs:
            request |= {"logprobs": True, "top_logprobs": top_logprobs}
        bound, about = bound_usage(messages, max_tokens), estimate_prompt_tokens(messages) + max_tokens
        async with self._slots:
            n_failed, n_answered = 0, self._n_answered
            while True:
                await self._wait_for_turn(about)
                try:
                    return await self._ask(request, bound, about)
                except TransientError as e:
                    failure = e
                except AskError:
                    raise
                except WarehouseError as e:
                    self.stop(e)
                    raise
                n_failed += 1
                if error := self._judge_failure(failure, n_failed, self._n_answered > n_answered):
                    raise error
                pause = min(self._endpoint.backoff_seconds * 2 ** min(n_failed - 1, 16), _LONGEST_PAUSE)
                await self._sleep(random.uniform(pause / 2, pause))  # noqa: S311  (jitter, no secret)

    async def _ask(self, request: dict[str, Any], bound: Usage, about: int) -> Completion:
        """Ask once, within the budget."""
        async with self._budget.reserve(bound) as reservation:
            self._raise_if_stopped()  # while it waited for others to leave something of the budget
            body = await self._send(request)
            if isinstance(body, TransientError):
                if body.is_lost:
                    reservation.settle(None)
                raise body
            if isinstance(body, WarehouseError):
                raise self._count_refusal(body)
            counted = count_tokens(body)
            used = None if counted is None else Usage(*counted)
            reservation.settle(used)
        self._tokens.give_back(about - used.tokens if used else 0)
        self._failing_since = None
        self._n_answered += 1
        if overdraft := self._budget.find_overdraft():
            self.stop(overdraft)  # this answer is paid for, and kept
        completion = read_completion(body, self._asked)
        if isinstance(completion, AskError):
            raise completion
        return completion

    async def _send(self, request: dict[str, Any]) -> Body | TransientError | WarehouseError:
        """Send one request once; errors are given back, so that none of ours hangs on a foreign one."""
        data, spoken = bytearray(), self._translate(request) | {"extra_headers": self._headers}
        try:
            async with (
                asyncio.timeout(self._endpoint.timeout_seconds),
                self._openai.chat.completions.with_streaming_response.create(**spoken) as response,
            ):
                self._is_there = True
                async for piece in response.iter_bytes():
                    data += piece
                    if len(data) > MOST_BYTES:
                        return TransientError(f"the answer is longer than {MOST_BYTES:,} bytes", is_lost=True)
            body = decode_body(bytes(data), self._asked)
        except openai.APIStatusError as e:
            self._is_there = True
            if unknown := [name for name in _DIALECTS if name in spoken and _is_rejected(name, e)]:
                self._dialect |= {name: _DIALECTS[name] for name in unknown}
                return TransientError(f"it does not take {' and '.join(unknown)}", is_busy=True)
            return judge(e.status_code, e.body, e.response.headers, self._asked)
        except (TimeoutError, openai.APITimeoutError):
            return TransientError(f"no answer within {self._endpoint.timeout_seconds:g} s", is_lost=True)
        except openai.APIConnectionError as e:
            reason = shorten(self._asked.hide(str(e.__cause__ or e)))
            return TransientError(reason, is_busy=True, is_lost=not isinstance(e.__cause__, httpx2.ConnectError))
        except (httpx2.HTTPError, httpx2.StreamError) as e:
            return TransientError(f"the answer broke off: {type(e).__name__}", is_busy=True, is_lost=True)
        except BadAnswer as e:
            return TransientError(str(e), is_lost=True)
        if body.error is not None and not body.choices:
            return self._judge_body(body.error)
        return body

    def _translate(self, request: dict[str, Any]) -> dict[str, Any]:
        """Give a request in the words that this endpoint knows."""
        named = {self._dialect.get(name, name): value for name, value in request.items()}
        return {name: value for name, value in named.items() if name is not None}

    def _count_refusal(self, error: WarehouseError) -> WarehouseError:
        """Give an error, or one that stops the run where nothing but such errors ever came."""
        if not isinstance(error, AskError) or isinstance(error, Refused) or self._n_answered:
            return error
        self._n_refused += 1
        if self._n_refused < _FIRST_REFUSALS:
            return error
        return EndpointError(f"{self._asked.url} has refused all of {self._n_refused} requests, the last so: {error}")

    def _judge_body(self, raw: msgspec.Raw) -> TransientError | WarehouseError:
        """Say what an error in the body of a good status means: proxies put the status of who is behind them there."""
        error = msgspec.json.decode(raw)
        code = error.get("code") if isinstance(error, dict) else None
        return judge(code if isinstance(code, int) and 400 <= code < 600 else 500, error, {}, self._asked)

    def _judge_failure(self, failure: TransientError, n_failed: int, is_answering: bool) -> WarehouseError | None:
        """Say whether to give up after a failure: None to ask again, or the error to end with."""
        options, now = self._endpoint, time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        silent_for = now - self._failing_since
        wait = failure.retry_after or 0.0
        self._resume_at = max(self._resume_at, now + wait)
        if failure.is_busy and not self._is_there and n_failed >= min(_FIRST_ATTEMPTS, options.attempts):
            error = EndpointError(f"nobody answers at {self._asked.url}: {failure.reason}")
        elif wait > options.patience_seconds:
            error = EndpointError(
                f"{self._asked.url} wants to be left alone for {wait:,.0f} s, longer than --patience: {failure.reason}"
            )
        elif silent_for > options.patience_seconds:
            error = EndpointError(f"{self._asked.url} has answered nothing for {silent_for:,.0f} s: {failure.reason}")
        elif n_failed >= options.attempts * (_BUSY_ATTEMPTS if failure.is_busy else 1) and (
            is_answering or not failure.is_busy
        ):
            return AskError(f"no answer after {n_failed} attempts: {failure.reason}")
        else:
            return None
        self.stop(error)
        return error

    async def _wait_for_turn(self, about: int) -> None:
        """Wait until the endpoint wants to be asked, and the rates allow it."""
        await self._sleep(max(self._requests.take(1), self._tokens.take(about)))
        while (pause := self._resume_at - time.monotonic()) > 0:
            await self._sleep(pause)
        self._raise_if_stopped()

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but no longer than requests are sent."""
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._has_stopped.wait(), seconds)
        self._raise_if_stopped()

    def _raise_if_stopped(self) -> None:
        if self._stopped_by is not None:
            raise type(self._stopped_by)(str(self._stopped_by))


def _is_rejected(name: str, error: openai.APIStatusError) -> bool:
    """Say whether an endpoint does not take a parameter; of log-probabilities some say so by 403 or in words."""
    if name.endswith("logprobs"):
        return error.status_code in (400, 403, 422) and "logprobs" in f"{error.param} {error.message}"
    return error.status_code == 400 and error.param == name
