"""Made units: activations that look like those of a neuron, a head or a latent, with known tokens planted in them.

A unit depends on nothing but (seed, dataset, layer, unit) and the corpus, so any of them can be made alone. An excerpt
that occurs in several of a unit's lists has the same activations in each, as in the published data.

Like the published data: the lists and their order; one corpus for all units; for neurons, 84 % of the values below
zero, spread about evenly between -0.1637 and 0 as in the published excerpts, and float16 values with four decimals; for
latents, zero on nearly every token. Unlike it: values beside the planted tokens are independent noise; top records are
the best of some 230 excerpts and not of all 50,000; what a quantile boundary is (here: the largest activation of the
first excerpt of the next bucket) and the number of records in each list are guesses where nothing is published.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warehouse.datasets import Dataset
from warehouse.decode.gpt2 import token_texts
from warehouse.mirror.text import PLACES, Corpus, find_token_id
from warehouse.records import ActivationRecord, FloatArray, IntArray, NeuronRecord

Manner: TypeAlias = Literal["usual", "rare", "in_context"]
"""How a latent per token fires: on its planted tokens, with noise beside them; on one of them and nowhere in its random
sample (near-dead); or on the famous one where the token stands before it that does so most often."""

FAMOUS_TOKEN = PLACES[0][0]
"""Planted in every 16th unit of every dataset, so that one question has answers in all of them."""
FAMOUS_STRIDE = 16
TRAPEZIUM_STRIDE = 5
"""Every 5th unit of a token-pair dataset attends to the first half of its tokens only."""

_N_PLANTS = 3
_NEGATIVE_SHARE = 0.84
_GELU_MINIMUM = -0.1637
_GELU_NOISE_MAXIMUM = 1.5
_LATENT_NOISE_SHARE = 0.015


@dataclass(frozen=True, slots=True)
class RecordCounts:
    """Records in each list of a unit; as given, 150 in all, which makes XL-like files of some 150 KB.

    20 top records and 15 random ones are the least that OpenAI's explainer takes for a full score.
    """

    top: int = 20
    random: int = 30
    per_bucket: int = 20
    buckets: int = 5


@dataclass(frozen=True, slots=True)
class Plant:
    """A token, or for token pairs a query and a key token, on which a unit was made strongly positive.

    `strength` is the largest activation it can have (in a head, a factor on the attention weight).
    """

    token: str
    key_token: str | None
    strength: float


@dataclass(frozen=True, slots=True)
class MadeUnit:
    """One unit's excerpts and activations, each row once, and which rows are in which list.

    Attributes:
        ids: [n_rows, n_tokens] GPT-2 token ids.
        activations: [n_rows, n_values] float32; n_values is n_tokens, or the pairs of a triangle or trapezium.
        top: rows of the top records, best first.
        random: rows of the random sample.
        buckets: rows of each quantile bucket, weakest bucket first.
        boundaries: the float between each two buckets.
        moments: mean, variance, skewness, kurtosis; NaN where undefined.
        plants: what was planted; empty in a dead unit.
    """

    layer: int
    unit: int
    ids: IntArray
    activations: FloatArray
    top: NDArray[np.int64]
    random: NDArray[np.int64]
    buckets: tuple[NDArray[np.int64], ...]
    boundaries: tuple[float, ...]
    moments: tuple[float, float, float, float]
    plants: tuple[Plant, ...]

    def to_record(self) -> NeuronRecord:
        """Give the unit as the NeuronRecord that its file holds."""
        tokens = token_texts()[self.ids].tolist()
        records = [ActivationRecord(t, a) for t, a in zip(tokens, self.activations, strict=True)]
        mean, variance, skewness, kurtosis = (None if np.isnan(m) else m for m in self.moments)
        return NeuronRecord(
            layer_index=self.layer,
            unit_index=self.unit,
            most_positive_activation_records=[records[i] for i in self.top],
            random_sample=[records[i] for i in self.random],
            random_sample_by_quantile=[[records[i] for i in bucket] for bucket in self.buckets],
            quantile_boundaries=list(self.boundaries),
            mean=mean,
            variance=variance,
            skewness=skewness,
            kurtosis=kurtosis,
        )


def make_unit(
    dataset: Dataset,
    layer: int,
    unit: int,
    corpus: Corpus,
    counts: RecordCounts,
    dead_share: float,
    seed: int,
    manner: Manner = "usual",
) -> MadeUnit:
    """Make one unit.

    Args:
        dataset: says what kind of activations, and whether they belong to tokens or token pairs.
        layer: from 0.
        unit: from 0.
        corpus: the texts.
        counts: records in each list; a corpus smaller than they ask for gives fewer.
        dead_share: part of the latents that never fire, 0 to 1: half of those have empty lists, half zeros only.
        seed: of the random draws, together with the unit's name.
        manner: how it fires, if it is a latent per token; any but the usual one never makes it dead.
    """
    rng = np.random.default_rng([seed, zlib.crc32(dataset.key.encode()), layer, unit])
    is_famous = unit % FAMOUS_STRIDE == 0 or manner == "in_context"
    is_dead = dataset.kind == "latent" and not is_famous and rng.random() < dead_share and manner == "usual"
    is_pair = dataset.per == "token_pair"
    n_excerpts, n_tokens = corpus.ids.shape
    n_hot = counts.top * 5 // 2
    n_cold = min(n_excerpts, counts.random + counts.per_bucket * counts.buckets)

    planted = [] if is_dead else _choose_plants(rng, corpus, is_pair, is_famous)
    if manner != "usual":
        planted = planted[:1]
    hot = _find_excerpts(rng, corpus, planted, n_hot)
    cold = rng.choice(n_excerpts, n_cold, replace=False)
    excerpts, row_of = np.unique(np.concatenate([hot, cold]), return_inverse=True)
    ids = corpus.ids[excerpts]
    strengths = rng.uniform(4.0, 9.0) * np.linspace(1.0, 0.8, _N_PLANTS)
    match dataset.kind, is_pair:
        case "head", _:
            dense = _draw_head(rng, ids, planted, strengths)
        case _, True:
            dense = _draw_latent(rng, (*ids.shape, n_tokens), _match_pairs(ids, planted), strengths)
        case "neuron", _:
            dense = _draw_neuron(rng, ids, planted, strengths)
        case _:
            places = [ids == token for token, _ in planted]
            if manner == "rare":
                places[0][row_of[len(hot) :][: counts.random]] = False
            elif manner == "in_context":
                places[0] &= _follow_usual(ids, places[0])
            noise_share = _LATENT_NOISE_SHARE if manner == "usual" else 0.0
            dense = _draw_latent(rng, ids.shape, places, strengths, noise_share)
    if is_pair:
        n_keys = max(1, n_tokens // 2) if unit % TRAPEZIUM_STRIDE == TRAPEZIUM_STRIDE - 1 else n_tokens
        dense = dense[:, np.tri(n_tokens, dtype=bool) & (np.arange(n_tokens) < n_keys)]
    if is_dead:
        dense = np.zeros_like(dense)
    activations = np.ascontiguousarray(dense, dtype=np.float32)
    moments = _compute_moments(activations[row_of[len(hot) :]])

    by_strength = np.argsort(-activations.max(axis=1), kind="stable")
    random = row_of[len(hot) : len(hot) + counts.random]
    buckets, boundaries = _split_buckets(rng, activations, by_strength[~np.isin(by_strength, random)], n_hot, counts)
    top = by_strength[: counts.top]
    if is_dead and rng.random() < 0.5:
        top, random, buckets = top[:0], random[:0], tuple(bucket[:0] for bucket in buckets)
    texts = token_texts()
    plants = tuple(
        Plant(str(texts[token]), None if key is None else str(texts[key]), float(strength))
        for (token, key), strength in zip(planted, strengths, strict=False)
    )
    return MadeUnit(layer, unit, ids, activations, top, random, buckets, boundaries, moments, plants)


def _choose_plants(
    rng: np.random.Generator, corpus: Corpus, is_pair: bool, is_famous: bool
) -> list[tuple[int, int | None]]:
    """Choose token ids, or pairs of (query, key) ids that do occur in this order, strongest first."""
    planted: list[tuple[int, int | None]] = []
    if is_famous:
        capital, country = (find_token_id(token) for token in PLACES[0])
        if len(corpus.excerpts_with(capital)):
            planted.append((capital, country if is_pair else None))
    if not is_pair:
        drawn = rng.permutation(corpus.plantable)[:_N_PLANTS].tolist()
        taken = {token for token, _ in planted}
        return (planted + [(token, None) for token in drawn if token not in taken])[:_N_PLANTS]
    for excerpt in rng.permutation(len(corpus.ids)):
        if len(planted) == _N_PLANTS:
            break
        text = corpus.ids[excerpt]
        places = np.flatnonzero(np.isin(text, corpus.plantable))
        if len(places) > 1:
            i = int(rng.integers(len(places) - 1))
            pair = (int(text[places[i + 1]]), int(text[places[i]]))
            if pair not in planted:
                planted.append(pair)
    return planted


def _find_excerpts(
    rng: np.random.Generator, corpus: Corpus, planted: list[tuple[int, int | None]], n: int
) -> NDArray[np.int64]:
    """Give up to n excerpts in which the planted tokens or pairs occur, about as many for each."""
    found = [np.empty(0, np.int64)]
    for token, key in planted:
        excerpts = corpus.excerpts_with(token)
        if key is not None:
            excerpts = np.intersect1d(excerpts, corpus.excerpts_with(key))
        found.append(rng.permutation(excerpts)[: -(-n // _N_PLANTS)].astype(np.int64))
    return np.unique(np.concatenate(found))


def _match_pairs(ids: IntArray, planted: list[tuple[int, int | None]]) -> list[NDArray[np.bool_]]:
    """Say for each planted pair where it is: [n_rows, n_tokens, n_tokens] of query by key position."""
    return [(ids == query)[:, :, None] & (ids == key)[:, None, :] for query, key in planted]


def _follow_usual(ids: IntArray, is_here: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Say which places follow the token that stands most often before those given: [n_rows, n_tokens]."""
    before = np.full_like(ids, -1)
    before[:, 1:] = ids[:, :-1]
    counts = np.bincount(before[is_here & (before >= 0)])
    follows: NDArray[np.bool_] = before == (counts.argmax() if len(counts) else -1)
    return follows


