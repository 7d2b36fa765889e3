"""Which shards are left to do: what was asked for, less what the lake holds already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from warehouse.datasets import Dataset, select_datasets
from warehouse.errors import LakeError, SourceMismatch, WarehouseError
from warehouse.lake import Lake
from warehouse.options import FetchOptions
from warehouse.parts import Commit, Shard, shard_of
from warehouse.shard import ShardJob
from warehouse.source import Source

_MAX_UNITS = 100_000_000


@dataclass(frozen=True, slots=True)
class Plan:
    """The shards to do, and what was found of the others.

    Attributes:
        jobs: in the order in which they are done.
        n_done: shards of which there is nothing to ask for.
        n_changed: shards among the jobs some of whose files are not what the lake was built from.
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


@dataclass(frozen=True, slots=True)
class Asking:
    """What a build asks for beside the files that the lake has not asked for, or that failed.

    Attributes:
        force: every file, whatever is there.
        retry: only files of these statuses, and none that the lake has not asked for.
        is_refresh: every file, but only its bytes where it has changed since.
        keep_raw: also files whose bytes are not in a raw pack, which is to be kept.
    """

    force: bool = False
    retry: tuple[str, ...] = ()
    is_refresh: bool = False
    keep_raw: bool = False

    def __post_init__(self) -> None:
        if unknown := set(self.retry) - {"absent", "rejected", "failed"}:
            raise WarehouseError(f"--retry {min(unknown)}: it takes absent, rejected or failed")
        if sum((self.force, bool(self.retry), self.is_refresh)) > 1:
            raise WarehouseError("--force, --retry and --refresh exclude one another")


def plan_build(
    lake: Lake,
    source: Source,
    names: Sequence[str],
    selection: Selection,
    asking: Asking = Asking(),  # noqa: B008  (frozen)
    options: FetchOptions = FetchOptions(),  # noqa: B008  (frozen)
    *,
    table: str = "files",
) -> Plan:
    """Find the shards that a build from a source has to do, and which files of each to ask for.

    A file is asked for where the lake has not asked for it yet, or it failed, or it is a local file that has changed
    since. Units past the end of a layer are looked for only in a dataset that is named itself: a model's name means
    what is expected of it.

    Args:
        lake: where to build.
        source: where the files are.
        names: datasets, or models for all of theirs.
        selection: which layers and units.
        asking: what else to ask for, or what alone.
        options: how each worker asks.
        table: `files`, or `raw` to plan raw packs.

    Raises:
        UnknownDataset: a name is not known.
        SourceMismatch: without `force`, where the lake holds some of these shards from another source.
    """
    names = [name.strip("/") for name in names]
    jobs, n_done, n_changed = [], 0, 0
    others: Counter[str] = Counter()
    planned = [
        (dataset, shard, units)
        for dataset in select_datasets(names, lake.datasets())
        for shard, units in selection.shards(dataset, is_clipped=dataset.key not in names).items()
    ]
    commits = _read_commits(lake, table, [shard for _, shard, _ in planned])
    packs = commits if table == "raw" else _read_commits(lake, "raw", list(commits))
    paths: dict[str, str] = {}
    for dataset, shard, units in planned:
        commit = commits.get(shard)
        if commit is None and asking.retry:
            continue
        if commit is not None and commit.source != source.url and not asking.force:
            others[commit.source] += 1
        keep_raw = asking.keep_raw or shard in packs
        asked, changed = _choose(source, dataset, shard, set(units), commit, asking)
        if keep_raw and table == "files" and commit is not None and not asking.retry:
            asked |= _not_packed(commit, packs.get(shard))
        n_changed += bool(changed)
        if not asked:
            n_done += 1
            continue
        held = set(commit.units) if commit is not None else set()
        path = paths[dataset.key] = (commit.path if commit is not None else "") or paths.get(dataset.key, "")
        jobs.append(
            ShardJob(
                dataset, shard, tuple(sorted(asked | held)), tuple(sorted(asked)), source.location, lake.url, path,
                options, keep_raw, asking.is_refresh,
            )
        )  # fmt: skip
    if others:
        found = " and ".join(f"{n} from {url}" for url, n in sorted(others.items()))
        raise SourceMismatch(
            f"{lake.url} holds some of these shards from another source than {source.url} ({found}): "
            "name that one with --source, or replace them with --force"
        )
    return Plan(tuple(jobs), n_done, n_changed)


def _read_commits(lake: Lake, table: str, shards: Sequence[Shard]) -> dict[Shard, Commit]:
    """Read the commits that there are of some shards."""
    committed = set(lake.shards(table))
    return lake.read_commits([shard for shard in shards if shard in committed], table)


def _choose(
    source: Source, dataset: Dataset, shard: Shard, wanted: set[int], commit: Commit | None, asking: Asking
) -> tuple[set[int], set[int]]:
    """Choose the units of a shard to ask for, and say which of them are known to have changed."""
    if commit is None:
        return wanted, set()
    statuses = dict(zip(commit.units, commit.statuses, strict=True))
    changed = _find_changed(source, dataset, shard, commit) if commit.source == source.url else set()
    if asking.retry:
        return {unit for unit in wanted if statuses.get(unit) in asking.retry}, set()
    if asking.force:
        return wanted | set(statuses), changed
    if asking.is_refresh:
        return wanted, changed
    failed = {unit for unit, status in statuses.items() if status == "failed"}
    return (wanted - set(statuses)) | failed | changed, changed


def _not_packed(commit: Commit, pack: Commit | None) -> set[int]:
    """Find the units whose bytes, as they were flattened, are in no raw pack."""
    packed = {} if pack is None else dict(zip(pack.units, pack.hashes, strict=True))
    return {u for u, content in zip(commit.units, commit.hashes, strict=True) if content and packed.get(u) != content}


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
        jobs.append(ShardJob(dataset, shard, pack.units, pack.units, pack.source, lake.url))
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


def _find_changed(source: Source, dataset: Dataset, shard: Shard, commit: Commit) -> set[int]:
    """Find the local files that came, went or were written again since the commit; other sources are not asked."""
    if not source.is_local:
        return set()
    marks = zip(commit.units, commit.marks, strict=True)
    return {unit for unit, mark in marks if source.current_mark(dataset, shard.layer, unit, commit.path) != mark}
