"""Small builds without Prefect, and lakes read whole, so that two of them can be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from warehouse.datasets import Dataset, builtin_datasets
from warehouse.decode import decode
from warehouse.errors import MalformedFile
from warehouse.lake import Lake
from warehouse.mirror import MirrorReport, MirrorSpec
from warehouse.options import FetchOptions
from warehouse.parts import Shard
from warehouse.plan import Asking, Plan, Selection, plan_build
from warehouse.records import ActivationRecord, NeuronRecord, UnitId
from warehouse.shard import ShardSummary, build_shard
from warehouse.source import Source

XL = builtin_datasets()["gpt2-xl/mlp_post_act"]
EVERYTHING = Selection()
LAYER_0 = Selection((0,), tuple(range(8)))
"""What `xl_mirror` has of layer 0."""
HASTY = FetchOptions(attempts=2, timeout_seconds=5, patience_seconds=1, backoff_seconds=0.01)
"""For servers that are on this machine and do not mind."""
N_STEPS = 5
"""Moves of a shard's parts, and the removal of its old commit."""

Rows: TypeAlias = list[dict[str, Any]]
Run: TypeAlias = Callable[..., tuple[int, str, str]]
"""Runs a command; gives its exit code, stdout and stderr."""


@dataclass(frozen=True)
class Mirror:
    """A mirror on disk, what was asked of it and what was made."""

    root: Path
    spec: MirrorSpec
    report: MirrorReport

    @property
    def selection(self) -> Selection:
        return Selection(self.spec.layers, self.spec.units)

    def path_of(self, unit_id: UnitId) -> Path:
        """Give the place of a unit's file."""
        return self.root / find_dataset(unit_id).paths[0].format(layer=unit_id.layer, unit=unit_id.unit)

    def decoded(self, unit_id: UnitId) -> NeuronRecord:
        """Decode a unit's file by itself, as the oracle of what the lake must hold."""
        return decode(self.path_of(unit_id).read_bytes(), find_dataset(unit_id), unit_id.layer, unit_id.unit).record


def file_of(tree: Path, unit: int) -> Path:
    """Give the place of an XL neuron of layer 0 in a mirror."""
    return tree / XL.paths[0].format(layer=0, unit=unit)


def find_dataset(unit_id: UnitId) -> Dataset:
    return builtin_datasets()[f"{unit_id.model}/{unit_id.component}"]


def register_small(lake: Lake, *, shard_units: int = 4, units_per_layer: int = 1000, paths: str = "") -> Dataset:
    """Register a dataset of another model whose shards are small, so that a few files make many shards."""
    paths = paths or '["acts/{layer}/{unit}.json"]'
    (dataset,) = lake.register(
        f"""
        [[dataset]]
        model = "toy"
        component = "mlp"
        kind = "neuron"
        per = "token"
        n_layers = 4
        units_per_layer = {units_per_layer}
        shard_units = {shard_units}
        paths = {paths}
        """,
        "toy.toml",
    )
    return dataset


def write_units(root: Path, dataset: Dataset, records: Iterable[tuple[int, int, NeuronRecord]], path: str = "") -> None:
    """Write NeuronRecord files where a dataset's first path, or another one, has them."""
    for layer, unit, record in records:
        file = root / (path or dataset.paths[0]).format(layer=layer, unit=unit)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(record.to_json())


def plan(
    lake: Lake, source: Path | str, names: Iterable[str] = (XL.key,), selection: Selection = EVERYTHING, **how: Any
) -> Plan:
    table = how.pop("table", "files")
    options = how.pop("options", HASTY)
    return plan_build(lake, Source(source), list(names), selection, Asking(**how), options, table=table)


def build(
    lake: Lake, source: Path | str, names: Iterable[str] = (XL.key,), selection: Selection = EVERYTHING, **how: Any
) -> list[ShardSummary]:
    """Build a lake shard by shard in this process, as the flow does on many."""
    lake.create()
    return [build_shard(job) for job in plan(lake, source, names, selection, **how).jobs]


def read_part(lake: Lake, table: str, shard: Shard) -> Rows:
    return [row for group in lake.iterate_part(table, shard) for row in group.to_pylist()]


def read_lake(lake: Lake) -> dict[str, Rows]:
    """Read every part of a lake by its path, but for when its files were fetched."""
    parts: dict[str, Rows] = {}
    for table in ("records", "units", "token_stats", "pair_stats", "files"):
        for shard in lake.shards(table):
            rows = read_part(lake, table, shard)
            for row in rows:
                row.pop("fetched_at", None)
            parts[f"{table}/{shard.part_name}"] = rows
    return parts


def statuses(lake: Lake) -> dict[UnitId, str]:
    """Give the status of every file that the lake knows."""
    return {
        UnitId(shard.model, shard.component, shard.layer, row["unit"]): row["status"]
        for shard in lake.shards()
        for row in read_part(lake, "files", shard)
    }


def file_rows(lake: Lake) -> dict[int, dict[str, Any]]:
    """Give the rows of `files` by unit, of a lake that holds one layer of one dataset."""
    return {row["unit"]: row for shard in lake.shards() for row in read_part(lake, "files", shard)}


def modification_times(lake: Lake) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in Path(lake.root).rglob("*") if path.is_file()}


def leftovers(lake: Lake) -> list[Path]:
    """List what unfinished writers left."""
    return list(Path(lake.root, ".tmp").iterdir())


def spell(record: NeuronRecord) -> dict[str, Any]:
    """Give a record as plain values that can be compared, activations as the bytes of their float32."""

    def spell_list(records: Iterable[ActivationRecord]) -> list[tuple[list[str], bytes]]:
        return [(r.tokens, r.activations.astype("<f4", casting="no").tobytes()) for r in records]

    buckets = record.random_sample_by_quantile
    return {
        "unit": (record.layer_index, record.unit_index),
        "top": spell_list(record.most_positive_activation_records),
        "random": spell_list(record.random_sample),
        "buckets": None if buckets is None else [spell_list(bucket) for bucket in buckets],
        "boundaries": record.quantile_boundaries,
        "moments": (record.mean, record.variance, record.skewness, record.kurtosis),
    }


def good_units(mirror: Mirror) -> Iterator[UnitId]:
    """Give the units whose file can be decoded."""
    for unit_id in mirror.report.forms:
        try:
            mirror.decoded(unit_id)
        except MalformedFile:
            continue
        yield unit_id


def take_steps(monkeypatch: pytest.MonkeyPatch, step: Callable[[str], None]) -> None:
    """Call a function with the table's name before a part is moved, and with `-files` before a commit is removed."""
    move, remove = Lake._move, Lake.remove_shard

    def moving(lake: Lake, temporary: Path, path: str) -> None:
        assert temporary.parent == Path(lake.root, ".tmp")
        step(path.removeprefix(lake.root + "/").partition("/")[0])
        move(lake, temporary, path)

    def removing(lake: Lake, shard: Shard) -> None:
        step("-files")
        remove(lake, shard)

    monkeypatch.setattr(Lake, "_move", moving)
    monkeypatch.setattr(Lake, "remove_shard", removing)
