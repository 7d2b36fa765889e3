"""The siblings' files put together again from the lake's tables, in the fields of the published ones.

A number is the nearest float32 (scores are doubles), and nulls that the lake leaves out are gone. An explanation's
simulations are not in the tables, so its `scored_sequence_simulations` is empty: only a file that was kept has them.

Source: AI neuron_explainer/explanations/explanations.py, neuron_explainer/activations/token_connections.py
"""

from __future__ import annotations

from typing import Any

import orjson
import polars as pl

from warehouse.datasets import Dataset
from warehouse.reader import LakeReader

_SIDES = {"upstream": "c_fc", "downstream": "c_proj"}
_SIGNS = ("positive", "negative")
_SCORE_KINDS = ("ev_correlation", "rsquared", "absolute_dev_explained")


def rebuild_sibling(reader: LakeReader, dataset: Dataset, layer: int, unit: int) -> bytes:
    """Give the file that a sibling has about a unit.

    Args:
        reader: the lake.
        dataset: the sibling; the lake has read its file about the unit.
        layer: the unit's layer.
        unit: the unit's index in its layer.
    """
    match dataset.holds:
        case "explanations":
            return orjson.dumps(_explain(reader, dataset, layer, unit)) + b"\n"
        case "related_units":
            return orjson.dumps(_relate_units(_ask(reader, "related_units", dataset, layer, unit)))
        case _:
            rows = _ask(reader, "related_tokens", dataset, layer, unit)
            is_by_weight = "by_weight" in dataset.component if rows.is_empty() else rows["basis"][0] == "weight"
            return orjson.dumps(_relate_by_weight(rows) if is_by_weight else _relate_by_activation(rows))


def _ask(reader: LakeReader, view: str, dataset: Dataset, layer: int, unit: int) -> pl.DataFrame:
    """Give the rows that came of one file, in its order; the conditions on the parts' columns choose what is read."""
    return reader.sql(
        f"FROM {view} WHERE model = $model AND component = $about AND layer = $layer AND unit = $unit "
        "AND dataset = $dataset ORDER BY rank",
        {
            "model": dataset.model,
            "about": dataset.about_component,
            "layer": layer,
            "unit": unit,
            "dataset": dataset.key,
        },
    )


def _explain(reader: LakeReader, dataset: Dataset, layer: int, unit: int) -> dict[str, Any]:
    scores: dict[int, dict[str, float]] = {}
    for row in _ask(reader, "explanation_scores", dataset, layer, unit).iter_rows(named=True):
        scores.setdefault(row["rank"], {})[row["score_kind"]] = row["score"]
    is_of_head = dataset.kind == "head"
    scored = [
        _score(row["explanation"], scores.get(row["rank"], {}), is_of_head)
        for row in _ask(reader, "explanations", dataset, layer, unit).iter_rows(named=True)
    ]
    if is_of_head:
        head = {"dataclass_name": "AttentionHeadId", "layer_index": layer, "head_index": unit}
        return {
            "dataclass_name": "AttentionSimulationResults",
            "attention_head_id": head,
            "scored_explanations": scored,
        }
    neuron = {"dataclass_name": "NeuronId", "layer_index": layer, "neuron_index": unit}
    return {"dataclass_name": "NeuronSimulationResults", "neuron_id": neuron, "scored_explanations": scored}


def _score(explanation: str, scores: dict[str, float], is_of_head: bool) -> dict[str, Any]:
    simulation: dict[str, Any]
    if is_of_head:
        simulation = {
            "dataclass_name": "ScoredAttentionSimulation",
            "scored_sequence_simulations": [],
            "roc_auc_score": scores.get("roc_auc"),
        }
        return {
            "dataclass_name": "ScoredAttentionExplanation",
            "explanation": explanation,
            "scored_attention_simulation": simulation,
        }
    simulation = {
        "dataclass_name": "ScoredSimulation",
        "scored_sequence_simulations": [],
        **{f"{kind}_score": scores.get(kind) for kind in _SCORE_KINDS},
    }
    return {"dataclass_name": "ScoredExplanation", "explanation": explanation, "scored_simulation": simulation}


def _relate_units(rows: pl.DataFrame) -> dict[str, Any]:
    sides: dict[str, Any] = {}
    for direction, side in _SIDES.items():
        here = rows.filter(pl.col("direction") == direction)
        sides[side] = None if here.is_empty() else {}
        for sign in _SIGNS if not here.is_empty() else ():
            some = here.filter(pl.col("sign") == sign)
            places = zip(some["related_layer"], some["related_unit"], strict=True)
            sides[side][f"top_{sign}_neurons"] = [f"{layer}_{unit}" for layer, unit in places]
            sides[side][f"top_{sign}_weights"] = _numbers(some["weight"])
    return sides


def _relate_by_weight(rows: pl.DataFrame) -> dict[str, Any]:
    lists: dict[str, Any] = {"dataclass_name": "WeightBasedSummaryOfNeuron"}
    for direction in ("input", "output"):
        for sign in _SIGNS:
            some = rows.filter(pl.col("direction") == direction, pl.col("sign") == sign)
            lists[f"{direction}_{sign}"] = {
                "dataclass_name": "TokensAndWeights",
                "tokens": some["token"].to_list(),
                "strengths": _numbers(some["strength"]),
            }
    return lists


def _relate_by_activation(rows: pl.DataFrame) -> dict[str, Any]:
    return {
        "dataclass_name": "TokenLookupTableSummaryOfNeuron",
        "tokens": rows["token"].to_list(),
        "average_activations": _numbers(rows["strength"]),
    }


def _numbers(column: pl.Series) -> list[float | None]:
    """Give float32 values as the shortest decimal of each, as the activations are written."""
    return [None if value is None else float(text) for value, text in zip(column, column.cast(pl.String), strict=True)]
