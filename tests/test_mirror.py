from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from warehouse.datasets import Dataset, builtin_datasets
from warehouse.mirror import FAMOUS_TOKEN, MirrorReport, MirrorSpec, Plant, RecordCounts, demo_spec, make_mirror
from warehouse.mirror.__main__ import app
from warehouse.mirror.forms import PT_FORMS
from warehouse.records import UnitId

XL = builtin_datasets()["gpt2-xl/mlp_post_act"]
HEADS = builtin_datasets()["gpt2-small/attn_write_norm"]
LATENTS = builtin_datasets()["gpt2-small/mlp_post_act_ae_v4"]
PAIR_LATENTS = builtin_datasets()["gpt2-small/resid_delta_attn_ae_v4_by_pair"]
AS_JSON = "made/{layer}/{unit}.json"

SMALL = MirrorSpec(
    (XL,),
    layers=(0, 1),
    units=tuple(range(6)),
    counts=RecordCounts(top=4, random=6, per_bucket=2),
    vocabulary="english",
    n_excerpts=400,
    n_tokens=16,
)


def read_tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def read_units(root: Path, template: str, report: MirrorReport) -> Iterator[tuple[UnitId, dict[str, Any]]]:
    for unit_id in report.forms:
        path = root / template.format(layer=unit_id.layer, unit=unit_id.unit)
        yield unit_id, json.loads(path.read_bytes())


def all_records(unit: dict[str, Any]) -> list[dict[str, Any]]:
    buckets = [record for bucket in unit["random_sample_by_quantile"] for record in bucket]
    return [*unit["most_positive_activation_records"], *unit["random_sample"], *buckets]


def n_trapezium_values(n_tokens: int, n_keys: int) -> int:
    return sum(min(i + 1, n_keys) for i in range(n_tokens))


@pytest.mark.parametrize("dataset", [XL, HEADS, LATENTS, PAIR_LATENTS], ids=lambda d: d.key)
def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(tmp_path: Path, dataset: Dataset) -> None:
    spec = replace(SMALL, datasets=(dataset,))
    first = make_mirror(tmp_path / "first", spec, seed=3)
    second = make_mirror(tmp_path / "second", spec, seed=3)
    make_mirror(tmp_path / "other", spec, seed=4)
    assert first == second
    assert read_tree(tmp_path / "first") == read_tree(tmp_path / "second")
    assert read_tree(tmp_path / "first") != read_tree(tmp_path / "other")


def test_a_unit_is_the_same_whatever_else_is_made(tmp_path: Path) -> None:
    everything = make_mirror(tmp_path / "all", replace(SMALL, datasets=(LATENTS, HEADS, XL)))
    alone = make_mirror(tmp_path / "alone", replace(SMALL, layers=(1,), units=(4,)))
    assert len(alone.forms) == 1
    for path, data in read_tree(tmp_path / "alone").items():
        assert (tmp_path / "all" / path).read_bytes() == data
    assert alone.planted.items() <= everything.planted.items()


def test_files_lie_where_the_registry_says(tmp_path: Path) -> None:
    report = make_mirror(tmp_path, replace(SMALL, datasets=tuple(builtin_datasets().values()), units=(0, 11, 12)))
    expected = {
        dataset.paths[0].format(layer=layer, unit=unit)
        for dataset in builtin_datasets().values()
        for layer in (0, 1)
        for unit in (0, 11, 12)
        if (dataset, unit) != (HEADS, 12)
    }
    tree = read_tree(tmp_path)
    assert set(tree) == expected
    assert report.n_files == len(expected)
    assert report.n_bytes == sum(map(len, tree.values()))


