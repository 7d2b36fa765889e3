"""Explanations that others made, from each form to the view, and what is wrong with a row."""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from tests.explain.exports import write
from warehouse.datasets import Dataset, builtin_datasets
from warehouse.explain.answers import LONGEST_TEXT
from warehouse.explain.importing import ImportFailure, ImportOptions, ImportSummary, import_explanations
from warehouse.explain.importing.delphi import classification_scores
from warehouse.lake import Lake
from warehouse.reader import LakeReader

REAL = Path(__file__).parents[3] / "shared" / "real"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the published excerpts are not beside the checkout")
NEURONS = builtin_datasets()["gpt2-small/mlp_post_act"]
HEADS = builtin_datasets()["gpt2-small/attn_write_norm"]
LATENTS = builtin_datasets()["gpt2-small/mlp_post_act_ae_v4"]
PAIR_LATENTS = builtin_datasets()["gpt2-small/resid_delta_attn_ae_v4_by_pair"]
XL = builtin_datasets()["gpt2-xl/mlp_post_act"]
TO_NEURONS = ImportOptions("me", dataset=NEURONS)


def take(folder: Path, source: Path, how: ImportOptions = TO_NEURONS) -> tuple[ImportSummary, list[str]]:
    """Import into the folder's lake; give the summary, and each row that was refused with its reason."""
    refused: list[str] = []

    def refuse(where: str, reason: str) -> None:
        refused.append(f"{where.removeprefix(str(source))}: {reason}")

    return import_explanations(Lake(folder / "lake"), source, how, refuse), refused


def rows(folder: Path, *columns: str) -> list[tuple[Any, ...]]:
    """Give columns of all answers of the folder's lake, in order of their units."""
    frame = pl.concat([pl.read_parquet(path) for path in (folder / "lake" / "answers").glob("*.parquet")])
    return frame.sort("layer", "unit", "rank").select(columns).rows()


def scores(folder: Path) -> list[dict[str, float | None]]:
    return [{s["score_kind"]: s["score"] for s in found} for (found,) in rows(folder, "scores")]


def write_lines(path: Path, *lines: object) -> Path:
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{text}\n" for text in texts), "utf-8")
    return path


# plain rows --------------------------------------------------------------------------------------------------------


