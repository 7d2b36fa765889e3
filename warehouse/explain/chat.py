"""What an explainer or a scorer asks of a language model, and what it gets: the messages, the answer, the protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from warehouse.errors import WarehouseError

Role: TypeAlias = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token of an answer, as the model gave it.

    Attributes:
        token: its text.
        logprob: natural logarithm of its probability.
        top: the likeliest tokens at its place with theirs, as many as were asked for; among them, mostly, itself.
    """

    token: str
    logprob: float
    top: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer of a model.

    Attributes:
        text: what it said, never empty.
        prompt_tokens: tokens of the request, as the endpoint counted them; 0 where it does not say.
        completion_tokens: tokens of the answer, likewise.
        model: the model as the endpoint names it, which may be more exact than the name that was asked for.
        logprobs: one for each token of the answer, or None where they were not asked for or not given.
        is_cut: whether the answer was cut at `max_tokens`.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    model: str
    logprobs: tuple[TokenLogprob, ...] | None = None
    is_cut: bool = False


class Chat(Protocol):
    """Answers conversations: an endpoint, with all that bounds, counts and keeps what it is asked."""

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        top_logprobs: int = 0,
        purpose: str = "",
    ) -> Completion:
        """Ask for the next message of a conversation.

        Args:
            messages: the conversation so far, oldest first.
            max_tokens: tokens that the answer may have.
            temperature: 0 for the likeliest answer.
            top_logprobs: how many of the likeliest tokens to give at each place of the answer, at most 20; with 0, no
                log-probabilities are asked for.
            purpose: what it is for (`explain`, `simulation`, …), for counting; it changes no answer.

        Raises:
            AskError: the endpoint has no answer to this; others may yet be answered.
            EndpointError: the endpoint answers nothing at all, now or with what it was given.
            OutOfBudget: asking might cost more than what is left.
        """
        ...


class AskError(WarehouseError):
    """One request has no answer; the unit that it was for fails, and the rest goes on.

    Attributes:
        status: what happened to the unit in one word, as `answers.status` has it: failed or refused.
    """

    status = "failed"


class ContextTooLong(AskError):
    """A prompt is longer than the model's context."""


class Refused(AskError):
    """The model, or a filter before or behind it, declines to answer."""

    status = "refused"


class BadAnswer(AskError):
    """An answer is no JSON of a chat completion, has no choices, or is empty."""


class EndpointError(WarehouseError):
    """The endpoint will answer nobody: a wrong key, no such model, or nobody there. The run stops."""


class OutOfBudget(WarehouseError):
    """What is left of the budget may not pay for the next request. The run stops, with what was done kept."""
