"""Small lakes whose tables are counted in plain Python, so that what SQL says of them is a recount.

Activations are multiples of 1/64, so that every sum is exact and ties occur.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from itertools import groupby

import numpy as np
import pyarrow as pa

from warehouse.datasets import Dataset, builtin_datasets
from warehouse.lake import Lake
from warehouse.parts import Shard, shard_of
from warehouse.records import SECTIONS, ActivationRecord, NeuronRecord, Section, UnitId
from warehouse.schema import TABLES, arrow_schema

Row = dict[str, object]
VOCABULARY = [" the", "the", " The", " cat", "'s", '"', "\n", "\ufffd", " a,b", "\\", " été", "", "::", " theory"]


@dataclass(frozen=True)
class Occurrence:
    """One activation on one token, or pair of tokens."""

    section: Section
    on: tuple[str, ...]
    activation: float


@dataclass
class Figures:
    """What a unit does on a token or pair."""

    n: int = 0
    n_active: int = 0
    max_activation: float = -np.inf
    min_activation: float = np.inf
    sum_activation: float = 0.0
    n_random: int = 0
    sum_random: float = 0.0
    sum_positive: float = 0.0

    def add(self, seen: Occurrence) -> None:
        self.n += 1
        self.n_active += seen.activation > 0
        self.max_activation = max(self.max_activation, seen.activation)
        self.min_activation = min(self.min_activation, seen.activation)
        self.sum_activation += seen.activation
        self.sum_positive += max(seen.activation, 0.0)
        if seen.section == "random":
            self.n_random += 1
            self.sum_random += seen.activation


@dataclass(frozen=True)
class Content:
    """What a lake is made of: units by name, files that gave none, and rows by table of what siblings' files say."""

    units: dict[UnitId, NeuronRecord] = field(default_factory=dict)
    other_files: list[tuple[UnitId, str]] = field(default_factory=list)
    siblings: dict[UnitId, dict[str, list[Row]]] = field(default_factory=dict)

    @cached_property
    def figures(self) -> dict[UnitId, dict[tuple[str, ...], Figures]]:
        """Give the statistics of every unit."""
        per = {key: dataset.per for key, dataset in builtin_datasets().items()}
        return {name: count_figures(unit, per[f"{name.model}/{name.component}"]) for name, unit in self.units.items()}


def list_records(unit: NeuronRecord) -> Iterator[tuple[Section, int | None, int, ActivationRecord]]:
    """Give every record of a unit with its section, quantile and rank, in the order of its file."""
    for rank, record in enumerate(unit.most_positive_activation_records):
        yield "top", None, rank, record
    for rank, record in enumerate(unit.random_sample):
        yield "random", None, rank, record
    for quantile, bucket in enumerate(unit.random_sample_by_quantile or []):
        for rank, record in enumerate(bucket):
            yield "quantile", quantile, rank, record


def list_pairs(record: ActivationRecord) -> list[tuple[int, int, float]]:
    """Take a flattened triangle or trapezium apart by trying every number of keys."""
    for n_keys in range(1, len(record.tokens) + 1):
        places = [(q, k) for q in range(len(record.tokens)) for k in range(min(q + 1, n_keys))]
        if len(places) == len(record.activations):
            return [(q, k, float(a)) for (q, k), a in zip(places, record.activations, strict=True)]
    return []


def list_occurrences(unit: NeuronRecord, per: str) -> Iterator[Occurrence]:
    """Give every activation of a unit with what it is on."""
    for section, _, _, record in list_records(unit):
        if per == "token":
            for token, activation in zip(record.tokens, record.activations, strict=True):
                yield Occurrence(section, (token,), float(activation))
        else:
            for query, key, activation in list_pairs(record):
                yield Occurrence(section, (record.tokens[query], record.tokens[key]), activation)


def count_figures(unit: NeuronRecord, per: str) -> dict[tuple[str, ...], Figures]:
    """Count a unit's statistics: of the tokens it is active on, or of every pair."""
    figures: dict[tuple[str, ...], Figures] = {}
    for seen in list_occurrences(unit, per):
        figures.setdefault(seen.on, Figures()).add(seen)
    return {on: f for on, f in figures.items() if f.n_active or per == "token_pair"}


def largest_top(unit: NeuronRecord) -> float | None:
    """Give the largest activation of the top records."""
    return max((float(a) for r in unit.most_positive_activation_records for a in r.activations), default=None)


