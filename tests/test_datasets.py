"""The registry: the nine datasets, and those of other models."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import warehouse
from tests.builds import build, spell, write_units
from warehouse.catalogue import build_catalogue
from warehouse.checks import run_checks
from warehouse.datasets import activation_datasets, builtin_datasets, parse_registration, select_datasets
from warehouse.errors import InvalidRegistration, UnknownDataset
from warehouse.export import export_neuron_records, iterate_neuron_records
from warehouse.lake import Lake
from warehouse.plan import Selection
from warehouse.records import ActivationRecord, NeuronRecord

# model/component, kind, per, layers, units per layer, and whether files may be .pt: as DATA.md of the sources has it.
EXPECTED = {
    "gpt2-small/mlp_post_act": ("neuron", "token", 12, 3072),
    "gpt2-small/attn_write_norm": ("head", "token_pair", 12, 12),
    "gpt2-small/mlp_post_act_ae_v1": ("latent", "token", 12, 32768),
    "gpt2-small/mlp_post_act_ae_v4": ("latent", "token", 12, 32768),
    "gpt2-small/resid_delta_mlp_ae_v1": ("latent", "token", 12, 32768),
    "gpt2-small/resid_delta_mlp_ae_v4": ("latent", "token", 12, 32768),
    "gpt2-small/resid_delta_attn_ae_v4": ("latent", "token", 12, 10240),
    "gpt2-small/resid_delta_attn_ae_v4_by_pair": ("latent", "token_pair", 12, 10240),
    "gpt2-xl/mlp_post_act": ("neuron", "token", 48, 6400),
}
LATENT_FOLDERS = {
    "mlp_post_act_ae_v1": ("mlp_post_act", "mlp_post_act_v1"),
    "mlp_post_act_ae_v4": ("mlp_post_act_v4", "mlp_post_act_v4"),
    "resid_delta_mlp_ae_v1": ("resid_delta_mlp", "resid_delta_mlp_v1"),
    "resid_delta_mlp_ae_v4": ("resid_delta_mlp_v4", "resid_delta_mlp_v4"),
    "resid_delta_attn_ae_v4": ("resid_delta_attn_v4", "resid_delta_attn_v4"),
    "resid_delta_attn_ae_v4_by_pair": ("resid_delta_attn_v4", "resid_delta_attn_v4"),
}
PAIR_FOLDERS = ("collated-activations-by-token-pair", "collated_activations_by_token_pair")

REGISTRATION = """
[[dataset]]
model = "pythia-70m"
component = "mlp.out"
kind = "neuron"
per = "token"
n_layers = 2
units_per_layer = 6
shard_units = 4
source = "our own run"
paths = ["pythia/{layer}/{unit}.json"]

