"""What an endpoint sends back: a body of bytes to a completion, or to the reason why it is none.

An endpoint may repeat the key. Here it is hidden, in whole texts, before anything is cut from them.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from warehouse.explain.chat import AskError, BadAnswer, Completion, Refused, TokenLogprob
from warehouse.explain.endpoint import Asked

MOST_BYTES = 16 * 2**20
"""Of an answer: 20 log-probabilities at each of 4,096 tokens take a third of it."""
_SHOWN, _SHOWN_REFUSAL = 60, 300
"""Characters of an answer that an error shows."""
_TOO_MANY = 10**9
"""Tokens of one request: a count from there on is no count."""


class _Candidate(msgspec.Struct):
    token: str
    logprob: float


class _Token(msgspec.Struct):
    token: str
    logprob: float
    top_logprobs: list[_Candidate] | None = None


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None


class _Reply(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Reply
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Body(msgspec.Struct):
    """The part of a chat completion that is read; `error` is what some proxies send in place of one."""

    choices: list[_Choice] | None = None
    model: str | None = None
    usage: _Usage | None = None
    error: msgspec.Raw | None = None


_decoder = msgspec.json.Decoder(Body)


def decode_body(data: bytes, asked: Asked) -> Body:
    """Read a body; its texts are as the endpoint sent them.

    Args:
        data: all of the body.
        asked: who was asked.

    Raises:
        BadAnswer: it is no JSON of a chat completion.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        start = " ".join(asked.hide(data.decode("utf-8", "replace")).split())[:_SHOWN]
        raise BadAnswer(f"the answer is no chat completion ({e}), it begins {start!r}") from e


def count_tokens(body: Body) -> tuple[int, int] | None:
    """Give the tokens of prompt and answer as the endpoint counted them, None where it does not say."""
    usage = body.usage
    counts = (None, None) if usage is None else (usage.prompt_tokens, usage.completion_tokens)
    prompt, completion = (count if count is not None and 0 <= count < _TOO_MANY else None for count in counts)
    return None if prompt is None or completion is None else (prompt, completion)


def read_completion(body: Body, asked: Asked) -> Completion | AskError:
    """Give what a body says, or the reason why it says nothing; the error is not raised, as it may have been paid for.

    Args:
        body: as the endpoint sent it.
        asked: who was asked. Of an answer that repeats the key, the log-probabilities are left out.
    """
    if not body.choices:
        return BadAnswer("the answer has no choices")
    choice = body.choices[0]
    if choice.finish_reason == "content_filter":
        return Refused("the endpoint's content filter withheld the answer")
    text = choice.message.content or ""
    if choice.message.refusal and not text.strip():
        refusal = " ".join(asked.hide(choice.message.refusal).split())
        return Refused(f"the model declines: {refusal[:_SHOWN_REFUSAL]}")
    prompt_tokens, completion_tokens = count_tokens(body) or (0, 0)
    if not text.strip():
        is_cut = choice.finish_reason == "length"
        why = f", as all of its {completion_tokens:,} tokens went elsewhere, into reasoning perhaps" if is_cut else ""
        return BadAnswer(f"the answer is empty{why}")
    shown = asked.hide(text)
    tokens = choice.logprobs.content if choice.logprobs else None
    if tokens is not None and (shown != text or _has_key(tokens, asked)):
        tokens = None
    return Completion(
        text=shown,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        model=asked.hide(body.model or asked.model),
        logprobs=None if tokens is None else tuple(map(_read_token, tokens)),
        is_cut=choice.finish_reason == "length",
    )


def _has_key(tokens: Sequence[_Token], asked: Asked) -> bool:
    """Say whether tokens hold the key, or make it up together."""
    texts = [
        "".join(token.token for token in tokens),
        *(text for token in tokens for text in (token.token, *(each.token for each in token.top_logprobs or ()))),
    ]
    return any(asked.hide(text) != text for text in texts)


def _read_token(token: _Token) -> TokenLogprob:
    return TokenLogprob(token.token, token.logprob, {each.token: each.logprob for each in token.top_logprobs or ()})