def write_lake(lake: Lake, content: Content) -> Lake:
    """Write a lake's parts, a shard at a time and each commit last."""
    lake.create()
    known = lake.datasets()
    for shard, rows in _rows_by_shard(known, content).items():
        for table, table_rows in rows.items():
            write_rows(lake, table, shard, table_rows)
    return lake


def write_rows(lake: Lake, table: str, shard: Shard, rows: Iterable[Row]) -> None:
    """Write one part, a row group for each unit."""
    with lake.write_part(table, shard) as part:
        if table == "files":
            part.commit_facts = {"source": "memory://mirror", "path": "{layer}/{unit}.json"}
        for _, group in groupby(sorted(rows, key=lambda row: str(row["unit"])), key=lambda row: row["unit"]):
            part.write(pa.Table.from_pylist(list(group), schema=arrow_schema(table)))


def _rows_by_shard(known: Mapping[str, Dataset], content: Content) -> dict[Shard, dict[str, list[Row]]]:
    shards: dict[Shard, dict[str, list[Row]]] = {}

    def rows_of(name: UnitId) -> dict[str, list[Row]]:
        shard = shard_of(known[f"{name.model}/{name.component}"], name.layer, name.unit)
        return shards.setdefault(shard, {table: [] for table in TABLES})

    for name, unit in content.units.items():
        for table, rows in unit_rows(name.unit, unit, known[f"{name.model}/{name.component}"].per).items():
            rows_of(name)[table] += rows
        rows_of(name)["files"].append(file_row(name.unit, "ok"))
    for name, sibling in content.siblings.items():
        for table, rows in sibling.items():
            rows_of(name)[table] += [{"unit": name.unit, "about": "mlp_post_act", **row} for row in rows]
        rows_of(name)["files"].append(file_row(name.unit, "ok"))
    for name, status in content.other_files:
        rows_of(name)["files"].append(file_row(name.unit, status))
    return shards


def file_row(unit: int, status: str) -> Row:
    """Make a row of files."""
    row: Row = {"unit": unit, "status": status, "uri": f"memory://mirror/{unit}.json"}
    if status == "ok":
        row |= {"format": "json", "bytes": 1000 + unit, "sha256": f"{unit:064x}", "fetched_at": datetime.now(UTC)}
    elif status != "absent":
        row |= {"error": f"{status} for a reason"}
    return row


def unit_rows(index: int, unit: NeuronRecord, per: str) -> dict[str, list[Row]]:
    """Make a unit's rows of every table but files."""
    records: list[Row] = []
    for section, quantile, rank, record in list_records(unit):
        values = [float(a) for a in record.activations]
        records.append(
            {
                "unit": index,
                "section": section,
                "quantile": quantile,
                "rank": rank,
                "tokens": record.tokens,
                "activations": values,
                "max_activation": max(values, default=None),
                "argmax": values.index(max(values)) if values else None,
            }
        )
    n_records = {section: sum(row["section"] == section for row in records) for section in SECTIONS}
    drawn = [a for r in unit.random_sample for a in r.activations]
    figures = [
        {
            "unit": index,
            **({"token": on[0]} if per == "token" else {"query_token": on[0], "key_token": on[1]}),
            **vars(f),
        }
        for on, f in count_figures(unit, per).items()
    ]
    if per == "token":
        for row in figures:
            del row["min_activation"]
    return {
        "records": records,
        "units": [
            {
                "unit": index,
                "mean": unit.mean,
                "variance": unit.variance,
                "skewness": unit.skewness,
                "kurtosis": unit.kurtosis,
                "quantile_boundaries": unit.quantile_boundaries,
                "n_buckets": None if unit.random_sample_by_quantile is None else len(unit.random_sample_by_quantile),
                "max_activation": largest_top(unit),
                "active_fraction": sum(a > 0 for a in drawn) / len(drawn) if drawn else None,
                "n_top": n_records["top"],
                "n_random": n_records["random"],
                "n_quantile": n_records["quantile"],
            }
        ],
        "token_stats" if per == "token" else "pair_stats": figures,
    }


