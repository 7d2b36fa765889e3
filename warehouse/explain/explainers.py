"""Explainers that ask a chat model in OpenAI's two ways: by tokens with activations, and for heads by token pairs."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from warehouse.explain.chat import Chat, Completion
from warehouse.explain.examples import ACTIVE_PART, Example, Job
from warehouse.explain.parsing import read_text
from warehouse.explain.prompts import ask_to_explain_pairs, ask_to_explain_tokens, to_one_line
from warehouse.explain.protocols import ExplanationRefused, Prompt, UnusableAnswer
from warehouse.pairs import unflatten_pairs

_SUBJECT = r"(?:this|the) (?:unit|neuron|latent|feature|(?:attention )?head)(?: \d+)? "
_VERB = r"(?:is|responds|fires|activates|appears|seems|looks)(?: to be| most)?(?: strongly| active)*"
_PREPOSITION = r"(?: to| on| for| in| at| when it sees)?"
_LEAD_IN = re.compile(rf"(?:(?:the )?explanation:|{_SUBJECT}(?:(?=attends)|{_VERB}{_PREPOSITION}\b))", re.IGNORECASE)
_MARKUP = re.compile(r"\*\*(?=\S)(.+?)(?<=\S)\*\*|^[#>*-]+ |`{3}\w*", re.MULTILINE)
_UNABLE = r"(?:can(?:not|['’]t)|won['’]t|(?:am|['’]m) (?:unable|not able) to)"
_HELPING = (
    r"(?:help|assist|comply|provide|answer|say|tell|explain|determine|identify|describe|find|see|do|discuss|give)"
)
_DECLINED = re.compile(
    r"i['’]?m sorry(?:[,.]| but\b)|(?:sorry|unfortunately), (?:but )?i\b|i apologi[sz]e|as an ai\b"
    rf"|i ?{_UNABLE}(?: \w+)? {_HELPING}\b",
    re.IGNORECASE,
)
"""How refusals begin. An explanation may begin alike ("I can't" and other negations), so it takes more than that."""
_LONGEST_READ = 8_000
"""Characters of an answer that may hold an explanation: what is beyond it would not be kept."""
_NOTHING = " .…?!-_*'\"`"


@dataclass(frozen=True, slots=True)
class TokenActivationExplainer:
    """Shows a neuron's or latent's train examples with activations from 0 to 10, and asks what it responds to.

    Attributes:
        max_tokens: of the answer.
        name: in `explanations.explainer`.
        longest_example: tokens of an example that are shown: those around its strongest.

    Source: the method of "Language models can explain neurons in language models" (OpenAI, 2023)
    """

    max_tokens: int = 128
    name: str = "openai"
    longest_example: int = 256

    def prompts(self, job: Job) -> tuple[Prompt, ...]:
        """Give the one question about a unit."""
        _require(job, "token")
        examples = [cut_around_peak(example, self.longest_example) for example in job.splits["train"]]
        return (Prompt(ask_to_explain_tokens(examples, job.max_activation), self.max_tokens),)

    async def explain(self, job: Job, chat: Chat) -> str:
        """Ask what a unit responds to.

        Raises:
            ExplanationRefused: the model declines.
            UnusableAnswer: it says nothing, or the unit's activations are by token pair.
        """
        return await _ask(self.prompts(job)[0], chat)


@dataclass(frozen=True, slots=True)
class TokenPairExplainer:
    """Shows the strongest token pairs of a head's train examples, and asks what it attends from and to.

    Attributes:
        max_tokens: of the answer.
        name: in `explanations.explainer`.
        n_pairs: pairs shown at most, one to a text; all of them at least a tenth of the largest activation.
        longest_example: tokens of a text that are shown: the pair and those around it.

    Source: the method of openai/transformer-debugger, neuron_explainer/explanations/explainer.py
    """

    max_tokens: int = 128
    name: str = "openai"
    n_pairs: int = 10
    longest_example: int = 256

    def prompts(self, job: Job) -> tuple[Prompt, ...]:
        """Give the one question about a head."""
        _require(job, "token_pair")
        pairs = find_strongest_pairs(job.splits["train"], self.n_pairs, ACTIVE_PART * job.max_activation)
        shown = [cut_around_pair(example.tokens, query, key, self.longest_example) for example, query, key in pairs]
        return (Prompt(ask_to_explain_pairs(shown), self.max_tokens),)

    async def explain(self, job: Job, chat: Chat) -> str:
        """Ask what a head attends from and to.

        Raises:
            ExplanationRefused: the model declines.
            UnusableAnswer: it says nothing, or the unit's activations are by token.
        """
        return await _ask(self.prompts(job)[0], chat)


@dataclass(frozen=True, slots=True)
class OpenAIExplainer:
    """Explains each unit in the way that fits it: by tokens, or by token pairs.

    Attributes:
        name: in `explanations.explainer`.
    """

    name: str = "openai"

    def prompts(self, job: Job) -> tuple[Prompt, ...]:
        """Give the one question about a unit."""
        return self._choose(job).prompts(job)

    async def explain(self, job: Job, chat: Chat) -> str:
        """Ask what a unit responds to.

        Raises:
            ExplanationRefused: the model declines.
            UnusableAnswer: it says nothing.
        """
        return await self._choose(job).explain(job, chat)

    def _choose(self, job: Job) -> TokenActivationExplainer | TokenPairExplainer:
        return (
            TokenPairExplainer(name=self.name) if job.per == "token_pair" else TokenActivationExplainer(name=self.name)
        )


def find_strongest_pairs(examples: tuple[Example, ...], n: int, least: float = 0.0) -> list[tuple[Example, int, int]]:
    """Find the pairs of some examples with the largest activations, all above 0 and at least some value.

    Returns:
        At most n of example, query and key position, strongest first, and of equally strong ones the earlier first.
    """
    found = [
        (float(value), example, int(place))
        for example in examples
        for place in np.argsort(-np.nan_to_num(example.activations, nan=-np.inf), kind="stable")[:n]
        if (value := example.activations[place]) > 0 and value >= least
    ]
    found.sort(key=lambda pair: -pair[0])
    pairs = []
    for _, example, place in found[:n]:
        query_position, key_position = unflatten_pairs(len(example.tokens), len(example.activations))
        pairs.append((example, int(query_position[place]), int(key_position[place])))
    return pairs


def cut_around_pair(tokens: tuple[str, ...], query: int, key: int, longest: int) -> tuple[tuple[str, ...], int, int]:
    """Cut a text to some length around a pair; where the pair is further apart than that, its middle is left out.

    Returns:
        The tokens that are left, and the positions of query and key among them.
    """
    if len(tokens) <= longest:
        return tokens, query, key
    if query - key < longest:
        start = min(max(0, (query + key + 1 - longest) // 2), len(tokens) - longest)
        return tokens[start : start + longest], query - start, key - start
    half = longest // 2
    first, second = tokens[max(0, key - half // 2) :][:half], tokens[max(0, query - half // 2) :][:half]
    return (*first, " … ", *second), len(first) + 1 + min(query, half // 2), min(key, half // 2)


def cut_around_peak(example: Example, longest: int) -> Example:
    """Cut an example to some length, with its strongest token in the last quarter, as what is before it counts most."""
    if len(example.tokens) <= longest:
        return example
    peak = int(np.argmax(np.nan_to_num(example.activations, nan=-np.inf)))
    start = min(max(0, peak - longest * 3 // 4), len(example.tokens) - longest)
    part = slice(start, start + longest)
    return Example(
        example.unit_id,
        example.section,
        example.quantile,
        example.rank,
        example.tokens[part],
        example.activations[part],
        example.is_active,
    )


def clean_explanation(completion: Completion) -> str:
    """Make one line of at most 1,000 characters from an answer, without markup and without words that lead to it.

    Raises:
        ExplanationRefused: the model says that it declines.
        UnusableAnswer: nothing is left.
    """
    text = _MARKUP.sub(lambda match: match[1] or "", read_text(completion)[:_LONGEST_READ])
    # Whoever adds more than was asked for does so in a further paragraph.
    line = to_one_line(re.split(r"\n\s*\n", text.strip(), maxsplit=1)[0])
    if _DECLINED.match(line):
        raise ExplanationRefused(f"the model declines: {line[:200]}")
    while lead_in := _LEAD_IN.match(line):
        line = line[lead_in.end() :].strip(" :,")
    if len(line) > 1 and line[0] == line[-1] in "\"'" and line[0] not in line[1:-1]:
        line = line[1:-1].strip()
    if not line.strip(_NOTHING):
        raise UnusableAnswer(f"the model's answer holds no explanation: {line[:60]!r}")
    return line


async def _ask(prompt: Prompt, chat: Chat) -> str:
    completion = await chat.complete(prompt.messages, max_tokens=prompt.max_tokens, purpose="explain")
    return clean_explanation(completion)


def _require(job: Job, per: str) -> None:
    if job.per != per:
        raise UnusableAnswer(f"{job.unit_id} has activations by {job.per}, and this explainer is for those by {per}")