@pytest.mark.parametrize("dataset", [XL, LATENTS], ids=lambda d: d.key)
def test_a_planted_token_has_the_largest_activation_of_the_first_top_record(tmp_path: Path, dataset: Dataset) -> None:
    report = make_mirror(tmp_path, replace(SMALL, datasets=(dataset,), path=AS_JSON, dead_share=0.0))
    for unit_id, unit in read_units(tmp_path, AS_JSON, report):
        best = unit["most_positive_activation_records"][0]
        token = best["tokens"][int(np.argmax(best["activations"]))]
        strength = {plant.token: plant.strength for plant in report.planted[unit_id]}[token]
        assert 0.7 * strength - 0.01 <= max(best["activations"]) <= strength + 0.01


@pytest.mark.parametrize("dataset", [HEADS, PAIR_LATENTS], ids=lambda d: d.key)
def test_a_planted_token_pair_has_the_largest_activation_of_the_first_top_record(
    tmp_path: Path, dataset: Dataset
) -> None:
    report = make_mirror(
        tmp_path, replace(SMALL, datasets=(dataset,), units=(0, 1, 2, 3), path=AS_JSON, dead_share=0.0)
    )
    for unit_id, unit in read_units(tmp_path, AS_JSON, report):
        best = unit["most_positive_activation_records"][0]
        query, key = (int(i) for i in np.argwhere(np.tri(16, dtype=bool))[int(np.argmax(best["activations"]))])
        pairs = {(plant.token, plant.key_token) for plant in report.planted[unit_id]}
        assert (best["tokens"][query], best["tokens"][key]) in pairs


def test_top_records_are_best_first_and_buckets_weakest_first(tmp_path: Path) -> None:
    report = make_mirror(tmp_path, SMALL)
    for _, unit in read_units(tmp_path, XL.paths[0], report):
        best = [max(record["activations"]) for record in unit["most_positive_activation_records"]]
        assert best == sorted(best, reverse=True)
        buckets = [[max(record["activations"]) for record in b] for b in unit["random_sample_by_quantile"]]
        for lower, boundary, upper in zip(buckets, unit["quantile_boundaries"], buckets[1:], strict=False):
            assert max(lower) <= np.float32(boundary) <= min(upper)


def test_the_famous_token_is_planted_in_every_dataset_of_the_demo(tmp_path: Path) -> None:
    report = make_mirror(tmp_path, replace(demo_spec(), layers=(0,), units=(0,)))
    first_plants = {f"{u.model}/{u.component}": plants[0].token for u, plants in report.planted.items()}
    assert first_plants == dict.fromkeys(builtin_datasets(), FAMOUS_TOKEN)


def test_a_file_has_as_many_records_as_asked_for(tmp_path: Path) -> None:
    report = make_mirror(tmp_path, replace(SMALL, counts=RecordCounts(top=5, random=7, per_bucket=3, buckets=4)))
    for unit_id, unit in read_units(tmp_path, XL.paths[0], report):
        assert unit["neuron_id"]["layer_index"] == unit_id.layer
        assert unit["neuron_id"]["neuron_index"] == unit_id.unit
        assert len(unit["most_positive_activation_records"]) == 5
        assert len(unit["random_sample"]) == 7
        assert [len(bucket) for bucket in unit["random_sample_by_quantile"]] == [3, 3, 3, 3]
        assert len(unit["quantile_boundaries"]) == 3


def test_neurons_are_negative_on_84_percent_of_a_random_sample_in_float16_with_four_decimals(tmp_path: Path) -> None:
    counts = RecordCounts(top=4, random=40, per_bucket=1)
    spec = replace(SMALL, vocabulary="gpt2", counts=counts, n_excerpts=2_000, n_tokens=64)
    report = make_mirror(tmp_path, spec)
    units = [unit for _, unit in read_units(tmp_path, XL.paths[0], report)]
    sample = np.array([record["activations"] for unit in units for record in unit["random_sample"]])
    assert 0.83 < (sample < 0).mean() < 0.85
    assert sample.min() >= -0.17
    np.testing.assert_array_equal(np.round(sample.astype(np.float16).astype(np.float64), 4), sample)


