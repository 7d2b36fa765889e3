"""Detection and fuzzing: can a model tell a unit's texts, or its tokens, from others by the explanation alone?"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from warehouse.explain.chat import Chat, Message
from warehouse.explain.examples import ACTIVE_PART, Example, Job, SplitName
from warehouse.explain.explainers import cut_around_peak
from warehouse.explain.gathering import gather_answers
from warehouse.explain.parsing import read_choices
from warehouse.explain.prompts import ask_to_detect, ask_to_fuzz, to_text
from warehouse.explain.protocols import Prompt, Score
from warehouse.explain.scores import Measure, estimate, measure_balanced_accuracy, measure_f1, measure_roc_auc


@dataclass(frozen=True, slots=True)
class _Shown:
    """A text as it is shown, whether 1 is the right answer, and which record it is of."""

    text: str
    label: int
    record: int


@dataclass(frozen=True, slots=True)
class DetectionScorer:
    """Shows texts, some of which a neuron or latent is active in, and asks which ones the explanation applies to.

    Positives are held-out records in which the unit is active (a tenth of its largest activation, or more), negatives
    those in which it is not, and the contrasting examples. A contrasting example on which the unit's activations are
    not known is taken for a negative, as other tools do: among units that resemble this one, some are not, and the
    figures are then too low.

    Attributes:
        name: on the command line.
        split: the held-out records.
        n_shown: texts of one question.
        top_logprobs: likeliest tokens to ask for, at 0 none; ROC-AUC needs them.
        longest_example: tokens of a text that are shown: those around its strongest.
        seed: of the order of texts, and of the intervals.

    Source: the method of EleutherAI's delphi, delphi/scorers/classifier
    """

    name: str = "detection"
    split: SplitName = "test"
    n_shown: int = 5
    top_logprobs: int = 5
    longest_example: int = 256
    seed: int = 0

    def prompts(self, job: Job, explanation: str) -> tuple[Prompt, ...]:
        """Give a question for each batch of texts."""
        return tuple(self._ask(batch, explanation) for batch in self._batch(job))

    async def score(self, job: Job, explanation: str, chat: Chat) -> tuple[Score, ...]:
        """Ask about all texts, and compare.

        Returns:
            detection_balanced_accuracy, detection_f1 and, where the endpoint gives log-probabilities,
            detection_roc_auc (fuzzing likewise); nothing for token pairs, and for units that have no text of one kind.

        Raises:
            AskError: there was no usable answer at all.
        """
        batches = self._batch(job)
        answers = await gather_answers(self._choose(batch, explanation, chat) for batch in batches)
        answered = [(batch, answer) for batch, answer in zip(batches, answers, strict=True) if answer is not None]
        if not answered:
            return ()
        shown = [each for batch, _ in answered for each in batch]
        labels = [each.label for each in shown]
        choices = [choice for _, answer in answered for choice in answer[0]]
        probabilities = [p for _, answer in answered for p in answer[1] or ()]
        rows, n_rows, strata = self._draw_by(shown)
        n_missing = sum(map(len, batches)) - len(shown)

        def score(figure: str, measure: Measure) -> Score:
            found = estimate(measure, n_rows, strata, self.seed)
            return Score(f"{self.name}_{figure}", found.value, found.low, found.high, len(shown), n_missing)

        scores = [
            score("balanced_accuracy", measure_balanced_accuracy(labels, choices, rows)),
            score("f1", measure_f1(labels, choices, rows)),
        ]
        if len(probabilities) == len(shown):
            scores.append(score("roc_auc", measure_roc_auc(labels, probabilities, rows)))
        return tuple(scores)

    async def _choose(
        self, batch: Sequence[_Shown], explanation: str, chat: Chat
    ) -> tuple[list[int], list[float] | None]:
        prompt = self._ask(batch, explanation)
        completion = await chat.complete(
            prompt.messages, max_tokens=prompt.max_tokens, top_logprobs=prompt.top_logprobs, purpose=self.name
        )
        return read_choices(completion, len(batch))

    def _ask(self, batch: Sequence[_Shown], explanation: str) -> Prompt:
        return Prompt(
            self._question(explanation, [each.text for each in batch]), 32 + 4 * len(batch), self.top_logprobs
        )

    @property
    def _question(self) -> Callable[[str, Sequence[str]], tuple[Message, ...]]:
        return ask_to_detect

    def _batch(self, job: Job) -> list[list[_Shown]]:
        """Shuffle positives and negatives, and give them in batches; the same every time."""
        examples = [cut_around_peak(e, self.longest_example) for e in self._examples(job) if e.tokens]
        shown = [_Shown(to_text(e.tokens), int(bool(e.is_active)), i) for i, e in enumerate(examples)]
        if len({each.label for each in shown}) < 2:
            return []
        random.Random(f"{self.seed}/{job.unit_id}/{self.name}").shuffle(shown)
        return _cut(shown, self.n_shown)

    def _examples(self, job: Job) -> list[Example]:
        return [*job.splits[self.split], *job.splits.get("contrast", ())] if job.per == "token" else []

    def _draw_by(self, shown: Sequence[_Shown]) -> tuple[list[int] | None, int, list[int] | None]:
        """Say what an interval draws: each text by itself, as many of each kind as there are."""
        return None, len(shown), [each.label for each in shown]


@dataclass(frozen=True, slots=True)
class FuzzingScorer(DetectionScorer):
    """Shows texts with marked tokens, and asks where the marks are on the tokens that the explanation describes.

    Each held-out record in which a neuron or latent is active is shown twice, in different questions: once with marks
    on its active tokens, and once with as many marks on others, drawn from the rest of the text.
    """

    name: str = "fuzzing"

    @property
    def _question(self) -> Callable[[str, Sequence[str]], tuple[Message, ...]]:
        return ask_to_fuzz

    def _batch(self, job: Job) -> list[list[_Shown]]:
        draw = random.Random(f"{self.seed}/{job.unit_id}/{self.name}")
        right: list[_Shown] = []
        wrong: list[_Shown] = []
        for example in (cut_around_peak(e, self.longest_example) for e in self._examples(job) if e.is_active):
            is_active = example.activations >= ACTIVE_PART * job.max_activation
            active, others = np.flatnonzero(is_active).tolist(), np.flatnonzero(~is_active).tolist()
            if active and others:
                marked = draw.sample(others, min(len(active), len(others)))
                right.append(_Shown(to_text(example.tokens, set(active)), 1, len(right)))
                wrong.append(_Shown(to_text(example.tokens, set(marked)), 0, len(wrong)))
        # A text never meets itself in a question, where comparing the two would be enough.
        first = [pair[i % 2] for i, pair in enumerate(zip(right, wrong, strict=True))]
        second = [pair[1 - i % 2] for i, pair in enumerate(zip(right, wrong, strict=True))]
        draw.shuffle(first)
        draw.shuffle(second)
        return [*_cut(first, self.n_shown), *_cut(second, self.n_shown)]

    def _draw_by(self, shown: Sequence[_Shown]) -> tuple[list[int] | None, int, list[int] | None]:
        """Say what an interval draws: a record with both of its texts."""
        records, rows = np.unique([each.record for each in shown], return_inverse=True)
        return rows.tolist(), len(records), None


def _cut(shown: list[_Shown], n: int) -> list[list[_Shown]]:
    return [shown[start : start + n] for start in range(0, len(shown), n)]
