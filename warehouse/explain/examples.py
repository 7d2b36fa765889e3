"""What an explanation job is made of: examples, which are records of a lake, and how they are chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from warehouse.records import FloatArray, Section, UnitId

Sampler: TypeAlias = Literal["openai", "top", "random", "quantile", "stratified"]
Contrast: TypeAlias = Literal["none", "inactive", "random", "similar", "tokens"]
SplitName: TypeAlias = Literal["train", "calibration", "valid", "test", "contrast_train", "contrast"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
CONTRASTS: tuple[Contrast, ...] = get_args(Contrast)
SPLITS: tuple[SplitName, ...] = ("train", "calibration", "valid", "test")
CONTRAST_SPLITS: tuple[SplitName, ...] = ("contrast_train", "contrast")
ACTIVE_PART = 0.1
"""Part of a job's max_activation from which a unit counts as active: what is below reads 0 on the scale of 0 to 10."""


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """How the examples of a job are chosen; equal options and an equal lake give equal jobs.

    Attributes:
        sampler: `openai` takes OpenAI's strided slices of the top and the random records; `top` those of the top
            records alone; `random`, `quantile` and `stratified` draw, as `warehouse.explain.samplers` says.
        n: examples of a split from each list that it is sliced from; None for as many as there are.
        seed: of everything that is drawn; the openai and top samplers draw nothing.
        contrast: where contrasting examples come from; `none` for no such examples.
        n_contrast: contrasting examples of each of the two contrast splits.
    """

    sampler: Sampler = "openai"
    n: int | None = None
    seed: int = 0
    contrast: Contrast = "none"
    n_contrast: int = 5


@dataclass(frozen=True, slots=True)
class Example:
    """One record, as a job uses it.

    Attributes:
        unit_id: whose record it is: a contrasting example may be another unit's.
        section: which of that unit's lists holds it.
        quantile: bucket, None outside section quantile.
        rank: its place in that list, from 0.
        tokens: [n_tokens] strings.
        activations: [n_tokens] float32, or [n_values] of the flattened lower triangle for token pairs: of the *job's*
            unit, whoever's record it is, and NaN wherever those are not known.
        is_active: whether any of them is at least a tenth of the job's max_activation; None where they are not known.
    """

    unit_id: UnitId
    section: Section
    quantile: int | None
    rank: int
    tokens: tuple[str, ...]
    activations: FloatArray
    is_active: bool | None


@dataclass(frozen=True, slots=True)
class Job:
    """A unit that is to be explained, with its examples.

    Attributes:
        unit_id: which unit.
        kind: what it is.
        per: what an activation belongs to.
        max_activation: largest activation of the train examples, always > 0: the 10 of the scale of 0 to 10.
        splits: the examples by split: train, calibration, valid and test, which are never empty, and contrast_train
            (for an explainer to see) and contrast (for a scorer), which are empty unless asked for. No text that the
            samplers draw is in two splits; OpenAI's slices are kept as they are published.

    Source: max_activation over the train records is that of AI neuron_explainer/explanations
    """

    unit_id: UnitId
    kind: Literal["neuron", "head", "latent"]
    per: Literal["token", "token_pair"]
    max_activation: float
    splits: Mapping[SplitName, tuple[Example, ...]]


@dataclass(frozen=True, slots=True)
class Unfit:
    """A unit of which no job can be made, and why."""

    unit_id: UnitId
    reason: str