def test_latents_are_zero_on_nearly_every_token_and_never_negative(tmp_path: Path) -> None:
    report = make_mirror(tmp_path, replace(SMALL, datasets=(LATENTS,), path=AS_JSON, dead_share=0.0))
    for _, unit in read_units(tmp_path, AS_JSON, report):
        sample = np.array([record["activations"] for record in unit["random_sample"]])
        assert (sample == 0).mean() > 0.8
        assert sample.min() >= 0


def test_token_pairs_fill_a_triangle_or_a_trapezium(tmp_path: Path) -> None:
    report = make_mirror(tmp_path, replace(SMALL, datasets=(HEADS, PAIR_LATENTS), path=AS_JSON, dead_share=0.0))
    lengths = {
        unit_id.unit: {len(record["activations"]) for record in all_records(unit)}
        for unit_id, unit in read_units(tmp_path, AS_JSON, report)
    }
    triangle, trapezium = {n_trapezium_values(16, 16)}, {n_trapezium_values(16, 8)}
    assert lengths == {0: triangle, 1: triangle, 2: triangle, 3: triangle, 4: trapezium, 5: triangle}


def test_heads_are_never_negative_and_pair_latents_have_both_signs(tmp_path: Path) -> None:
    heads = make_mirror(tmp_path / "heads", replace(SMALL, datasets=(HEADS,), path=AS_JSON))
    latents = make_mirror(tmp_path / "latents", replace(SMALL, datasets=(PAIR_LATENTS,), path=AS_JSON, dead_share=0.0))
    for _, unit in read_units(tmp_path / "heads", AS_JSON, heads):
        assert min(min(record["activations"]) for record in all_records(unit)) >= 0
    for _, unit in read_units(tmp_path / "latents", AS_JSON, latents):
        values = np.concatenate([record["activations"] for record in all_records(unit)])
        assert values.min() < 0 < values.max()


def test_moments_are_those_of_the_values_when_every_excerpt_is_in_the_sample(tmp_path: Path) -> None:
    spec = replace(SMALL, n_excerpts=60, counts=RecordCounts(top=2, random=60, per_bucket=0))
    report = make_mirror(tmp_path, spec)
    for _, unit in read_units(tmp_path, XL.paths[0], report):
        values = np.array([record["activations"] for record in unit["random_sample"]])
        z = (values - values.mean()) / values.std()
        moments = [unit[name] for name in ("mean", "variance", "skewness", "kurtosis")]
        np.testing.assert_allclose(moments, [values.mean(), values.var(), (z**3).mean(), (z**4).mean()], rtol=1e-4)


def test_dead_latents_are_empty_or_zero_with_undefined_moments_as_null_or_bare_nan(tmp_path: Path) -> None:
    spec = replace(SMALL, datasets=(LATENTS,), units=tuple(range(1, 13)), dead_share=1.0, path=AS_JSON)
    report = make_mirror(tmp_path, spec)
    assert set(report.planted.values()) == {()}
    n_empty, written = 0, set()
    for _, unit in read_units(tmp_path, AS_JSON, report):
        records = all_records(unit)
        n_empty += not records
        assert len(unit["random_sample_by_quantile"]) == 5
        assert all(value == 0 for record in records for value in record["activations"])
        written.add("null" if unit["skewness"] is None else "NaN" if math.isnan(unit["kurtosis"]) else "number")
    assert 0 < n_empty < len(report.forms)
    assert written == {"null", "NaN"}


