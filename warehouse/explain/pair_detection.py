"""Pair detection: can a model tell a head's strongest token pairs from weak ones by the explanation alone?"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from warehouse.explain.chat import Chat
from warehouse.explain.examples import ACTIVE_PART, Example, Job, SplitName
from warehouse.explain.explainers import cut_around_pair, find_strongest_pairs
from warehouse.explain.gathering import gather_answers
from warehouse.explain.parsing import read_choices
from warehouse.explain.prompts import ask_to_detect_pair, to_text
from warehouse.explain.protocols import Prompt, Score
from warehouse.explain.scores import estimate, measure_roc_auc
from warehouse.pairs import unflatten_pairs

Pair = tuple[Example, int, int]


@dataclass(frozen=True, slots=True)
class PairDetectionScorer:
    """Asks about the five strongest pairs of a head's held-out records, and five weak ones, one at a time.

    Weak pairs are drawn from those below a tenth of the largest activation. For latents by token pair, whose values
    are signed, that includes strongly negative ones.

    Attributes:
        name: on the command line.
        split: the held-out records.
        n_pairs: pairs of each kind.
        top_logprobs: likeliest tokens to ask for; without them the answer counts as 0 or 1, with many ties.
        longest_example: tokens of a text that are shown: the pair and those around it.
        seed: of the weak pairs, and of the interval.

    Source: TDB neuron_explainer/explanations/attention_head_scoring.py
    """

    name: str = "pair_detection"
    split: SplitName = "test"
    n_pairs: int = 5
    top_logprobs: int = 15
    longest_example: int = 256
    seed: int = 0

    def prompts(self, job: Job, explanation: str) -> tuple[Prompt, ...]:
        """Give a question for each pair."""
        strong, weak = self._choose_pairs(job)
        return tuple(self._ask(pair, explanation) for pair in [*strong, *weak])

    async def score(self, job: Job, explanation: str, chat: Chat) -> tuple[Score, ...]:
        """Ask about all pairs, and compare.

        Returns:
            pair_detection_roc_auc; nothing for units by token, and for those that have no pair of one kind.

        Raises:
            AskError: there was no usable answer at all.
        """
        strong, weak = self._choose_pairs(job)
        if not strong or not weak:
            return ()
        said = await gather_answers(self._judge(pair, explanation, chat) for pair in [*strong, *weak])
        labels = [1] * len(strong) + [0] * len(weak)
        answered = [(label, answer) for label, answer in zip(labels, said, strict=True) if answer is not None]
        strata = [label for label, _ in answered]
        found = estimate(measure_roc_auc(strata, [answer for _, answer in answered]), len(answered), strata, self.seed)
        n_missing = len(said) - len(answered)
        return (Score("pair_detection_roc_auc", found.value, found.low, found.high, len(answered), n_missing),)

    async def _judge(self, pair: Pair, explanation: str, chat: Chat) -> float:
        """Give the probability that the head responds to a pair, or 0 or 1 where the endpoint gives none."""
        prompt = self._ask(pair, explanation)
        completion = await chat.complete(
            prompt.messages, max_tokens=prompt.max_tokens, top_logprobs=prompt.top_logprobs, purpose=self.name
        )
        choices, probabilities = read_choices(completion, 1)
        return float(choices[0]) if probabilities is None else probabilities[0]

    def _ask(self, pair: Pair, explanation: str) -> Prompt:
        example, query, key = pair
        tokens, query, key = cut_around_pair(example.tokens, query, key, self.longest_example)
        return Prompt(ask_to_detect_pair(explanation, to_text(tokens, {query}, {key})), 8, self.top_logprobs)

    def _choose_pairs(self, job: Job) -> tuple[list[Pair], list[Pair]]:
        """Choose strong and weak pairs, the same every time."""
        if job.per != "token_pair":
            return [], []
        examples = job.splits[self.split]
        strong = find_strongest_pairs(examples, self.n_pairs)
        taken = {(id(example), query, key) for example, query, key in strong}
        places = [np.flatnonzero(e.activations < ACTIVE_PART * job.max_activation) for e in examples]
        ends = np.cumsum([len(each) for each in places])
        draw = random.Random(f"{self.seed}/{job.unit_id}/{self.name}")
        weak = []
        # Drawn by number, as all weak pairs of a record of 64 tokens are some 2,000.
        for number in draw.sample(range(int(ends[-1])), min(2 * self.n_pairs, int(ends[-1]))) if examples else ():
            which = int(np.searchsorted(ends, number, side="right"))
            example, place = examples[which], places[which][number - int(ends[which])]
            query, key = (int(p[place]) for p in unflatten_pairs(len(example.tokens), len(example.activations)))
            if (id(example), query, key) not in taken:
                weak.append((example, query, key))
        return strong, weak[: self.n_pairs]
