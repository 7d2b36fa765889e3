"""A language model that answers by rule: what it explains and scores is right exactly where an explanation is.

It reads the prompts of `warehouse.explain.prompts`. An explanation names tokens as JSON strings (`the tokens " king"`),
or pairs (`attends from " she" to " Anna"`), and applies wherever one of them is.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from warehouse.explain import prompts

_STRING = r'"(?:[^"\\]|\\.)*"'
_PAIR = re.compile(rf"from ({_STRING}) to ({_STRING})")
_LINE = re.compile(r"^(.*)\t(\d+|\?)$", re.M)
_TEXT = re.compile(r"^Text(?: \d+)?: (.*)$", re.M)
_MARKED = re.compile("{}(.*?){}".format(*prompts.MARK))
_KEY = re.compile("{}(.*?){}".format(*prompts.KEY_MARK))
_MOST_NAMED = 8
_SURE = 0.9
"""Probability of the answer in its log-probabilities."""


def name_tokens(tokens: Iterable[str]) -> str:
    """Explain a neuron or a latent: it responds to these tokens."""
    return f"the tokens {', '.join(map(_quote, tokens))}"


def name_pairs(pairs: Iterable[tuple[str, str]]) -> str:
    """Explain a head: it attends from each of these queries to its key."""
    return "attends " + ", ".join(f"from {_quote(query)} to {_quote(key)}" for query, key in pairs)


def answer(messages: Sequence[Mapping[str, str]]) -> str:
    """Answer a conversation."""
    system, question = messages[0]["content"], messages[-1]["content"]
    explanation, _, rest = question.partition("\n")
    match system:
        case prompts.EXPLAIN_TOKENS:
            return _explain_tokens(question)
        case prompts.EXPLAIN_PAIRS:
            return _explain_pairs(question)
        case prompts.SIMULATE:
            return _simulate(_read_tokens(explanation), rest)
        case prompts.DETECT:
            named = _read_tokens(explanation)
            return json.dumps([int(_has_one(prompts.unescape(text), named)) for text in _TEXT.findall(rest)])
        case prompts.FUZZ:
            named = _read_tokens(explanation)
            return json.dumps([int(_is_marked_right(text, named)) for text in _TEXT.findall(rest)])
        case prompts.DETECT_PAIR:
            return str(int(_read_pair(rest) in _read_pairs(explanation)))
    return f"I answer by rule, and have none for {question[:20]!r}"


def split_tokens(text: str) -> list[str]:
    """Split an answer into tokens as a model does that has every number and every space as one."""
    return re.findall(r"\d+|[^\d\s]+|\s", text)


def give_logprobs(token: str, n: int) -> tuple[float, dict[str, float]]:
    """Give a token's log-probability and the n likeliest at its place: of a number also the next smaller one."""
    if not token.isdigit():
        return 0.0, {token: 0.0}
    other = str(int(token) - 1) if int(token) else "1"
    top = {token: math.log(_SURE), other: math.log(1 - _SURE)}
    return top[token], dict(list(top.items())[:n])


def _explain_tokens(question: str) -> str:
    strongest: Counter[str] = Counter()
    for token, number in _LINE.findall(question):
        strongest[token] = max(strongest[token], int(number))
    limit = max(strongest.values(), default=0) / 2
    named = [prompts.unescape(token) for token, number in strongest.most_common(_MOST_NAMED) if number > limit]
    return name_tokens(named)


def _explain_pairs(question: str) -> str:
    pairs = Counter(_read_pair(line) for line in question.splitlines() if _TEXT.match(line))
    return name_pairs(pair for pair, _ in pairs.most_common(_MOST_NAMED))


def _simulate(named: set[str], lines: str) -> str:
    return "\n".join(
        f"{token}\t{prompts.SCALE if prompts.unescape(token) in named else 0}" for token, _ in _LINE.findall(lines)
    )


def _has_one(text: str, named: set[str]) -> bool:
    return any(re.search(re.escape(token) + r"(?!\w)", text) for token in named)


def _is_marked_right(text: str, named: set[str]) -> bool:
    """Say whether more than half of the marked stretches consist of named tokens and of nothing else."""
    stretches = [prompts.unescape(stretch) for stretch in _MARKED.findall(text)]
    if not named:
        return False
    only_named = re.compile("(?:" + "|".join(re.escape(token) for token in named) + ")+")
    return sum(bool(only_named.fullmatch(stretch)) for stretch in stretches) > len(stretches) / 2


def _read_pair(text: str) -> tuple[str, str]:
    query, key = _MARKED.search(text), _KEY.search(text)
    if query is None or key is None:
        raise ValueError(f"no pair is marked in {text!r}")
    return prompts.unescape(query[1].strip("".join(prompts.KEY_MARK))), prompts.unescape(key[1])


def _read_tokens(explanation: str) -> set[str]:
    return {json.loads(string) for string in re.findall(_STRING, explanation)}


def _read_pairs(explanation: str) -> set[tuple[str, str]]:
    return {(json.loads(query), json.loads(key)) for query, key in _PAIR.findall(explanation)}


def _quote(token: str) -> str:
    # An explanation's runs of spaces may be shortened by whoever cleans it; a token's must not.
    return re.sub("  +", lambda spaces: "\\u0020" * len(spaces[0]), json.dumps(token))