def _draw_neuron(
    rng: np.random.Generator, ids: IntArray, planted: list[tuple[int, int | None]], strengths: NDArray[np.float64]
) -> NDArray[np.float64]:
    below = rng.uniform(_GELU_MINIMUM, -0.0005, ids.shape)
    above = np.minimum(rng.exponential(0.35, ids.shape), _GELU_NOISE_MAXIMUM)
    values = np.where(rng.random(ids.shape) < _NEGATIVE_SHARE, below, above)
    for (token, _), strength in zip(planted, strengths, strict=False):
        is_here = ids == token
        values[is_here] = strength * rng.uniform(0.7, 1.0, int(is_here.sum()))
    return np.asarray(values.astype(np.float16), dtype=np.float64).round(4)


def _draw_latent(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    planted: list[NDArray[np.bool_]],
    strengths: NDArray[np.float64],
    noise_share: float = _LATENT_NOISE_SHARE,
) -> NDArray[np.float64]:
    """Draw a sparse latent: activations of tokens are at least 0, attributions to token pairs have either sign."""
    values = np.zeros(shape)
    noisy = rng.integers(values.size, size=int(values.size * noise_share))
    noise = 0.2 * rng.standard_normal(len(noisy))
    values.flat[noisy] = noise if len(shape) == 3 else np.abs(noise)
    for is_here, strength in zip(planted, strengths, strict=False):
        values[is_here] = strength * rng.uniform(0.7, 1.0, int(is_here.sum()))
    return values


