"""A mirror: made files in the bucket's tree, for the demo, the tests and the benchmarks. Needs no network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from warehouse.datasets import Dataset, builtin_datasets
from warehouse.mirror.forms import BadForm, Form, choose_form, encode_unit, spoil
from warehouse.mirror.siblings import encode_sibling
from warehouse.mirror.text import Corpus, Vocabulary, make_corpus
from warehouse.mirror.units import MadeUnit, Manner, Plant, RecordCounts, make_unit
from warehouse.records import UnitId


@dataclass(frozen=True, slots=True)
class MirrorSpec:
    """Which files a mirror has, and how they are made.

    Attributes:
        datasets: whose units to make; a sibling's files are about the units that its own mirror would have.
        layers: layers to make, of each dataset that has them.
        units: units to make in each layer, of each dataset that has them.
        counts: records in each list of a unit.
        vocabulary: `gpt2` to measure with, `english` to read.
        n_excerpts: excerpts in the corpus that all units share; 50,000 in the published XL data.
        n_tokens: tokens of each excerpt; 64 there.
        dead_share: part of the latents that never fire, 0 to 1.
        path: template under the root with {layer} and {unit}; None for the first that a dataset names.
        absent: units without a file; those that are not asked for are nobody's gap.
        bad: units whose file is spoilt.
        manners: latents per token that fire in another than the usual manner.
        twins: units with the activations of another one of their dataset, which is the value.
    """

    datasets: tuple[Dataset, ...]
    layers: tuple[int, ...] = (0,)
    units: tuple[int, ...] = (0,)
    counts: RecordCounts = RecordCounts()
    vocabulary: Vocabulary = "gpt2"
    n_excerpts: int = 50_000
    n_tokens: int = 64
    dead_share: float = 0.05
    path: str | None = None
    absent: frozenset[UnitId] = frozenset()
    bad: Mapping[UnitId, BadForm] = field(default_factory=dict)
    manners: Mapping[UnitId, Manner] = field(default_factory=dict)
    twins: Mapping[UnitId, UnitId] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MirrorReport:
    """What was made.

    Attributes:
        planted: the tokens planted in each good unit, strongest first; none in a dead one. Of a sibling, in the unit
            that its file is about.
        forms: the form of each good file.
        absent: units in the asked range without a file.
        bad: units whose file is spoilt, and how.
        n_bytes: bytes of all files.
    """

    planted: dict[UnitId, tuple[Plant, ...]]
    forms: dict[UnitId, Form]
    absent: tuple[UnitId, ...]
    bad: dict[UnitId, BadForm]
    n_bytes: int

    @property
    def n_files(self) -> int:
        """Files written, the bad ones too."""
        return len(self.forms) + len(self.bad)


def make_mirror(root: Path, spec: MirrorSpec, seed: int = 0) -> MirrorReport:
    """Write the files of a mirror.

    A unit's file depends on the seed, the unit's name and the spec's manner (counts, corpus, dead_share), and not on
    which others are made: parts of one mirror can be made by several processes.

    Args:
        root: folder that stands for the bucket's `neuron-explainer/`; made if need be.
        spec: which files, and how.
        seed: of all random draws.

    Raises:
        OSError: a file cannot be written.
    """
    corpus = make_corpus(spec.vocabulary, spec.n_excerpts, spec.n_tokens, seed)
    known = builtin_datasets()
    planted: dict[UnitId, tuple[Plant, ...]] = {}
    forms: dict[UnitId, Form] = {}
    absent: list[UnitId] = []
    bad: dict[UnitId, BadForm] = {}
    n_bytes = 0
    for dataset, unit_id in _iterate_units(spec):
        if unit_id in spec.absent:
            absent.append(unit_id)
            continue
        template = spec.path or dataset.paths[0]
        own = known.get(f"{dataset.model}/{dataset.about_component}", dataset)
        made = _make(spec, own, own.unit_id(unit_id.layer, unit_id.unit), corpus, seed)
        form = choose_form(template, unit_id.unit)
        is_sibling = dataset.holds != "activations"
        data = encode_sibling(dataset, made, corpus, seed) if is_sibling else encode_unit(made, form)
        if unit_id in spec.bad:
            bad[unit_id] = spec.bad[unit_id]
            data = spoil(data, bad[unit_id])
        else:
            planted[unit_id] = made.plants
            forms[unit_id] = form
        path = root / template.format(layer=unit_id.layer, unit=unit_id.unit)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_bytes() != data:  # a file that is there already keeps its time
            path.write_bytes(data)
        n_bytes += len(data)
    return MirrorReport(planted, forms, tuple(absent), bad, n_bytes)


def _make(spec: MirrorSpec, dataset: Dataset, unit_id: UnitId, corpus: Corpus, seed: int) -> MadeUnit:
    source = spec.twins.get(unit_id, unit_id)
    manner = spec.manners.get(source, "usual")
    made = make_unit(dataset, source.layer, source.unit, corpus, spec.counts, spec.dead_share, seed, manner)
    return replace(made, layer=unit_id.layer, unit=unit_id.unit)


def demo_spec() -> MirrorSpec:
    """Give the demo's mirror: two layers of 32 units (12 heads) of every dataset, with gaps and bad files to meet.

    Its records are as many as OpenAI's explainer needs (20 top, 15 random), of 32 tokens of made English. One layer has
    a near-dead latent, one that fires on one token in one context, and two that are the same.
    """
    known = builtin_datasets()
    odd = known["gpt2-small/mlp_post_act_ae_v4"]
    return MirrorSpec(
        datasets=tuple(known.values()),
        layers=(0, 5),
        units=tuple(range(32)),
        counts=RecordCounts(top=20, random=15, per_bucket=2),
        vocabulary="english",
        n_excerpts=2_000,
        n_tokens=32,
        absent=frozenset(
            {
                UnitId("gpt2-small", "mlp_post_act", 0, 13),
                UnitId("gpt2-small", "resid_delta_mlp_ae_v4", 5, 30),
                UnitId("gpt2-xl", "mlp_post_act", 5, 7),
            }
        ),
        bad={
            UnitId("gpt2-xl", "mlp_post_act", 0, 21): "truncated",
            UnitId("gpt2-small", "mlp_post_act", 5, 18): "html",
            UnitId("gpt2-small", "mlp_post_act_ae_v1", 0, 9): "garbage",
        },
        manners={odd.unit_id(5, 12): "rare", odd.unit_id(5, 30): "in_context"},
        twins={odd.unit_id(5, 27): odd.unit_id(5, 26)},
    )


def _iterate_units(spec: MirrorSpec) -> list[tuple[Dataset, UnitId]]:
    return [
        (dataset, UnitId(dataset.model, dataset.component, layer, unit))
        for dataset in spec.datasets
        for layer in spec.layers
        if layer < dataset.n_layers
        for unit in spec.units
        if unit < dataset.units_per_layer
    ]