def test_json_lines_are_taken_by_the_names_of_the_view(tmp_path: Path) -> None:
    source = write_lines(
        tmp_path / "mine.jsonl",
        {
            "unit_id": "gpt2-xl/mlp_post_act/3/14", "explanation": " cats", "explainer": "gpt-4", "score": 0.5,
            "score_kind": "ev_correlation", "score_low": 0.25, "created_at": "2026-10-01T12:00:00+02:00", "extra": [1],
        },
        {"layer": 4, "unit": "15.0", "explanation": "dogs", "scores": {"f1": 0.5, "a": float("nan")}, "origin": "you"},
        {"model": "gpt2-small", "component": "attn_write_norm", "layer": 5, "unit": 1, "explanation": "birds"},
    )  # fmt: skip
    summary, refused = take(tmp_path, source)
    assert (summary, refused) == (ImportSummary(1, 3, 0, 0), [])
    assert rows(tmp_path, "model", "component", "layer", "unit", "origin", "explanation", "explainer") == [
        ("gpt2-xl", "mlp_post_act", 3, 14, "me", " cats", "gpt-4"),
        ("gpt2-small", "mlp_post_act", 4, 15, "you", "dogs", None),
        ("gpt2-small", "attn_write_norm", 5, 1, "me", "birds", None),
    ]
    assert scores(tmp_path) == [{"ev_correlation": 0.5}, {"f1": 0.5, "a": None}, {}]
    assert [str(moment) for (moment,) in rows(tmp_path, "created_at")][0] == "2026-10-01 10:00:00+00:00"


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz"])
def test_csv_is_taken_with_its_quotes_newlines_and_empty_cells(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"mine{suffix}"
    texts = ['the word "not",\nand more', "été", " one\ttab"]
    with gzip.open(source, "wt", newline="") if suffix.endswith("gz") else source.open("w", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t" if "tsv" in suffix else ",")
        writer.writerow(["unit_id", "explanation", "score", "score_kind"])
        writer.writerows((f"{NEURONS.key}/0/{i}", text, ["0.5", "", "nan"][i], "f1") for i, text in enumerate(texts))
    summary, refused = take(tmp_path, source)
    assert (summary.n_new, refused) == (3, [])
    assert rows(tmp_path, "explanation") == [(text,) for text in texts]
    assert scores(tmp_path) == [{"f1": 0.5}, {}, {"f1": None}]


def test_a_quote_that_is_not_closed_is_told_by_its_line_and_takes_no_row_into_its_cell(tmp_path: Path) -> None:
    source = tmp_path / "mine.csv"
    closed_later = '0,2,"cats\n0,3,"dogs"\n'
    source.write_text(
        f'layer,unit,explanation\n0,0,"one\nand more"\n0,1,birds\n{closed_later}0,4,fish,\n0,5,"mice\n0,6,ants\n'
    )
    summary, refused = take(tmp_path, source)
    assert (summary.n_new, rows(tmp_path, "unit", "explanation")) == (2, [(0, "one\nand more"), (1, "birds")])
    assert refused == [
        ":5: broken CSV, up to line 6: ',' expected after '\"'",
        ":7: 4 columns, where the header has 3",
        ":8: broken CSV, up to line 9: unexpected end of data",
    ]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (
            b"unit_id;explanation\na;b\n",
            ":1: the columns are 'unit_id;explanation', without 'explanation': write UTF-8",
        ),
        ("unit,explanation\n0,b\n".encode("utf-16"), ":1: the columns are '\ufffd\ufffdu\\x00n"),
        (b"x" * 10_000 + b"\n", f":1: the columns are '{'x' * 299}, without"),
        (b'unit,"explanation\n0,b\n', ":1: broken CSV, up to line 2: unexpected end of data"),
        (b'unit,"expl"anation\n0,b\n', ":1: broken CSV: ',' expected"),
    ],
)
def test_a_header_that_is_none_is_told_with_the_columns_that_were_found(
    tmp_path: Path, content: bytes, line: str
) -> None:
    folder = tmp_path / "all"
    write_lines(folder / "good.jsonl", {"layer": 0, "unit": 0, "explanation": "cats"})
    (folder / "mine.csv").write_bytes(content)
    summary, (refused,) = take(tmp_path, folder)
    assert summary.n_new == 1
    assert refused.startswith(f"/mine.csv{line}")


def test_a_bad_row_is_told_by_its_line_and_the_rest_goes_on(tmp_path: Path) -> None:
    good = {"unit_id": f"{NEURONS.key}/0/0", "explanation": "cats"}
    bad: dict[str, object] = {
        "broken JSON": '{"unit_id": ',
        ": 3, not a JSON object": "3",
        "explanation: nothing, not a text": {"unit_id": f"{NEURONS.key}/0/1"},
        "is not a unit_id": good | {"unit_id": "neuron 5"},
        "gpt9/mlp/0/0 is of no known dataset: known are gpt2-small/attn_write_norm": good | {"unit_id": "gpt9/mlp/0/0"},
        "is of no known dataset": good | {"unit_id": "gpt2-xl/explanations/0/0"},
        "has layers 0-11 with units 0-3071 each": good | {"unit_id": f"{NEURONS.key}/12/0"},
        "is out of range": good | {"unit_id": f"{NEURONS.key}/0/99999999"},
        "unit: -1, not a whole number from 0": {"layer": 1, "unit": -1, "explanation": "cats"},
        "give --score-kind": good | {"score": 0.5},
        "score: 'high', not a number": good | {"score": "high", "score_kind": "f1"},
        "2 scores of 1 kinds": good | {"scores": [{"score_kind": "a", "score": 1}, {"score_kind": "a", "score": 2}]},
        "not a time": good | {"created_at": "yesterday"},
        "an explanation of 65,537 characters": good | {"explanation": "x" * (LONGEST_TEXT + 1)},
    }
    source = write_lines(tmp_path / "mine.jsonl", good, *bad.values(), "", good | {"explanation": "dogs"})
    summary, refused = take(tmp_path, source)
    assert summary == ImportSummary(1, 2, 0, len(bad))
    assert rows(tmp_path, "explanation") == [("cats",), ("dogs",)]
    for number, (reason, line) in enumerate(zip(bad, refused, strict=True), start=2):
        assert line.startswith(f":{number}: ") and reason in line, (reason, line)