[[dataset.notes]]
text = "Of the first 100 steps only."
source = "our own run"
"""


def change(line: str, by: str) -> str:
    """Give the registration with one line put otherwise."""
    name = line.partition(" ")[0]
    changed, n = re.subn(rf"^{name} .*$", lambda _: by, REGISTRATION, count=1, flags=re.MULTILINE)
    assert n == 1
    return changed


def with_path(path: str) -> str:
    return change("paths", f"paths = ['{path}']")


# the nine ------------------------------------------------------------------------------------------------------------


def test_the_nine_datasets_are_2162832_files() -> None:
    known = activation_datasets()
    found = {key: (d.kind, d.per, d.n_layers, d.units_per_layer) for key, d in known.items()}
    assert found == EXPECTED
    assert sum(d.n_layers * d.units_per_layer for d in known.values()) == 2_162_832


def test_neurons_have_the_one_path_that_all_sources_agree_on() -> None:
    known = builtin_datasets()
    assert known["gpt2-small/mlp_post_act"].paths == ("gpt2_small_data/collated-activations/{layer}/{unit}.json",)
    assert known["gpt2-xl/mlp_post_act"].paths == ("data/collated-activations/{layer}/{unit}.json",)


def test_heads_have_both_spellings_of_their_folder_with_the_seed_first() -> None:
    root = "gpt2_small/attn_write_norm"
    paths = tuple(f"{root}/{folder}/{{layer}}/{{unit}}.json" for folder in PAIR_FOLDERS)
    assert builtin_datasets()["gpt2-small/attn_write_norm"].paths == paths


@pytest.mark.parametrize("component", LATENT_FOLDERS)
def test_latents_have_every_variant_of_root_version_suffix_and_folder_with_the_seed_first(component: str) -> None:
    dataset = builtin_datasets()[f"gpt2-small/{component}"]
    seeds, codes = LATENT_FOLDERS[component]
    lasts = PAIR_FOLDERS if dataset.per == "token_pair" else ("collated-activations",)
    variants = {
        f"{root}/autoencoder_latent/{folder}/{last}/{{layer}}/{{unit}}.{suffix}"
        for root, folder in (("gpt2-small", seeds), ("gpt2_small", codes))
        for last in lasts
        for suffix in ("pt", "json")
    }
    assert set(dataset.paths) == variants
    assert len(dataset.paths) == len(variants)
    assert dataset.paths[0] == f"gpt2-small/autoencoder_latent/{seeds}/{lasts[0]}/{{layer}}/{{unit}}.pt"


@pytest.mark.parametrize("dataset", builtin_datasets().values(), ids=lambda d: d.key)
def test_every_fact_and_every_note_says_who_says_so(dataset: warehouse.datasets.Dataset) -> None:
    assert dataset.source.strip()
    assert dataset.tokenizer == ("gpt2" if dataset.holds == "activations" else None)
    for note in dataset.notes:
        assert note.text.endswith(".")
        assert note.source.strip()


def test_both_neuron_datasets_and_no_other_warn_of_the_optimised_gelu() -> None:
    warned = {
        key
        for key, d in activation_datasets().items()
        for note in d.notes
        if "GELU" in note.text and "0.0090" in note.text and "0.1736" in note.text and "30 Aug 2023" in note.source
    }
    assert warned == {"gpt2-small/mlp_post_act", "gpt2-xl/mlp_post_act"}


def test_a_model_means_all_of_its_datasets_and_each_is_given_once() -> None:
    known = builtin_datasets()
    assert [d.key for d in select_datasets(["gpt2-small", "gpt2-small/attn_write_norm", "gpt2-xl/"], known)] == [
        key for key in activation_datasets() if key.startswith("gpt2-small/")
    ] + ["gpt2-xl/mlp_post_act"]


def test_an_unknown_name_is_answered_with_the_nearest_and_all_known_ones() -> None:
    with pytest.raises(UnknownDataset) as caught:
        select_datasets(["gpt2-small/mlp_postact"], builtin_datasets())
    assert "did you mean gpt2-small/mlp_post_act" in str(caught.value)
    assert all(key in str(caught.value) for key in EXPECTED)


# siblings ------------------------------------------------------------------------------------------------------------

SIBLINGS = {
    "gpt2-small/explanations": ("explanations", 12, 3072, "gpt2_small_data/explanations/{layer}/{unit}.jsonl"),
    "gpt2-xl/explanations": ("explanations", 48, 6400, "data/explanations/{layer}/{unit}.jsonl"),
    "gpt2-xl/related_neurons": (
        "related_units", 48, 6400, "data/related-neurons/weight-based/{layer}/{unit}.json",
    ),
    "gpt2-xl/related_tokens_by_activation": (
        "related_tokens", 48, 6400, "data/related-tokens/activation-based/{layer}/{unit}.json",
    ),
    "gpt2-xl/related_tokens_by_weight": (
        "related_tokens", 48, 6400, "data/related-tokens/weight-based/{layer}/{unit}.json",
    ),
}  # fmt: skip


def test_the_siblings_have_a_file_about_every_neuron_of_their_model() -> None:
    found = {
        key: (d.holds, d.n_layers, d.units_per_layer, *d.paths)
        for key, d in builtin_datasets().items()
        if key not in activation_datasets()
    }
    assert found == SIBLINGS
    for key in SIBLINGS:
        sibling = builtin_datasets()[key]
        own = builtin_datasets()[f"{sibling.model}/{sibling.about_component}"]
        assert (own.kind, own.n_layers, own.units_per_layer) == ("neuron", sibling.n_layers, sibling.units_per_layer)


def test_a_model_does_not_mean_its_siblings_and_their_own_names_do() -> None:
    known = builtin_datasets()
    assert {d.holds for d in select_datasets(["gpt2-small", "gpt2-xl"], known)} == {"activations"}
    assert [d.key for d in select_datasets(list(SIBLINGS), known)] == list(SIBLINGS)


def test_explanations_of_both_models_warn_that_their_scores_cannot_be_compared() -> None:
    for key in ("gpt2-small/explanations", "gpt2-xl/explanations"):
        assert any("cannot be compared" in note.text for note in builtin_datasets()[key].notes)


# registration --------------------------------------------------------------------------------------------------------


def test_a_registered_dataset_is_built_queried_checked_and_exported_like_a_built_in_one(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    (dataset,) = lake.register(REGISTRATION, "pythia.toml")
    records = {
        (layer, unit): NeuronRecord(
            layer,
            unit,
            [ActivationRecord([" sun", " rain"], np.array([unit + 1, -1], np.float32))],
            [ActivationRecord([" rain", " sun"], np.array([-0.5, 0.25], np.float32))],
            mean=0.5,
        )
        for layer in range(2)
        for unit in range(5)
    }
    write_units(tmp_path, dataset, [(*place, record) for place, record in records.items()])
    summaries = build(lake, tmp_path, ["pythia-70m"])
    assert [(s.shard.layer, s.shard.first, s.ok, s.absent) for s in summaries] == [
        (0, 0, 4, 0), (0, 4, 1, 1), (1, 0, 4, 0), (1, 4, 1, 1),
    ]  # fmt: skip
    build_catalogue(lake)
    with warehouse.open(lake.root) as reader:
        best = reader.top_units(" sun", k=2, model="pythia-70m")
        assert best["unit_id"].to_list() == ["pythia-70m/mlp.out/0/4", "pythia-70m/mlp.out/1/4"]
        assert spell(reader.neuron_record("pythia-70m/mlp.out/1/3")) == spell(records[1, 3])
        coverage = reader.sql(
            "SELECT layer, expected, ok, absent FROM coverage WHERE model = 'pythia-70m' ORDER BY layer"
        )
        assert coverage.rows() == [(0, 6, 5, 1), (1, 6, 5, 1)]
        (note,) = reader.sql("SELECT notes FROM datasets WHERE model = 'pythia-70m'")["notes"]
        assert note == "Of the first 100 steps only. (our own run)"
    assert {result.name: result.n_failing for result in run_checks(lake) if result.n_failing} == {}
    assert export_neuron_records(lake, ["pythia-70m"], Selection(), tmp_path / "out") == 10
    assert (tmp_path / "out/pythia/1/4.json").read_bytes() == (tmp_path / "pythia/1/4.json").read_bytes()
    assert len(list(iterate_neuron_records(lake, dataset, Selection()))) == 10


def test_a_lake_with_a_registration_knows_it_and_the_nine_and_another_lake_does_not(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    lake.register(REGISTRATION, "pythia.toml")
    assert set(Lake(tmp_path / "lake").datasets()) == {*EXPECTED, *SIBLINGS, "pythia-70m/mlp.out"}
    assert set(Lake(tmp_path / "other").datasets()) == {*EXPECTED, *SIBLINGS}


def test_the_same_registration_twice_is_no_change(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.register(REGISTRATION, "pythia.toml")
    lake.register(REGISTRATION, "copy of pythia.toml")
    assert len(list((tmp_path / "datasets").iterdir())) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [(("a.b", "c"), ("a", "b.c")), (("m" * 100, "x" * 60), ("m" * 100, "x" * 61))],
    ids=["dots that shift", "names as long as can be"],
)
def test_registrations_with_like_names_do_not_replace_each_other(
    tmp_path: Path, first: tuple[str, str], second: tuple[str, str]
) -> None:
    lake = Lake(tmp_path)
    for model, component in (first, second):
        lake.register(REGISTRATION.replace("pythia-70m", model).replace("mlp.out", component), "some.toml")
    assert {"/".join(first), "/".join(second)} <= set(lake.datasets())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("this is no TOML", "line 1"),
        ("", "dataset"),
        ("dataset = []", "no [[dataset]]"),
        (change("model", ""), "`model`"),
        (change("paths", ""), "`paths`"),
        (change("kind", "kinds = 'neuron'"), "`kinds`"),
        (change("kind", "kind = 'synapse'"), "$.dataset[0].kind"),
        (change("per", "per = 'sentence'"), "$.dataset[0].per"),
        (change("n_layers", "n_layers = 'two'"), "$.dataset[0].n_layers"),
        (change("n_layers", "n_layers = 0"), "n_layers"),
        (change("n_layers", "n_layers = 10001"), "n_layers"),
        (change("units_per_layer", "units_per_layer = -1"), "units_per_layer"),
        (change("shard_units", "shard_units = 0"), "shard_units"),
        (change("paths", "paths = []"), "paths is empty"),
        (change("paths", "paths = 'a/{layer}/{unit}'"), "$.dataset[0].paths"),
        (change("model", "model = '../gpt2'"), "model '../gpt2'"),
        (change("model", "model = ''"), "model ''"),
        (change("component", "component = 'a/b'"), "component 'a/b'"),
        (change("component", "component = '.hidden'"), "component '.hidden'"),
        (change("component", "component = 'a=b'"), "component 'a=b'"),
        (change("component", 'component = "a\\nb"'), "component 'a\\nb'"),
        (change("source", "holds = 'opinions'"), "$.dataset[0].holds"),
        (change("source", "about = 'a/b'"), "about 'a/b'"),
        (change("source", "about = 'mlp.in'"), "about is 'mlp.in'"),
        (change("text", "note = 'x'"), "$.dataset[0].notes[0]"),
    ],
)  # fmt: skip
def test_a_wrong_registration_is_refused_with_its_file_and_the_key(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidRegistration) as caught:
        Lake(tmp_path / "lake").register(text, "mine.toml")
    assert str(caught.value).startswith("mine.toml: ")
    assert says in str(caught.value)
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize(
    "path",
    [
        "../{layer}/{unit}.json",
        "a/../../{layer}/{unit}.json",
        "{layer}/{unit}/..",
        "/etc/{layer}/{unit}",
        "file:///etc/{layer}/{unit}",
        "a\\\\{layer}\\\\{unit}",
        "{layer.__class__}/{unit}",
        "{layer}/{unit.__init__.__globals__}",
        "{layer}/{unit}/{0}",
        "{layer!r}/{unit}",
        "{layer:>999999999}/{unit}",
        "{layer}/{layer}/{unit}",
        "{{layer}}/{{unit}}",
        "{layer}/all.json",
        "{unit}.json",
        "{layer}/{unit",
        "x" * 600 + "{layer}/{unit}",
    ],
)
def test_a_hostile_or_useless_path_is_refused(path: str) -> None:
    with pytest.raises(InvalidRegistration, match=r"^mine\.toml: path "):
        parse_registration(with_path(path), "mine.toml")


@pytest.mark.parametrize("path", ["{layer}/{unit}", "..a/{layer}/{unit}..pt", "a b/ü%/{unit}/{layer}.json.gz"])
def test_an_unusual_but_harmless_path_is_taken(path: str) -> None:
    assert parse_registration(with_path(path), "mine.toml")[0].paths == (path,)


def test_a_built_in_dataset_cannot_be_redefined(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    text = REGISTRATION.replace("pythia-70m", "gpt2-xl").replace("mlp.out", "mlp_post_act")
    with pytest.raises(InvalidRegistration, match=r"^mine\.toml: gpt2-xl/mlp_post_act is known already"):
        lake.register(text, "mine.toml")
    assert lake.datasets() == builtin_datasets()


def test_a_registered_dataset_cannot_be_redefined(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.register(REGISTRATION, "pythia.toml")
    with pytest.raises(InvalidRegistration, match=r"^mine\.toml: pythia-70m/mlp\.out is known already"):
        lake.register(change("n_layers", "n_layers = 3"), "mine.toml")
    assert lake.datasets()["pythia-70m/mlp.out"].n_layers == 2


def test_a_dataset_cannot_be_in_one_file_twice(tmp_path: Path) -> None:
    with pytest.raises(InvalidRegistration, match=r"^mine\.toml: .*pythia-70m/mlp\.out"):
        Lake(tmp_path).register(REGISTRATION + change("n_layers", "n_layers = 3"), "mine.toml")
