"""Giving the NeuronRecord files out again, from the lake's Parquet alone."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from warehouse.datasets import Dataset, select_datasets
from warehouse.errors import LakeError
from warehouse.lake import Lake
from warehouse.parts import Shard
from warehouse.records import ActivationRecord, FloatArray, NeuronRecord

if TYPE_CHECKING:  # a question must not wait for what fetches files
    from warehouse.plan import Selection


def rebuild_record(
    layer: int, unit: Mapping[str, Any], rows: Iterable[tuple[str, int | None, list[str], Sequence[float] | FloatArray]]
) -> NeuronRecord:
    """Put a NeuronRecord together again.

    Args:
        layer: the unit's layer.
        unit: the unit's row of `units`, by column.
        rows: section, quantile, tokens and activations of the unit's records, each list in the order of its file.
    """
    lists: dict[tuple[str, int | None], list[ActivationRecord]] = {}
    for section, quantile, tokens, activations in rows:
        record = ActivationRecord(tokens, np.asarray(activations, np.float32))
        lists.setdefault((section, quantile), []).append(record)
    n_buckets = unit["n_buckets"]
    buckets = None if n_buckets is None else [lists.get(("quantile", k), []) for k in range(n_buckets)]
    return NeuronRecord(
        layer_index=layer,
        unit_index=unit["unit"],
        most_positive_activation_records=lists.get(("top", None), []),
        random_sample=lists.get(("random", None), []),
        random_sample_by_quantile=buckets,
        quantile_boundaries=unit["quantile_boundaries"],
        mean=unit["mean"],
        variance=unit["variance"],
        skewness=unit["skewness"],
        kurtosis=unit["kurtosis"],
    )


def iterate_neuron_records(lake: Lake, dataset: Dataset, selection: Selection) -> Iterator[NeuronRecord]:
    """Give the NeuronRecords of the units that a lake holds of a dataset, a row group in memory at a time.

    A selection of all means all that is there, units past the expected end of a layer too.

    Yields:
        Units in the order of layer and unit.
    """
    for shard in lake.shards():
        is_of_dataset = (shard.model, shard.component) == (dataset.model, dataset.component)
        if is_of_dataset and (selection.layers is None or shard.layer in selection.layers):
            yield from _iterate_shard(lake, shard, selection.units)


def _iterate_shard(lake: Lake, shard: Shard, wanted: Collection[int] | None) -> Iterator[NeuronRecord]:
    units = {row["unit"]: row for rows in lake.iterate_part("units", shard) for row in rows.to_pylist()}
    remaining = iter(sorted(units if wanted is None else units.keys() & set(wanted)))
    due = next(remaining, None)
    for group in lake.iterate_part("records", shard):
        numbers = group["unit"].to_numpy()
        while due is not None and (len(numbers) == 0 or due <= numbers[-1]):
            first, last = np.searchsorted(numbers, due, "left"), np.searchsorted(numbers, due, "right")
            yield rebuild_record(shard.layer, units[due], _iterate_rows(group.slice(first, last - first)))
            due = next(remaining, None)
    while due is not None:  # units without any record, after the last that has some
        yield rebuild_record(shard.layer, units[due], ())
        due = next(remaining, None)


def _iterate_rows(records: pa.Table) -> Iterator[tuple[str, int | None, list[str], Sequence[float]]]:
    columns = [records[name].to_pylist() for name in ("section", "quantile", "tokens", "activations")]
    yield from zip(*columns, strict=True)


def export_neuron_records(lake: Lake, names: Sequence[str], selection: Selection, out: Path) -> int:
    """Write the NeuronRecord files of datasets in the bucket's tree, as JSON whatever their form was.

    Args:
        lake: where they come from.
        names: datasets, or models for all of theirs.
        selection: which layers and units.
        out: folder that stands for the bucket's root.

    Returns:
        The number of files written.

    Raises:
        UnknownDataset: a name is not known.
        LakeError: none of these units is in the lake, a dataset holds no activations, or `out` cannot be written.
    """
    n_files = 0
    try:
        for dataset in select_datasets(names, lake.datasets()):
            if dataset.holds != "activations":
                raise LakeError(f"{dataset.key} holds no NeuronRecords but {dataset.holds}: ask for those with SQL")
            template = re.sub(r"(\.json|\.pt)?$", ".json", dataset.paths[0], count=1)
            for record in iterate_neuron_records(lake, dataset, selection):
                path = out / template.format(layer=record.layer_index, unit=record.unit_index)
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = path.with_suffix(".tmp")
                temporary.write_bytes(record.to_json())
                os.replace(temporary, path)  # noqa: PTH105  (atomic on every platform)
                n_files += 1
    except OSError as e:
        raise LakeError(f"cannot export to {out}: {e.strerror or e}") from e
    if not n_files:
        raise LakeError(f"{lake.url} holds none of these units of {', '.join(names)}: see 'warehouse status'")
    return n_files
