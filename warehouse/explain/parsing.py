"""What a language model's answers say: the text without its thinking, numbers for tokens, yes or no for texts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import islice
from math import exp
from typing import TypeAlias

import numpy as np

from warehouse.explain.chat import Completion, TokenLogprob
from warehouse.explain.prompts import SCALE, escape, to_one_line
from warehouse.explain.protocols import UnusableAnswer
from warehouse.explain.scores import Values

MOST_MISSING = 0.1
"""Part of a text's tokens for which an answer may lack a number; they count as 0, which is what most tokens are."""

_THINKING = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.S)
_NUMBER = re.compile(r"(?<![\d.])\d{1,2}(?:\.\d{1,6})?$", re.A)
_SINGLE = re.compile(r"(?<![\d.])[01](?!\d|\.\d)", re.ASCII)
_CHOICES = re.compile(r"\[[\s01,]*\]")
_LONGEST_END = 40
_MOST_LINES_BESIDE = 100
"""Lines that an answer may have beside those that were asked for; twice each token's line is looked at too."""
_SHOWN = 60


def read_text(completion: Completion) -> str:
    """Give what a model says without what it thought aloud, as reasoning models do between tags.

    Raises:
        UnusableAnswer: nothing is left.
    """
    text = _hide_thinking(completion.text).strip()
    if not text:
        raise _unusable("nothing but thoughts" if completion.text.strip() else "nothing", completion)
    return text


def read_numbers(completion: Completion, tokens: Sequence[str]) -> Values:
    """Read a number from 0 to 10 for each token from `token<TAB>number` lines.

    Lines are matched with tokens in their order, so that a line that was left out, or put in, moves no other. Where
    the answer has log-probabilities and a number is one token of it, the number is the expected value over what the
    model might have written there.

    Args:
        completion: the answer to `ask_to_simulate`.
        tokens: [n_tokens] that were asked about.

    Returns:
        [n_tokens] values.

    Raises:
        UnusableAnswer: more than a tenth of the tokens have no number.
    """
    for text, logprobs in _read_sources(completion):
        values = _match_numbers(text, logprobs, [escape(token).strip() for token in tokens])
        is_missing = np.isnan(values)
        if is_missing.sum() <= MOST_MISSING * len(tokens):
            values[is_missing] = 0.0
            return values
    raise _unusable(f"no number for {is_missing.sum()} of {len(tokens)} tokens", completion)


def read_choices(completion: Completion, n: int) -> tuple[list[int], list[float] | None]:
    """Read a JSON list of zeros and ones, or a single one where one is asked for.

    Returns:
        [n] choices, and [n] probabilities of 1, or None where the answer has no log-probabilities for them.

    Raises:
        UnusableAnswer: there is no list of n such numbers.
    """
    for text, logprobs in _read_sources(completion):
        if found := _find_choices(text, n):
            choices, places = found
            return choices, _find_probabilities(places, logprobs)
    raise _unusable(f"no list of {n} zeros and ones" if n > 1 else "neither 0 nor 1", completion)


def expect_number(top: Mapping[str, float]) -> float | None:
    """Give the expected value over the numbers from 0 to 10 among the likeliest tokens, or None where there are none.

    Args:
        top: log-probabilities by token; what is no such number is left out, and the rest made up to 1.

    Source: expected values as in AI neuron_explainer/explanations/simulator.py
    """
    weights: dict[int, float] = {}
    for token, logprob in top.items():
        text = token.strip()
        if text.isascii() and text.isdigit() and len(text) <= 2 and int(text) <= SCALE:
            weights[int(text)] = weights.get(int(text), 0.0) + exp(min(logprob, 0.0))
    total = sum(weights.values())
    return sum(number * weight for number, weight in weights.items()) / total if total > 0 else None


Logprobs: TypeAlias = Sequence[TokenLogprob] | None


def _read_sources(completion: Completion) -> Iterator[tuple[str, Logprobs]]:
    """Give the answer without its thoughts, first put together from the tokens of its log-probabilities, then as it is.

    In the first, places of characters and of tokens agree. But some endpoints name a tab `<0x09>` there, or leave out
    spaces: then the second may be readable where the first is not.
    """
    if completion.logprobs:
        yield _hide_thinking("".join(each.token for each in completion.logprobs)), completion.logprobs
    yield _hide_thinking(completion.text), None