def test_a_latent_can_be_near_dead_a_twin_or_of_one_token_in_one_context(tmp_path: Path) -> None:
    rare, in_context, first, twin = (LATENTS.unit_id(0, unit) for unit in range(1, 5))
    spec = replace(
        SMALL,
        datasets=(LATENTS,),
        layers=(0,),
        units=(1, 2, 3, 4),
        counts=RecordCounts(top=20, random=40, per_bucket=20),
        path=AS_JSON,
        dead_share=0.0,
        manners={rare: "rare", in_context: "in_context"},
        twins={twin: first},
    )
    units = dict(read_units(tmp_path, AS_JSON, make_mirror(tmp_path, spec)))
    assert max(max(record["activations"]) for record in units[rare]["random_sample"]) == 0
    assert max(units[rare]["most_positive_activation_records"][0]["activations"]) > 0
    assert units[twin].pop("neuron_id") != units[first].pop("neuron_id")
    assert units[twin] == units[first]
    before: dict[bool, set[str]] = {True: set(), False: set()}
    for record in all_records(units[in_context]):
        places = zip(record["tokens"], record["tokens"][1:], record["activations"][1:], strict=False)
        for previous, token, activation in places:
            assert token == FAMOUS_TOKEN or activation == 0
            if token == FAMOUS_TOKEN:
                before[activation > 0].add(previous)
    assert len(before[True]) == 1
    assert before[False] and not before[True] & before[False]


def test_absent_units_have_no_file_and_bad_files_do_not_parse(tmp_path: Path) -> None:
    def name(unit: int) -> UnitId:
        return UnitId(XL.model, XL.component, 0, unit)

    spec = replace(
        SMALL,
        layers=(0,),
        absent=frozenset({name(1), name(5), name(999)}),
        bad={name(2): "truncated", name(3): "html", name(0): "garbage", name(998): "html"},
    )
    report = make_mirror(tmp_path, spec)
    assert report.absent == (name(1), name(5))
    assert report.bad == {name(0): "garbage", name(2): "truncated", name(3): "html"}
    assert set(report.forms) == set(report.planted) == {name(4)}
    assert {Path(path).stem for path in read_tree(tmp_path)} == {"0", "2", "3", "4"}
    for unit_id in report.bad:
        with pytest.raises(ValueError, match="."):
            json.loads((tmp_path / XL.paths[0].format(layer=0, unit=unit_id.unit)).read_bytes())


def test_the_demo_has_absentees_and_bad_files_among_its_units(tmp_path: Path) -> None:
    spec = demo_spec()
    gaps = {u.unit for u in spec.absent} | {u.unit for u in spec.bad}
    report = make_mirror(tmp_path, replace(spec, units=tuple(gaps), counts=RecordCounts(2, 2, 1)))
    assert set(report.absent) == spec.absent
    assert report.bad == spec.bad


