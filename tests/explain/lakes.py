"""A small lake of units that can be explained, and of some that cannot, whose records are known to the tests."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from tests.sql.lakes import EXPLANATIONS, HEADS, LATENTS, NEURONS, XL, Content
from warehouse.records import ActivationRecord, NeuronRecord, UnitId

WORDS = (" the", " cat", " dog", " sat", " on", " mat", "ing", ",", " Paris", "\n", " king", " river", " bank")
"""Each is one GPT-2 token, and no other token has its text."""
N_TOKENS = 6
FIT = UnitId.parse(f"{NEURONS}/0/0")
REMAINDER = UnitId.parse(f"{NEURONS}/0/4")
"""22 top records and 16 random ones."""
FEW = UnitId.parse(f"{NEURONS}/0/5")
"""12 top records and 10 random ones, as old datasets have."""
ODD = UnitId.parse(f"{NEURONS}/0/6")
"""Records whose GPT-2 ids cannot be known, of another length, and a text that is there twice."""
DEAD = UnitId.parse(f"{LATENTS}/0/2")
EMPTY = UnitId.parse(f"{LATENTS}/0/3")
LATENT = UnitId.parse(f"{LATENTS}/0/0")
"""Active on a cat alone, and in half of its random sample on nothing."""
HEAD = UnitId.parse(f"{HEADS}/0/0")
NARROW_HEAD = UnitId.parse(f"{HEADS}/0/1")
"""Attends to the first three tokens of a text only."""


def make_records(draw: random.Random, n: int, height: int, least: int = -64) -> list[ActivationRecord]:
    """Make up records per token, with activations that are multiples of 1/64."""
    return [
        ActivationRecord(
            draw.choices(WORDS, k=N_TOKENS), np.array([draw.randint(least, height) / 64 for _ in range(N_TOKENS)], "f4")
        )
        for _ in range(n)
    ]


def order(records: Sequence[ActivationRecord]) -> list[ActivationRecord]:
    return sorted(records, key=lambda record: -float(record.activations.max()))


def make_neuron(seed: int, n_top: int = 20, n_random: int = 15, n_bucket: int = 8) -> NeuronRecord:
    """Make up a neuron, whose top records are stronger than those of its buckets, and these than one another."""
    draw = random.Random(seed)
    return NeuronRecord(
        most_positive_activation_records=order(make_records(draw, n_top, 640, 320)),
        random_sample=make_records(draw, n_random, 96),
        random_sample_by_quantile=[make_records(draw, n_bucket, 64 * q + 32) for q in range(5)],
        quantile_boundaries=[0.5, 0.9, 0.99, 0.999],
        mean=0.25,
    )


def make_latent(seed: int, height: int = 640) -> NeuronRecord:
    """Make up a latent that is active where there is a cat; one text without is there twice."""
    draw = random.Random(seed)

    def record(has_cat: bool) -> ActivationRecord:
        tokens = draw.choices([word for word in WORDS if word != " cat"], k=N_TOKENS)
        values = np.zeros(N_TOKENS, "f4")
        if has_cat:
            place = draw.randrange(N_TOKENS)
            tokens[place], values[place] = " cat", draw.randint(height // 2, height) / 64
        return ActivationRecord(tokens, values)

    top = order([record(True) for _ in range(12)])
    drawn = [record(i % 2 == 0) for i in range(30)]
    return NeuronRecord(most_positive_activation_records=top, random_sample=[*drawn, drawn[-1]])


def make_head(seed: int, n_keys: int = N_TOKENS) -> NeuronRecord:
    """Make up a head that looks from a king back to " the": triangles, or trapezia of n_keys columns."""
    draw = random.Random(seed)
    n_values = sum(min(i + 1, n_keys) for i in range(N_TOKENS))

    def record(height: int) -> ActivationRecord:
        values = np.array([draw.randint(-32, height) / 64 for _ in range(n_values)], "f4")
        tokens = draw.choices(WORDS, k=N_TOKENS)
        if height == 640:
            tokens[0], tokens[2], values[3] = " the", " king", draw.randint(700, 800) / 64
        return ActivationRecord(tokens, values)

    return NeuronRecord(
        most_positive_activation_records=order([record(640) for _ in range(8)]),
        random_sample=[record(64) for _ in range(6)],
    )


def make_odd() -> NeuronRecord:
    """Make up a unit of which three records of a cache can be made: of the others ids or lengths do not fit."""
    values = np.array([1.0, 0.0, -1.0], "f4")
    texts = [
        [" the", " cat", " sat"],
        [" the", " dog", " sat"],
        [" the", "\ufffd", " sat"],
        [" the", " no such token", " sat"],
        [" the", " cat"],
        [" on", " mat", "ing"],
    ]
    records = [ActivationRecord(text, values[: len(text)]) for text in texts]
    return NeuronRecord(
        most_positive_activation_records=records,
        random_sample=[ActivationRecord([" the", " cat", " sat"], values)],
    )


def make_job_content() -> Content:
    """Make up neurons, latents and heads that can be explained, and such that cannot."""
    units = {UnitId.parse(f"{NEURONS}/0/{unit}"): make_neuron(unit) for unit in range(4)}
    units |= {UnitId.parse(f"{NEURONS}/1/{unit}"): make_neuron(100 + unit) for unit in range(3)}
    units |= {REMAINDER: make_neuron(4, 22, 16), FEW: make_neuron(5, 12, 10), ODD: make_odd()}
    units |= {LATENT: make_latent(10), UnitId.parse(f"{LATENTS}/0/1"): make_latent(11)}
    units |= {UnitId.parse(f"{LATENTS}/0/{unit}"): make_latent(12 + unit, 320) for unit in (4, 5, 6)}
    silent = [ActivationRecord([" the", " cat"], np.zeros(2, "f4")) for _ in range(8)]
    units |= {DEAD: NeuronRecord(most_positive_activation_records=silent, random_sample=silent), EMPTY: NeuronRecord()}
    units |= {HEAD: make_head(20), NARROW_HEAD: make_head(21, n_keys=3)}
    units |= {UnitId.parse(f"{XL}/0/{unit}"): make_neuron(200 + unit) for unit in range(2)}
    told: list[dict[str, object]] = [
        {"rank": rank, "explanation": text, "score_kind": "ev_correlation", "score": score, "origin": "openai"}
        for rank, (text, score) in enumerate([("cats", 0.5), ("dogs \u2028 and\nNUL \0", None)])
    ]
    return Content(units, [], {UnitId.parse(f"{EXPLANATIONS}/0/1"): {"explanations": told}})