def make_unit(seed: int, per: str = "token", n_keys: int | None = None, n_tokens: int = 8) -> NeuronRecord:
    """Make up a unit: top and random records, and five quantile buckets of which the third is empty."""
    draw = random.Random(seed)

    def record(height: int) -> ActivationRecord:
        tokens = draw.choices(VOCABULARY, k=n_tokens)
        n_values = n_tokens if per == "token" else sum(min(q + 1, n_keys or n_tokens) for q in range(n_tokens))
        values = [draw.randint(-height, height) / 64 for _ in range(n_values)]
        return ActivationRecord(tokens, np.array(values, np.float32))

    top = sorted((record(640) for _ in range(4)), key=lambda r: -r.activations.max())
    buckets = [[record(64 * q) for _ in range(2)] if q != 3 else [] for q in range(1, 6)]
    return NeuronRecord(
        most_positive_activation_records=top,
        random_sample=[record(128) for _ in range(3)],
        random_sample_by_quantile=buckets,
        quantile_boundaries=[0.5, 0.9, 0.99, 0.999],
        mean=draw.random(),
        variance=draw.random(),
        skewness=None,
        kurtosis=3.25,
    )


NEURONS = "gpt2-small/mlp_post_act"
XL = "gpt2-xl/mlp_post_act"
HEADS = "gpt2-small/attn_write_norm"
PAIR_LATENTS = "gpt2-small/resid_delta_attn_ae_v4_by_pair"
LATENTS = "gpt2-small/mlp_post_act_ae_v4"
EXPLANATIONS = "gpt2-xl/explanations"
RELATED_UNITS = "gpt2-xl/related_neurons"
RELATED_TOKENS = "gpt2-xl/related_tokens_by_activation"


def make_siblings() -> dict[UnitId, dict[str, list[Row]]]:
    """Make up what siblings' files say of an XL neuron of the lake: two explanations, a unit and a token."""

    def score(rank: int, kind: str, score: float) -> Row:
        return {"rank": rank, "score_kind": kind, "score": score, "origin": "openai"}

    primary: Row = {"score_kind": "ev_correlation", "origin": "openai"}
    return {
        UnitId.parse(f"{EXPLANATIONS}/2/1"): {
            "explanations": [
                {"rank": 0, "explanation": " cats", "score": 0.5, **primary},
                {"rank": 1, "explanation": " dogs", **primary},
            ],
            "explanation_scores": [score(0, "ev_correlation", 0.5), score(0, "rsquared", 0.25)],
        },
        UnitId.parse(f"{EXPLANATIONS}/2/2"): {},
        UnitId.parse(f"{RELATED_UNITS}/2/1"): {
            "related_units": [
                {"direction": "upstream", "sign": "positive", "rank": 0, "related_layer": 1, "related_unit": 7}
            ]
        },
        UnitId.parse(f"{RELATED_TOKENS}/2/1"): {
            "related_tokens": [{"basis": "activation", "rank": 0, "token": " cat", "strength": 2.5}]
        },
    }


def make_content() -> Content:
    """Make up the lake that most tests read: neurons, heads and latents, and files of every status."""
    units: dict[UnitId, NeuronRecord] = {}
    for layer in (0, 1):
        for unit in (0, 1, 2, 3, 4, 600):
            units[UnitId.parse(f"{NEURONS}/{layer}/{unit}")] = make_unit(1000 * layer + unit)
    # A twin, so that every one of its figures ties with another unit's.
    units[UnitId.parse(f"{NEURONS}/1/9")] = units[UnitId.parse(f"{NEURONS}/0/3")]
    for unit in range(3):
        units[UnitId.parse(f"{XL}/2/{unit}")] = make_unit(5000 + unit)
    units[UnitId.parse(f"{HEADS}/0/0")] = make_unit(7000, "token_pair")
    units[UnitId.parse(f"{HEADS}/0/1")] = make_unit(7001, "token_pair", n_keys=3)
    units[UnitId.parse(f"{PAIR_LATENTS}/3/64")] = make_unit(7002, "token_pair", n_keys=1)
    units[UnitId.parse(f"{LATENTS}/0/0")] = NeuronRecord(random_sample_by_quantile=[[], []])
    units[UnitId.parse(f"{LATENTS}/0/1")] = NeuronRecord(
        most_positive_activation_records=[ActivationRecord([" the"], np.array([2.0], np.float32))]
    )
    statuses = {5: "rejected", 6: "failed", 7: "absent", 3072: "absent"}
    others = [(UnitId.parse(f"{NEURONS}/0/{unit}"), status) for unit, status in statuses.items()]
    return Content(units, others, make_siblings())