def test_every_form_of_pt_holds_the_unit_that_the_json_holds(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    spec = replace(SMALL, datasets=(LATENTS,), layers=(0,), dead_share=0.0)
    report = make_mirror(tmp_path, spec)
    make_mirror(tmp_path, replace(spec, path=AS_JSON))
    assert tuple(report.forms.values()) == PT_FORMS
    for unit_id, form in report.forms.items():
        path = tmp_path / LATENTS.paths[0].format(layer=0, unit=unit_id.unit)
        expected = json.loads((tmp_path / AS_JSON.format(layer=0, unit=unit_id.unit)).read_bytes())
        assert path.read_bytes().startswith(b"PK") == (form != "legacy")
        if form == "object":
            with pytest.raises(Exception, match=r"neuron_explainer\.activations\.activations\.NeuronRecord"):
                torch.load(path, weights_only=True)
            continue
        content = torch.load(path, weights_only=True)
        content = json.loads(content) if form == "json_string" else content
        assert content["mean"] == expected["mean"]
        wanted = expected["most_positive_activation_records"]
        found = content["most_positive_activation_records"]
        if form == "stacked":
            assert found["tokens"].shape == found["activations"].shape == (4, 16)
            found = [{"activations": row} for row in found["activations"]]
        else:
            assert [record["tokens"] for record in found] == [record["tokens"] for record in wanted]
        for got, want in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(np.float32(got["activations"]), np.float32(want["activations"]))


def test_the_made_english_has_tokens_that_break_careless_readers(tmp_path: Path) -> None:
    spec = replace(SMALL, layers=(0,), n_excerpts=1_000, counts=RecordCounts(top=1, random=400, per_bucket=0))
    report = make_mirror(tmp_path, spec)
    tokens = {
        token
        for _, unit in read_units(tmp_path, XL.paths[0], report)
        for record in unit["random_sample"]
        for token in record["tokens"]
    }
    assert {"\x00", "\\", '","', "\ufffd", "\n", "\t", ' ""', ","} <= tokens


def test_the_command_makes_the_units_it_is_asked_for(tmp_path: Path) -> None:
    options = ["--dataset", "gpt2-xl/mlp_post_act", "--layers", "3", "--units", "0-1,5", "--vocabulary", "english"]
    result = CliRunner().invoke(app, [str(tmp_path), *options])
    assert result.exit_code == 0, result.output
    assert set(read_tree(tmp_path)) == {f"data/collated-activations/3/{unit}.json" for unit in (0, 1, 5)}


def test_the_command_makes_siblings_where_they_are_named_and_not_for_a_model(tmp_path: Path) -> None:
    options = ["--units", "0-1", "--vocabulary", "english"]
    for name in ("gpt2-xl", "gpt2-xl/explanations", "gpt2-xl/related_neurons"):
        result = CliRunner().invoke(app, [str(tmp_path / name.replace("/", "-")), "--dataset", name, *options])
        assert result.exit_code == 0, result.output
    assert set(read_tree(tmp_path)) == {
        f"{folder}/0/{unit}.{suffix}"
        for unit in (0, 1)
        for folder, suffix in (
            ("gpt2-xl/data/collated-activations", "json"),
            ("gpt2-xl-explanations/data/explanations", "jsonl"),
            ("gpt2-xl-related_neurons/data/related-neurons/weight-based", "json"),
        )
    }


def test_explanations_are_about_the_units_of_the_same_mirror_and_have_a_bare_nan_where_a_score_is_undefined(
    tmp_path: Path,
) -> None:
    explanations = builtin_datasets()["gpt2-xl/explanations"]
    own = make_mirror(tmp_path, SMALL)
    report = make_mirror(tmp_path, replace(SMALL, datasets=(explanations,)))
    assert [plants for plants in report.planted.values()] == [plants for plants in own.planted.values()]
    scores = []
    for unit_id, results in read_units(tmp_path, explanations.paths[0], report):
        (explanation,) = results["scored_explanations"]
        unit = json.loads((tmp_path / XL.paths[0].format(layer=unit_id.layer, unit=unit_id.unit)).read_bytes())
        simulated = explanation["scored_simulation"]["scored_sequence_simulations"]
        records = unit["most_positive_activation_records"] + unit["random_sample"][:5]
        assert [s["simulation"]["tokens"] for s in simulated] == [r["tokens"] for r in records]
        scores += [s["ev_correlation_score"] for s in simulated]
    assert 0 < sum(map(math.isnan, scores)) < len(scores) / 3


def test_the_command_refuses_an_unknown_dataset_and_a_bad_range(tmp_path: Path) -> None:
    for options in (["--dataset", "gpt5/x"], ["--dataset", "gpt2-xl", "--units", "1-x"]):
        assert CliRunner().invoke(app, [str(tmp_path), *options]).exit_code == 2
    assert read_tree(tmp_path) == {}


def test_a_plant_names_a_key_token_only_where_activations_are_of_pairs(tmp_path: Path) -> None:
    report = make_mirror(tmp_path, replace(SMALL, datasets=(XL, HEADS), units=(0,), layers=(0,)))
    neuron, head = report.planted.values()
    assert isinstance(neuron[0], Plant)
    assert neuron[0].key_token is None
    assert (head[0].token, head[0].key_token) == (FAMOUS_TOKEN, " France")