def _draw_head(
    rng: np.random.Generator, ids: IntArray, planted: list[tuple[int, int | None]], strengths: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Draw attention weights times the norm of what is written: the first token takes the weight that is left over.

    Returns:
        [n_rows, n_tokens, n_tokens] of query by key position, at least 0; above the diagonal without meaning.
    """
    n_tokens = ids.shape[1]
    scores = rng.standard_normal((*ids.shape, n_tokens))
    scores[:, :, 0] += 3.0
    norm = rng.uniform(0.5, 1.0, (len(ids), 1, n_tokens)).repeat(n_tokens, axis=1)
    norm[:, :, 0] = 0.02
    for is_here, strength in zip(_match_pairs(ids, planted), strengths, strict=False):
        scores[is_here] = 7.0
        norm[is_here] = strength
    weights = np.exp(scores) * np.tri(n_tokens)
    weights /= weights.sum(axis=2, keepdims=True)
    return np.round(weights * norm, 4)


def _split_buckets(
    rng: np.random.Generator,
    activations: FloatArray,
    rows: NDArray[np.int64],
    n_hot: int,
    counts: RecordCounts,
) -> tuple[tuple[NDArray[np.int64], ...], tuple[float, ...]]:
    """Split rows, strongest first, into quantile buckets, of which the last takes the strongest n_hot to draw from."""
    if counts.buckets == 0:
        return (), ()
    weakest_first = rows[n_hot:][::-1]
    runs = np.array_split(weakest_first, counts.buckets - 1) if counts.buckets > 1 else []
    runs.append(rows[:n_hot][::-1])
    buckets = tuple(rng.permutation(run)[: counts.per_bucket] for run in runs)
    boundaries = tuple(float(activations[run[0]].max()) if len(run) else 0.0 for run in runs[1:])
    return buckets, boundaries


def _compute_moments(values: FloatArray) -> tuple[float, float, float, float]:
    exact = values.astype(np.float64)
    mean = float(exact.mean())
    centred = exact - mean
    variance = float((centred**2).mean())
    if variance == 0.0:
        return mean, variance, float("nan"), float("nan")
    skewness, kurtosis = (float((centred**k).mean() / variance ** (k / 2)) for k in (3, 4))
    return mean, variance, skewness, kurtosis
