"""Made files of the sibling datasets: explanations, related units and related tokens of made units.

What they say agrees with the unit's made activations: an explanation names its planted tokens, a simulation is its
activations with noise, and the score is their correlation. Related units and weights are drawn at random. The forms
are the published ones, with their oddities: a bare NaN where a correlation is undefined, nulls at the end of a list,
no neurons before the first layer or after the last.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np

from warehouse.datasets import Dataset
from warehouse.decode.gpt2 import token_texts
from warehouse.mirror.text import Corpus
from warehouse.mirror.units import MadeUnit
from warehouse.records import FloatArray

N_RELATED = 10
"""Entries of each list of related units or tokens."""

_N_SEQUENCES = 5
_SIMULATION_SCALE = 10


def encode_sibling(dataset: Dataset, made: MadeUnit, corpus: Corpus, seed: int) -> bytes:
    """Give the bytes of a sibling's file about a made unit.

    Args:
        dataset: the sibling.
        made: the unit that it is about.
        corpus: the texts that related tokens are from.
        seed: of the random draws, together with the unit's name.
    """
    rng = np.random.default_rng([seed, zlib.crc32(dataset.key.encode()), made.layer, made.unit])
    match dataset.holds:
        case "explanations":
            return json.dumps(_explain(rng, made)).encode() + b"\n"
        case "related_units":
            return json.dumps(_relate_units(rng, dataset, made.layer)).encode()
        case _ if "by_weight" in dataset.component:
            return json.dumps(_relate_tokens_by_weight(rng, corpus)).encode()
        case _:
            return json.dumps(_relate_tokens_by_activation(made)).encode()


def _explain(rng: np.random.Generator, made: MadeUnit) -> dict[str, Any]:
    """Make a NeuronSimulationResults: its first sequences are top records, the others random ones."""
    texts = [f'"{plant.token.strip()}"' for plant in made.plants]
    rows = np.concatenate([made.top[:_N_SEQUENCES], made.random[:_N_SEQUENCES]])
    largest = max(float(made.activations[rows].max()), 1e-6) if len(rows) else 1.0
    simulated = [_simulate(rng, made.activations[row], largest) for row in rows]
    sequences = [
        {
            "dataclass_name": "ScoredSequenceSimulation",
            "simulation": {
                "dataclass_name": "SequenceSimulation",
                "tokens": token_texts()[made.ids[row]].tolist(),
                "expected_activations": expected.tolist(),
                "activation_scale": "simulated_normalized_activations",
                "distribution_values": [],
                "distribution_probabilities": [],
            },
            "true_activations": made.activations[row].astype(float).round(4).tolist(),
            **_score(expected, made.activations[row]),
        }
        for row, expected in zip(rows, simulated, strict=True)
    ]
    together = np.concatenate(simulated) if simulated else np.zeros(0, np.float32)
    return {
        "dataclass_name": "NeuronSimulationResults",
        "neuron_id": {"dataclass_name": "NeuronId", "layer_index": made.layer, "neuron_index": made.unit},
        "scored_explanations": [
            {
                "dataclass_name": "ScoredExplanation",
                "explanation": f" the words {', '.join(texts)}." if texts else " nothing in particular.",
                "scored_simulation": {
                    "dataclass_name": "ScoredSimulation",
                    "scored_sequence_simulations": sequences,
                    **_score(together, made.activations[rows].reshape(-1)),
                },
            }
        ],
    }


def _simulate(rng: np.random.Generator, activations: FloatArray, largest: float) -> FloatArray:
    """Give what a simulator would expect, 0 to 10; and in every eighth sequence nothing, which has no correlation."""
    if rng.random() < 1 / 8:
        return np.zeros_like(activations)
    expected = _SIMULATION_SCALE * activations.clip(0) / largest + rng.normal(0, 1, activations.shape)
    return np.asarray(expected.clip(0, _SIMULATION_SCALE).round(4), np.float32)


def _score(expected: FloatArray, activations: FloatArray) -> dict[str, float | None]:
    is_flat = not len(expected) or expected.std() == 0 or activations.std() == 0
    correlation = float("nan") if is_flat else float(np.corrcoef(expected, activations)[0, 1])
    return {"ev_correlation_score": correlation, "rsquared_score": None, "absolute_dev_explained_score": None}


def _relate_units(rng: np.random.Generator, dataset: Dataset, layer: int) -> dict[str, Any]:
    def draw(layers: range) -> dict[str, Any] | None:
        if not layers:
            return None
        sides: dict[str, Any] = {}
        for sign, factor in (("positive", 1), ("negative", -1)):
            places = zip(
                rng.integers(layers.start, layers.stop, N_RELATED),
                rng.integers(0, dataset.units_per_layer, N_RELATED),
                strict=True,
            )
            sides[f"top_{sign}_neurons"] = [f"{related}_{unit}" for related, unit in places]
            sides[f"top_{sign}_weights"] = _draw_strengths(rng, factor)
        return sides

    return {"c_fc": draw(range(layer)), "c_proj": draw(range(layer + 1, dataset.n_layers))}


def _relate_tokens_by_weight(rng: np.random.Generator, corpus: Corpus) -> dict[str, Any]:
    lists: dict[str, Any] = {"dataclass_name": "WeightBasedSummaryOfNeuron"}
    for direction in ("input", "output"):
        for sign, factor in (("positive", 1), ("negative", -1)):
            ids = rng.choice(np.unique(corpus.ids), N_RELATED)
            lists[f"{direction}_{sign}"] = {
                "dataclass_name": "TokensAndWeights",
                "tokens": token_texts()[ids].tolist(),
                "strengths": _draw_strengths(rng, factor),
            }
    return lists


def _draw_strengths(rng: np.random.Generator, factor: int) -> list[float]:
    return [factor * float(strength) for strength in np.sort(rng.uniform(0.5, 9.0, N_RELATED).astype(np.float32))[::-1]]


def _relate_tokens_by_activation(made: MadeUnit) -> dict[str, Any]:
    """Give the tokens with the highest mean activation over the random records; of the last of them it is unknown."""
    ids, values = made.ids[made.random].reshape(-1), made.activations[made.random].reshape(-1)
    distinct, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    means = np.bincount(inverse, values, len(distinct)) / counts
    best = np.argsort(-means, kind="stable")[:N_RELATED]
    averages: list[float | None] = [float(mean) for mean in means[best].round(6)]
    return {
        "dataclass_name": "TokenLookupTableSummaryOfNeuron",
        "tokens": token_texts()[distinct[best]].tolist(),
        "average_activations": [*averages[:-1], None][: len(best)],
    }
