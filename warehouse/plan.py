"""Which shards are left to do: what was asked for, less what the lake holds already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from warehouse.datasets import Dataset, select_datasets
from warehouse.errors import LakeError, SourceMismatch, WarehouseError
from warehouse.lake import Lake
from warehouse.parts import Commit, Shard, shard_of
from warehouse.shard import ShardJob
from warehouse.source import Source

_MAX_UNITS = 100_000_000


@dataclass(frozen=True, slots=True)
class Plan:
    """The shards to do, and what was found of the others.

    Attributes:
        jobs: in the order in which they are done.
        n_done: shards that hold all that was asked for, and are left alone.
        n_changed: shards among the jobs whose files are not what the lake was built from.
    """

    jobs: tuple[ShardJob, ...]
    n_done: int
    n_changed: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Which layers and units of each dataset, in rising order; None means all that the registry expects."""

    layers: tuple[int, ...] | None = None
    units: tuple[int, ...] | None = None

    def shards(self, dataset: Dataset, *, is_clipped: bool = True) -> dict[Shard, tuple[int, ...]]:
        """Split the selection into a dataset's shards, each with the units of it that are meant.

        Args:
            dataset: which.
            is_clipped: leave out units past the end of its layers.

        Raises:
            WarehouseError: a layer that the dataset does not have.
        """
        layers = range(dataset.n_layers) if self.layers is None else self.layers
        if too_high := [layer for layer in layers if layer >= dataset.n_layers]:
            raise WarehouseError(f"{dataset.key} has layers 0-{dataset.n_layers - 1}, not {too_high[0]}")
        by_first: dict[int, list[int]] = {}
        for unit in range(dataset.units_per_layer) if self.units is None else self.units:
            if is_clipped and unit >= dataset.units_per_layer:
                break
            by_first.setdefault(unit - unit % dataset.shard_units, []).append(unit)
        return {
            shard_of(dataset, layer, first): tuple(units)
            for layer in layers
            for first, units in sorted(by_first.items())
        }


def parse_ranges(text: str, what: str) -> tuple[int, ...]:
    """Read ranges and lists of indices, as 0-3,7.

    Args:
        text: what the user wrote.
        what: what it selects, for the error.

    Returns:
        The indices in rising order, each once.

    Raises:
        WarehouseError: not of that form.
    """
    chosen: set[int] = set()
    for piece in text.split(","):
        first, dash, last = piece.strip().partition("-")
        if not (first.isascii() and first.isdigit()) or (dash and not (last.isascii() and last.isdigit())):
            raise WarehouseError(f"--{what} {text!r}: write ranges and lists of indices, as 0-3,7")
        low, high = int(first), int(last) if dash else int(first)
        if high < low or high >= _MAX_UNITS:
            raise WarehouseError(f"--{what} {text!r}: {piece.strip()} is no range of indices")
        chosen.update(range(low, high + 1))
    return tuple(sorted(chosen))


def plan_build(
    lake: Lake, source: Source, names: Sequence[str], selection: Selection, *, table: str = "files", force: bool
) -> Plan:
    """Find the shards that a build from a source has to do.

    A shard is left alone where its commit covers the units asked for, none of them failed, and no local file has
    changed since. One that is done again takes in the units that it held before. Units past the end of a layer are
    looked for only in a dataset that is named itself: a model's name means what is expected of it.

    Args:
        lake: where to build.
        source: where the files are.
        names: datasets, or models for all of theirs.
        selection: which layers and units.
        table: `files`, or `raw` to plan raw packs.
        force: do every shard, whatever is there.

    Raises:
        UnknownDataset: a name is not known.
        SourceMismatch: without `force`, where the lake holds some of these shards from another source.
    """
    names = [name.strip("/") for name in names]
    jobs, n_done, n_changed = [], 0, 0
    others: dict[str, int] = {}
    committed = set(lake.shards(table))
    for dataset in select_datasets(names, lake.datasets()):
        for shard, units in selection.shards(dataset, is_clipped=dataset.key not in names).items():
            commit = lake.read_commit(shard, table) if shard in committed else None
            wanted = set(units)
            if commit is not None:
                held = set(commit.units)
                is_foreign = commit.source != source.url
                is_changed = not is_foreign and _has_changed(source, dataset, shard, commit)
                if is_foreign and not force:
                    others[commit.source] = others.get(commit.source, 0) + 1
                n_changed += is_changed
                if not force and not is_changed and wanted <= held and "failed" not in commit.statuses:
                    n_done += 1
                    continue
                wanted |= held
            jobs.append(ShardJob(dataset, shard, tuple(sorted(wanted)), source.location, lake.url))
    if others:
        found = " and ".join(f"{n} from {url}" for url, n in sorted(others.items()))
        raise SourceMismatch(
            f"{lake.url} holds some of these shards from another source than {source.url} ({found}): "
            "name that one with --source, or replace them with --force"
        )
    return Plan(tuple(jobs), n_done, n_changed)


def plan_flatten(lake: Lake, names: Sequence[str], *, force: bool) -> Plan:
    """Find the shards that have a raw pack and are not flattened from just those bytes.

    Raises:
        UnknownDataset: a name is not known.
        LakeError: no raw pack of any of the datasets; or, without `force`, a shard that holds other units as well.
        SourceMismatch: without `force`, where the lake holds some of these shards from another source.
    """
    by_key = {dataset.key: dataset for dataset in select_datasets(names, lake.datasets())}
    packs = [shard for shard in lake.shards("raw") if f"{shard.model}/{shard.component}" in by_key]
    if not packs:
        raise LakeError(f"no raw packs of {', '.join(by_key)} in {lake.url}: run 'warehouse extract' first")
    jobs, n_done, n_changed = [], 0, 0
    for shard in packs:
        pack, commit = lake.read_commit(shard, "raw"), lake.read_commit(shard)
        if pack is None:
            raise LakeError(f"the raw pack of {shard} in {lake.url} is damaged: run 'warehouse extract --force' again")
        if commit is not None and not force:
            if (pack.units, pack.hashes) == (commit.units, commit.hashes):
                n_done += 1
                continue
            _check_pack(lake, shard, pack, commit)
            n_changed += 1
        dataset = by_key[f"{shard.model}/{shard.component}"]
        jobs.append(ShardJob(dataset, shard, pack.units, pack.source, lake.url))
    return Plan(tuple(jobs), n_done, n_changed)


def _check_pack(lake: Lake, shard: Shard, pack: Commit, commit: Commit) -> None:
    """Refuse to flatten a pack over a shard that holds what the pack does not."""
    if pack.source != commit.source:
        raise SourceMismatch(
            f"{lake.url} holds {shard} from {commit.source}, and its raw pack is from {pack.source}: "
            "replace the shard with --force"
        )
    if lost := set(commit.units) - set(pack.units):
        raise LakeError(
            f"{lake.url} holds unit {min(lost)} of {shard}, which its raw pack does not: extract that too, "
            "or replace the shard with --force"
        )


def _has_changed(source: Source, dataset: Dataset, shard: Shard, commit: Commit) -> bool:
    """Say whether a local file came, went or was written again since the commit; other sources are not asked."""
    if not source.is_local:
        return False
    template = commit.path or source.resolve(dataset, shard.layer, commit.units)
    if not template:
        return False
    for unit, mark in zip(commit.units, commit.marks, strict=True):
        marks = (source.current_mark(path, shard.layer, unit) for path in (template, *dataset.paths))
        if next((found for found in marks if found is not None), None) != mark:
            return True
    return False