@pytest.mark.parametrize("content", [b"", b"{}\n", b"unit_id,explanation\n", b"\x1f\x8b broken", b"\x00\xff\n", b"["])
def test_a_file_of_which_nothing_can_be_taken_is_an_error(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "mine.jsonl"
    source.write_bytes(content)
    with pytest.raises(ImportFailure, match=r"^no explanation in"):
        take(tmp_path, source)


@pytest.mark.parametrize("damage", [b"\x1f\x8bgarbage", gzip.compress(b"[3]")[:-12]])
@pytest.mark.parametrize("name", ["2.jsonl.gz", "2.json", "2.csv"])
def test_a_damaged_file_of_a_folder_is_refused_and_the_others_are_taken(
    tmp_path: Path, damage: bytes, name: str
) -> None:
    folder = tmp_path / "all"
    for unit in (1, 3):
        write_lines(folder / f"{unit}.jsonl", {"layer": 0, "unit": unit, "explanation": "cats"})
    (folder / name).write_bytes(damage)
    summary, refused = take(tmp_path, folder)
    assert (summary.n_files, summary.n_new, summary.n_refused) == (3, 2, len(refused))
    assert len(refused) == 1
    assert refused[0].startswith(f"/{name}")


def test_without_an_origin_or_a_file_nothing_is_taken(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "mine.jsonl", {"layer": 0, "unit": 0, "explanation": "cats"})
    with pytest.raises(ImportFailure, match="1 rows in 1 files were refused"):
        take(tmp_path, source, ImportOptions(dataset=NEURONS))
    with pytest.raises(ImportFailure, match="no file or folder"):
        take(tmp_path, tmp_path / "nowhere")


def test_importing_again_or_more_adds_only_what_is_new(tmp_path: Path) -> None:
    lines = [{"layer": 0, "unit": unit, "explanation": f"cats {unit}"} for unit in range(4)]
    assert take(tmp_path, write_lines(tmp_path / "a.jsonl", *lines[:3], lines[0]))[0] == ImportSummary(1, 3, 1, 0)
    before = rows(tmp_path, "answer_key")
    assert take(tmp_path, tmp_path / "a.jsonl")[0] == ImportSummary(1, 0, 4, 0)
    assert rows(tmp_path, "answer_key") == before
    assert take(tmp_path, write_lines(tmp_path / "b.jsonl", *lines))[0] == ImportSummary(1, 1, 3, 0)
    other = ImportOptions("you", dataset=NEURONS)
    assert take(tmp_path, tmp_path / "b.jsonl", other)[0] == ImportSummary(1, 4, 0, 0)
    origins = [origin for (origin,) in rows(tmp_path, "origin")]
    assert (origins.count("me"), origins.count("you")) == (4, 4)


def test_a_large_file_is_taken_in_several_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warehouse.explain.importing._BATCH_ANSWERS", 2)
    source = write_lines(
        tmp_path / "mine.json", json.dumps([{"layer": 0, "unit": unit, "explanation": "cats"} for unit in range(5)])
    )
    assert take(tmp_path, source)[0] == ImportSummary(1, 5, 0, 0)
    assert len(Lake(tmp_path / "lake").batches("answers")) == 3
    assert len(rows(tmp_path, "unit")) == 5


# OpenAI's simulations ----------------------------------------------------------------------------------------------


def test_simulation_results_are_taken_by_new_and_old_names(tmp_path: Path) -> None:
    new = {
        "dataclass_name": "NeuronSimulationResults",
        "neuron_id": {"layer_index": 1, "neuron_index": 2},
        "scored_explanations": [
            {
                "explanation": " cats",
                "scored_simulation": {"ev_correlation_score": float("nan"), "rsquared_score": 0.25},
            },
            {"explanation": " dogs", "scored_simulation": {"ev_correlation_score": 0.5, "rsquared_score": 0.25}},
        ],
    }
    old = {
        "neuron_id": {"layer": "3", "idx": 4},
        "scored_explanation_or_baseline_list": [
            {"explanation_or_baseline": " old", "scored_simulation": {"ev_correlation_score": 0.75}}
        ],
    }
    named_by_path = {"scored_explanations": [{"explanation": " path", "scored_simulation": None}]}
    write_lines(tmp_path / "tree" / "all.jsonl", new, old)
    write_lines(tmp_path / "tree" / "explanations" / "7" / "8.jsonl", named_by_path)
    summary, refused = take(tmp_path, tmp_path / "tree", ImportOptions("me", dataset=NEURONS, explainer="gpt-4"))
    assert (summary, refused) == (ImportSummary(2, 4, 0, 0), [])
    assert rows(tmp_path, "layer", "unit", "rank", "explanation", "explainer") == [
        (1, 2, 0, " cats", "gpt-4"),
        (1, 2, 1, " dogs", "gpt-4"),
        (3, 4, 0, " old", "gpt-4"),
        (7, 8, 0, " path", "gpt-4"),
    ]
    assert scores(tmp_path) == [
        {"ev_correlation": None, "rsquared": 0.25},
        {"ev_correlation": 0.5, "rsquared": 0.25},
        {"ev_correlation": 0.75},
        {"ev_correlation": None},
    ]


@pytest.mark.parametrize("key", ["attention_head_id", "attention_id"])
def test_results_of_heads_are_taken(tmp_path: Path, key: str) -> None:
    result = {
        key: {"layer_index": 1, "head_index": 2},
        "scored_explanations": [{"explanation": "its", "scored_attention_simulation": {"roc_auc_score": 0.875}}],
    }
    take(tmp_path, write_lines(tmp_path / "heads.jsonl", result), ImportOptions("me", dataset=HEADS))
    assert rows(tmp_path, "component", "layer", "unit", "explanation") == [("attn_write_norm", 1, 2, "its")]
    assert scores(tmp_path) == [{"roc_auc": 0.875}]


@pytest.mark.parametrize(
    ("named", "dataset", "line"),
    [
        ("neuron_id", HEADS, "neuron_id: an object about neurons, where gpt2-small/attn_write_norm has heads"),
        (
            "attention_head_id",
            NEURONS,
            "attention_head_id: an object about attention heads, where gpt2-small/mlp_post_act",
        ),
        ("attention_id", LATENTS, "attention_id: an object about attention heads, where "),
        ("NeuronSimulationResults", HEADS, "NeuronSimulationResults: an object about neurons, where "),
        ("AttentionSimulationResults", NEURONS, "AttentionSimulationResults: an object about attention heads, where "),
        ("neuron_id", LATENTS, None),
        ("attention_head_id", PAIR_LATENTS, None),
    ],
)
def test_results_of_neurons_are_not_taken_for_heads_nor_the_other_way_round(
    tmp_path: Path, named: str, dataset: Dataset, line: str | None
) -> None:
    name = {"layer_index": 1, "neuron_index": 2, "head_index": 2}
    told = {named: name} if named.islower() else {"dataclass_name": named}
    good = {"scored_explanations": [{"explanation": "its"}]}
    write_lines(tmp_path / "in" / "1" / "2.jsonl", good | told)
    write_lines(tmp_path / "in" / "1" / "3.jsonl", good)
    summary, refused = take(tmp_path, tmp_path / "in", ImportOptions("me", dataset=dataset))
    assert summary.n_new == (2 if line is None else 1)
    assert [text.partition(":1: ")[2].startswith(line or "") for text in refused] == ([] if line is None else [True])


@needs_real
def test_the_real_neurons_explanations_come_out_as_published(tmp_path: Path) -> None:
    summary, refused = take(tmp_path, REAL / "data" / "explanations", ImportOptions("openai-xl", dataset=XL))
    assert (summary, refused) == (ImportSummary(6, 6, 0, 0), [])
    found = {
        (layer, unit): (text, given[0]["score"])
        for layer, unit, text, given in rows(tmp_path, "layer", "unit", "explanation", "scores")
    }
    for path in (REAL / "data/explanations").glob("*/*.jsonl"):
        (entry,) = json.loads(path.read_bytes())["scored_explanations"]
        published = entry["explanation"], entry["scored_simulation"]["ev_correlation_score"]
        assert found.pop((int(path.parent.name), int(path.stem))) == published
    assert not found


@needs_real
def test_eight_thousand_published_explanations_come_out_as_they_are(tmp_path: Path) -> None:
    how = ImportOptions("openai-xl", dataset=XL, score_kind="ev_correlation")
    summary, refused = take(tmp_path, REAL / "xl_explanations.jsonl.gz", how)
    with gzip.open(REAL / "xl_explanations.jsonl.gz") as file:
        entries = [json.loads(line) for line in file]
    assert (summary.n_new, refused) == (len(entries), [])
    found = [(*row[:3], row[3][0]["score"]) for row in rows(tmp_path, "layer", "unit", "explanation", "scores")]
    assert sorted(found) == sorted((e["layer"], int(e["unit"]), e["explanation"], e["score"]) for e in entries)


# Neuronpedia -------------------------------------------------------------------------------------------------------


def neuronpedia(index: object, **fields: object) -> dict[str, object]:
    return {
        "id": "c1", "modelId": "gpt2-small", "layer": "6-mlp", "index": str(index), "authorId": "a",
        "description": f"cats {index}", "embedding": "[0.0, 1.0]", "typeName": "oai_token-act-pair",
        "explanationModelName": "gpt-4o-mini", "umap_x": 0.5, **fields,
    }  # fmt: skip


def test_batches_of_neuronpedia_are_taken_as_units_of_the_dataset(tmp_path: Path) -> None:
    folder = tmp_path / "6-mlp" / "explanations"
    folder.mkdir(parents=True)
    scored = neuronpedia(
        3,
        createdAt="2026-01-31T12:00:00.000Z",
        scores=[
            {"value": 0.75, "explanationScoreTypeName": "eleuther_fuzz", "explanationScoreModelName": "m1"},
            {"value": 0.5, "explanationScoreTypeName": "eleuther_fuzz", "explanationScoreModelName": "m2"},
            {"value": 0.25, "explanationScoreTypeName": "eleuther_recall", "explanationScoreModelName": "m1"},
        ],
    )
    for number, batch in enumerate([[neuronpedia(2), scored], [neuronpedia(4, typeName=None)]]):
        with gzip.open(folder / f"batch-{number}.jsonl.gz", "wt") as stream:
            stream.writelines(json.dumps(line) + "\n" for line in batch)
    summary, refused = take(tmp_path, folder)
    assert (summary, refused) == (ImportSummary(2, 3, 0, 0), [])
    assert rows(tmp_path, "component", "layer", "unit", "explanation", "explainer") == [
        ("mlp_post_act", 6, 2, "cats 2", "gpt-4o-mini, oai_token-act-pair"),
        ("mlp_post_act", 6, 3, "cats 3", "gpt-4o-mini, oai_token-act-pair"),
        ("mlp_post_act", 6, 4, "cats 4", "gpt-4o-mini"),
    ]
    assert scores(tmp_path) == [{}, {"eleuther_fuzz": 0.75, "eleuther_fuzz (m2)": 0.5, "eleuther_recall": 0.25}, {}]


def test_what_the_api_of_neuronpedia_gives_is_taken(tmp_path: Path) -> None:
    feature = {"modelId": "gpt2-small", "layer": "6-mlp", "index": "9", "explanations": [{"description": "of it"}]}
    listed = tmp_path / "listed.json"
    listed.write_text(json.dumps([neuronpedia(1), neuronpedia(2)], indent=2))
    single = tmp_path / "single.json"
    single.write_text(json.dumps(feature, indent=2))
    assert take(tmp_path, listed)[0].n_new == 2
    assert take(tmp_path, single)[0].n_new == 1
    assert rows(tmp_path, "unit", "explanation") == [(1, "cats 1"), (2, "cats 2"), (9, "of it")]


def test_sources_of_another_set_are_not_taken_for_the_dataset(tmp_path: Path) -> None:
    lines = [
        neuronpedia(1),
        neuronpedia(2, layer="6-res-jb"),
        neuronpedia(3, modelId="gemma"),
        neuronpedia(4, layer="x"),
    ]
    summary, refused = take(tmp_path, write_lines(tmp_path / "mixed.jsonl", *lines))
    assert (summary.n_new, summary.n_refused) == (1, 3)
    assert "'res-jb' of gpt2-small, where this import began with 'mlp'" in refused[0]
    assert "not a source as 6-res-jb" in refused[2]
    chosen = ImportOptions("me", dataset=NEURONS, source_set="res-jb")
    assert take(tmp_path, tmp_path / "mixed.jsonl", chosen)[0].n_new == 1
    assert [unit for (unit,) in rows(tmp_path, "unit")] == [1, 2]


def test_our_own_export_for_neuronpedia_comes_back_with_its_scores_and_nothing_beside_them(
    tmp_path: Path, job_reader: LakeReader
) -> None:
    write(job_reader, "neuronpedia", tmp_path / "out", "model = 'gpt2-xl'")
    (tmp_path / "out" / ".trash").mkdir()
    write_lines(tmp_path / "out" / ".trash" / "mine.jsonl", {"layer": 0, "unit": 0, "explanation": "thrown away"})
    said = job_reader.sql(
        "SELECT layer, unit, explanation, explainer, origin, score_kind, score FROM explanations "
        "WHERE model = 'gpt2-xl' AND origin = 'openai' ORDER BY ALL"
    ).rows()
    assert len(said) > 1
    summary, refused = take(tmp_path, tmp_path / "out", ImportOptions(dataset=XL))
    assert (summary.n_new, refused) == (len(said), [])
    found = rows(tmp_path, "layer", "unit", "explanation", "explainer", "origin", "scores")
    assert sorted((*row[:5], row[5][0]["score_kind"], row[5][0]["score"]) for row in found) == sorted(said)


def test_an_export_for_neuronpedia_without_explanations_has_no_file_to_import(tmp_path: Path) -> None:
    write_lines(tmp_path / "out" / "0-mlp" / "features" / "batch-0.jsonl", neuronpedia(1))
    with pytest.raises(ImportFailure, match=r"no file of explanations \(\.jsonl, \.json, \.csv, \.tsv\) is there$"):
        take(tmp_path, tmp_path / "out")


def test_what_a_person_wrote_into_notes_is_no_score(tmp_path: Path) -> None:
    notes = ["nice", "{broken", '{"score": 1}', "[1]", None]
    take(tmp_path, write_lines(tmp_path / "a.jsonl", *(neuronpedia(i, notes=note) for i, note in enumerate(notes))))
    assert scores(tmp_path) == [{}] * len(notes)


# delphi ------------------------------------------------------------------------------------------------------------


def example(activating: bool, prediction: bool | None, probability: float | None = None) -> dict[str, object]:
    return {
        "str_tokens": ["a"], "activations": [1.0], "distance": 1, "activating": activating, "prediction": prediction,
        "probability": probability, "correct": prediction == activating,
    }  # fmt: skip


def test_the_results_of_delphi_are_taken_with_the_figures_of_their_scorers(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    write_lines(folder / "explanations" / "layers.5.mlp_latent131.txt", '"cats"')
    write_lines(folder / "explanations" / "layers.6.mlp_latent2.txt", '"dogs"')
    write_lines(folder / "explanations" / "5.blocks.7_latent3.txt", '"birds"')
    write_lines(folder / "explanations" / "layers.7.mlp_latent4.txt", "null")
    asked = [example(True, True), example(True, False), example(False, False), example(False, None)]
    write_lines(folder / "scores" / "detection" / "layers.5.mlp_latent131.txt", asked)
    write_lines(folder / "scores" / "fuzz" / "layers.5.mlp_latent131.txt", [example(True, True, 0.75)])
    summary, refused = take(tmp_path, folder)
    assert (summary.n_new, summary.n_refused) == (2, 2)
    assert "has 2 numbers for a layer: give --layer" in refused[0]
    assert "null, not an explanation" in refused[1] or "None" in refused[1]
    assert rows(tmp_path, "layer", "unit", "explanation") == [(5, 131, "cats"), (6, 2, "dogs")]
    assert scores(tmp_path) == [
        {
            "detection_balanced_accuracy": 0.75, "detection_f1": 2 / 3, "fuzzing_balanced_accuracy": None,
            "fuzzing_f1": 1.0, "fuzzing_roc_auc": None,
        },
        {},
    ]  # fmt: skip
    assert take(tmp_path, folder, ImportOptions("me", dataset=NEURONS, layer=9))[0].n_new == 3


def test_delphis_simulation_is_the_correlation_over_all_texts_and_other_scores_are_reported(tmp_path: Path) -> None:
    folder = tmp_path / "results"

    def simulated(distance: int, score: object, n: int) -> dict[str, object]:
        return {"distance": distance, "ev_correlation_score": score, "scored_sequence_simulations": n * [{}]}

    listed = {
        "layers.5.mlp_latent1.txt": [simulated(1, 0.25, 2), simulated(0, 0.5, 4), simulated(-1, 0.75, 6)],
        "layers.5.mlp_latent2.txt": [simulated(1, 0.25, 2), simulated(0, "nan", 4)],
        "layers.5.mlp_latent3.txt": [simulated(1, 0.25, 2), {"distance": [], "ev_correlation_score": 1}],
        "layers.5.mlp_latent4.txt": {},
    }
    for name, content in listed.items():
        write_lines(folder / "explanations" / name, f'"{name}"')
        write_lines(folder / "scores" / "simulation" / name, json.dumps(content))
        write_lines(folder / "scores" / "embedding" / name, "[]")
    write_lines(folder / "scores" / "detection" / "layers.5.mlp_latent3.txt", json.dumps([example(True, True), 3]))
    write_lines(folder / "scores" / "detection" / "layers.5.mlp_latent4.txt", json.dumps([example(True, True, 0.5)]))
    summary, refused = take(tmp_path, folder)
    assert summary.n_new == len(listed)
    assert rows(tmp_path, "scores")[0][0][0]["n_scored"] == 6
    assert [set(found) for found in scores(tmp_path)[2:]] == [
        set(),
        {"detection_balanced_accuracy", "detection_f1", "detection_roc_auc"},
    ]
    assert scores(tmp_path)[:2] == [{"ev_correlation": 0.75}, {"ev_correlation": None}]
    assert [line.partition(": ")[0] for line in refused] == [
        "/scores/embedding",
        "/scores/detection/layers.5.mlp_latent3.txt",
        "/scores/simulation/layers.5.mlp_latent3.txt",
        "/scores/simulation/layers.5.mlp_latent4.txt",
    ]
    assert "not read, only those of detection, fuzz, intruder, simulation" in refused[0]


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from([0.0, 0.25, 0.5, 1.0])), min_size=1))
def test_figures_are_those_of_scikit_learn(examples: list[tuple[bool, bool, float]]) -> None:
    truths, guesses, probabilities = map(list, zip(*examples, strict=True))
    found = {s.score_kind: s.score for s in classification_scores(list(examples), "x")}
    if any(truths):
        assert found["x_f1"] == pytest.approx(f1_score(truths, guesses))
    if any(truths) and not all(truths):
        assert found["x_balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truths, guesses))
        assert found["x_roc_auc"] == pytest.approx(roc_auc_score(truths, probabilities))
    else:
        assert found["x_balanced_accuracy"] is found["x_roc_auc"] is None


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_a_probability_that_is_not_finite_is_missing(odd: float) -> None:
    kinds = [s.score_kind for s in classification_scores([(True, True, odd), (False, False, 0.25)], "x")]
    assert kinds == ["x_balanced_accuracy", "x_f1"]


def test_a_folder_that_cannot_be_read_to_its_end_gives_what_can_be(tmp_path: Path) -> None:
    packed = gzip.compress(
        b"".join(
            b'{"layer": 0, "unit": %d, "explanation": "%s"}\n' % (unit, os.urandom(20).hex().encode())
            for unit in range(2000)
        )
    )
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    summary, refused = take(tmp_path, tmp_path / "cut.jsonl.gz")
    assert 0 < summary.n_new < 2000
    assert "cannot be read to its end" in refused[-1]