def _match_numbers(text: str, logprobs: Logprobs, tokens: Sequence[str]) -> Values:
    """Give [n_tokens] numbers from the lines of an answer, NaN where a token has none."""
    lines = list(islice(_find_lines(text), 2 * len(tokens) + _MOST_LINES_BESIDE))
    said = _expect_numbers(lines, logprobs)
    values = np.full(len(tokens), np.nan)
    matcher = SequenceMatcher(None, [line.token for line in lines], tokens, autojunk=False)
    for kind, line_start, line_end, token_start, token_end in matcher.get_opcodes():
        # Tokens that are spelt in another way, but as many of them, are still those tokens.
        if kind == "equal" or (kind == "replace" and line_end - line_start == token_end - token_start):
            values[token_start:token_end] = said[line_start:line_end]
    return values


def _find_choices(text: str, n: int) -> tuple[list[int], list[int]] | None:
    """Find n choices and the place of each."""
    # The last such list: some models repeat the question, or think aloud, before they answer.
    for match in reversed(list(_CHOICES.finditer(text))):
        try:
            choices = json.loads(match[0])
        except ValueError:
            continue
        if len(choices) == n:
            return choices, [match.start() + place.start() for place in re.finditer("[01]", match[0])]
    single = list(_SINGLE.finditer(text))
    if n == 1 and len({match[0] for match in single}) == 1:
        return [int(single[0][0])], [single[0].start()]
    return None


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of an answer: the token as written, the number, and the place of the number in the whole text."""

    token: str
    number: str
    place: int


def _find_lines(text: str) -> Iterator[_Line]:
    """Give the lines that end in a number from 0 to 10 after a tab, however it is written, or a space."""
    for line in re.finditer(r"[^\n]+", text):
        # Only the end is looked at, however long a line a model was made to write.
        start, tail = max(line.start(), line.end() - _LONGEST_END), line[0][-_LONGEST_END:]
        number = _NUMBER.search(tail.rstrip())
        if number is None or float(number[0]) > SCALE:
            continue
        place = start + number.start()
        before = text[line.start() : place]
        if before.endswith(("\t", "\\t", " ")):
            yield _Line(before.strip().removesuffix("\\t").strip(), number[0], place)


def _expect_numbers(lines: Sequence[_Line], logprobs: Logprobs) -> Values:
    """Give [n_lines] what each line says, by log-probabilities where its number is one token."""
    at = dict(_find_tokens([line.place for line in lines], logprobs))
    values = []
    for line in lines:
        token = at.get(line.place)
        is_whole = token is not None and token.token.strip() == line.number
        expected = expect_number(token.top) if token is not None and is_whole else None
        values.append(float(line.number) if expected is None else expected)
    return np.array(values, np.float64)


def _find_probabilities(places: Sequence[int], logprobs: Logprobs) -> list[float] | None:
    """Give the probability of 1 at each place, or None where one has no token of its own."""
    probabilities = []
    at = dict(_find_tokens(places, logprobs))
    for place in places:
        token = at.get(place)
        if token is None or len(_read_digit(token.token)) != 1:
            return None
        mass = {"0": 0.0, "1": 0.0}
        for candidate, logprob in token.top.items():
            if (digit := _read_digit(candidate)) in mass:
                mass[digit] += exp(min(logprob, 0.0))
        if mass["0"] + mass["1"] == 0:
            return None
        probabilities.append(mass["1"] / (mass["0"] + mass["1"]))
    return probabilities


def _read_digit(token: str) -> str:
    """Give what a token of a list holds besides punctuation, as some tokenisers join a digit with its comma."""
    return token.strip(" \t\r\n,[]")


def _find_tokens(places: Sequence[int], logprobs: Logprobs) -> Iterator[tuple[int, TokenLogprob]]:
    """Give the token that each place (ascending, in characters of all tokens put together) lies in."""
    start, waiting = 0, iter(places)
    place = next(waiting, None)
    for token in logprobs or ():
        end = start + len(token.token)
        while place is not None and place < end:
            yield place, token
            place = next(waiting, None)
        start = end


def _hide_thinking(text: str) -> str:
    """Blank out thoughts, leaving every other character in its place."""
    text = _THINKING.sub(lambda match: " " * len(match[0]), text)
    # Some chat templates open the tag themselves, so that the answer has only its end.
    thoughts, end, answer = text.rpartition("</think>")
    return " " * len(thoughts + end) + answer


def _unusable(what: str, completion: Completion) -> UnusableAnswer:
    start = to_one_line(completion.text[: 10 * _SHOWN])[:_SHOWN]
    cut = ", and was cut at its longest" if completion.is_cut else ""
    return UnusableAnswer(f"the model's answer has {what}{cut}; it begins {start!r}")
