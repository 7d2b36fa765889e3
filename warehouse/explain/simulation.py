"""Simulation: a model predicts activations from an explanation alone, and the figures say how near it comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from warehouse.explain.chat import Chat
from warehouse.explain.examples import Example, Job, SplitName
from warehouse.explain.explainers import cut_around_peak
from warehouse.explain.gathering import gather_answers
from warehouse.explain.parsing import read_numbers
from warehouse.explain.prompts import ask_to_simulate, escape
from warehouse.explain.protocols import Prompt, Score
from warehouse.explain.scores import (
    Estimate,
    Measure,
    Values,
    estimate,
    fit_line,
    measure_absolute_dev_explained,
    measure_correlation,
    measure_r2,
    measure_rsquared,
)

_CALIBRATED = {
    "rsquared": measure_rsquared,
    "absolute_dev_explained": measure_absolute_dev_explained,
    "r2": measure_r2,
}
"""Figures that need predictions in the unit's own scale."""


@dataclass(frozen=True, slots=True)
class SimulationScorer:
    """Compares predicted with true activations, over all tokens of the held-out records of a neuron or latent.

    The model predicts numbers from 0 to 10; a straight line fitted on the calibration records brings them to the
    unit's own scale, as OpenAI did. The correlation does not depend on that line. Heads have no such score.

    Attributes:
        name: on the command line.
        split: the held-out records.
        is_calibrated: whether to simulate the calibration records too, which doubles the price and gives the three
            figures besides the correlation.
        top_logprobs: likeliest tokens to ask for, so that a prediction is an expected value where the endpoint gives
            them; with 0 it is the number that was written.
        longest_example: tokens of a record that are simulated: those around its strongest.
        seed: of the intervals.

    Source: AI neuron_explainer/explanations/scoring.py and calibrated_simulator.py
    """

    name: str = "simulation"
    split: SplitName = "test"
    is_calibrated: bool = True
    top_logprobs: int = 15
    longest_example: int = 512
    seed: int = 0

    def prompts(self, job: Job, explanation: str) -> tuple[Prompt, ...]:
        """Give a question for each record."""
        return tuple(self._ask(example, explanation) for example in [*self._held_out(job), *self._calibration(job)])

    async def score(self, job: Job, explanation: str, chat: Chat) -> tuple[Score, ...]:
        """Simulate the held-out records (and the calibration records), and compare.

        Returns:
            ev_correlation, rsquared and absolute_dev_explained as OpenAI defines them, and r2
            as scikit-learn does; nothing for token pairs.

        Raises:
            AskError: there was no usable answer at all.
        """
        held_out, calibration = self._held_out(job), self._calibration(job)
        if not held_out:
            return ()
        said = await gather_answers(self._simulate(e, explanation, chat) for e in [*held_out, *calibration])
        true, predicted = _keep_answered(held_out, said[: len(held_out)])
        n_missing = len(held_out) - len(true)

        def score(kind: str, measure: Measure | None) -> Score:
            figure = Estimate(None) if measure is None else estimate(measure, len(true), seed=self.seed)
            return Score(kind, figure.value, figure.low, figure.high, len(true), n_missing)

        scores = [score("ev_correlation", measure_correlation(true, predicted))]
        if self.is_calibrated:
            fitted = _calibrate(*_keep_answered(calibration, said[len(held_out) :]), predicted)
            scores += [score(kind, measure(true, fitted) if fitted else None) for kind, measure in _CALIBRATED.items()]
        return tuple(scores)

    async def _simulate(self, example: Example, explanation: str, chat: Chat) -> Values:
        """Predict [n_tokens] activations on the scale of 0 to 10."""
        prompt = self._ask(example, explanation)
        completion = await chat.complete(
            prompt.messages, max_tokens=prompt.max_tokens, top_logprobs=prompt.top_logprobs, purpose="simulation"
        )
        return read_numbers(completion, example.tokens)

    def _ask(self, example: Example, explanation: str) -> Prompt:
        # A line takes its token, a tab, a number and a line end; odd characters take a model's token each, or more.
        max_tokens = 64 + sum(8 + len(escape(token).encode()) // 2 for token in example.tokens)
        return Prompt(ask_to_simulate(explanation, example.tokens), max_tokens, self.top_logprobs)

    def _held_out(self, job: Job) -> list[Example]:
        return self._choose(job, self.split)

    def _calibration(self, job: Job) -> list[Example]:
        return self._choose(job, "calibration") if self.is_calibrated else []

    def _choose(self, job: Job, split: SplitName) -> list[Example]:
        if job.per != "token":
            return []
        examples = [cut_around_peak(example, self.longest_example) for example in job.splits[split]]
        return [example for example in examples if example.tokens and np.isfinite(example.activations).all()]


@dataclass(frozen=True, slots=True)
class CorrelationScorer(SimulationScorer):
    """The same without calibration: the correlation alone, at half the price."""

    name: str = "correlation"
    is_calibrated: bool = False


def _keep_answered(examples: Sequence[Example], said: Sequence[Values | None]) -> tuple[list[Values], list[Values]]:
    pairs = [(e.activations.astype(np.float64), s) for e, s in zip(examples, said, strict=True) if s is not None]
    return [true for true, _ in pairs], [predicted for _, predicted in pairs]


def _calibrate(true: list[Values], simulated: list[Values], predicted: list[Values]) -> list[Values] | None:
    """Bring predictions to the unit's scale by a line fitted on other records; None where there are none."""
    if not true:
        return None
    slope, intercept = fit_line(np.concatenate(simulated), np.concatenate(true))
    return [slope * values + intercept for values in predicted]
