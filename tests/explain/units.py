"""Made units for explainers and scorers: what they respond to is known, so that explanations are right or wrong."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np

from tests.explain.rules import name_pairs, name_tokens
from warehouse.explain.examples import Example, Job, SplitName
from warehouse.records import FloatArray, UnitId

NEURON = UnitId("gpt2-small", "mlp_post_act", 3, 14)
HEAD = UnitId("gpt2-small", "attn_write_norm", 3, 5)
WORDS = (" the", " a", " of", " and", " ship", " sea", " red", " old", "\n", " was", ",", ".", " went", " home", " to")
NAMED = (" king", " queen", "\tqueen", ' "prince"', "⟦duke⟧", "\\n", "\u200b")
"""What the made neuron responds to: among them tokens that look like tabs, quotes, marks and escapes."""
PAIRS = ((" she", " Anna"), (")", "("))
"""What the made head attends from and to."""
GOOD_NEURON, WRONG_NEURON = name_tokens(NAMED), name_tokens([" sea", " old"])
GOOD_HEAD, WRONG_HEAD = name_pairs(PAIRS), name_pairs([(" sea", " sea"), (" old", " the")])


def make_example(unit_id: UnitId, rank: int, tokens: Sequence[str], activations: FloatArray) -> Example:
    return Example(unit_id, "top", None, rank, tuple(tokens), activations, bool((activations >= 0.8).any()))


def make_neuron(n_tokens: int = 24, n_each: int = 5, seed: int = 0) -> Job:
    """A neuron with activations from 4 to 8 on its tokens, and a GELU's tail elsewhere; half of the texts hold some."""
    draw = random.Random(seed)

    def make(rank: int, is_active: bool) -> Example:
        tokens = [draw.choice(WORDS) for _ in range(n_tokens)]
        activations = np.array([draw.uniform(-0.17, 0.05) for _ in tokens], np.float32)
        for place in draw.sample(range(n_tokens), 3) if is_active else ():
            tokens[place], activations[place] = draw.choice(NAMED), draw.uniform(4, 8)
        return make_example(NEURON, rank, tokens, activations)

    return _make_job(NEURON, make, n_each)


def make_head(n_tokens: int = 12, n_each: int = 5, seed: int = 0) -> Job:
    """A head with an activation from 4 to 8 on one of its pairs in half of the texts, and hardly any elsewhere."""
    draw = random.Random(seed)

    def make(rank: int, is_active: bool) -> Example:
        tokens = [draw.choice(WORDS) for _ in range(n_tokens)]
        activations = np.array([draw.uniform(0, 0.1) for _ in range(n_tokens * (n_tokens + 1) // 2)], np.float32)
        if is_active:
            key, query = sorted(draw.sample(range(n_tokens), 2))
            tokens[query], tokens[key] = draw.choice(PAIRS)
            activations[query * (query + 1) // 2 + key] = draw.uniform(4, 8)
        return make_example(HEAD, rank, tokens, activations)

    return _make_job(HEAD, make, n_each)


def _make_job(unit_id: UnitId, make: Callable[[int, bool], Example], n_each: int) -> Job:
    splits: dict[SplitName, tuple[Example, ...]] = {"train": tuple(make(rank, True) for rank in range(n_each))}
    for split in ("calibration", "valid", "test"):
        splits[split] = tuple(make(rank, rank < n_each) for rank in range(2 * n_each))
    max_activation = max(float(example.activations.max()) for example in splits["train"])
    is_head = unit_id is HEAD
    splits |= {"contrast_train": (), "contrast": ()}
    return Job(unit_id, "head" if is_head else "neuron", "token_pair" if is_head else "token", max_activation, splits)
