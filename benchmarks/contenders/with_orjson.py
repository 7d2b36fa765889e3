"""orjson and pyarrow, plainly: each file to Python lists, lists to Arrow, statistics by pyarrow's group_by.

File by file, and the tables of a shard's files put together at the end: the lists of 128 files at once took 1.6 to 2.1
times as long, for Python's garbage collector walks them all, and the hash table outgrows the cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.trial import Trial, run_in_pool

_FIELDS: dict[str, pa.DataType] = {
    "unit": pa.int32(),
    "section": pa.string(),
    "quantile": pa.int32(),
    "rank": pa.int32(),
    "tokens": pa.list_(pa.string()),
    "activations": pa.list_(pa.float32()),
}
_FIGURES = {
    "n": ("activation", "count"),
    "n_active": ("active", "sum"),
    "max_activation": ("activation", "max"),
    "sum_activation": ("activation", "sum"),
    "n_random": ("random", "sum"),
    "sum_random": ("random_activation", "sum"),
    "sum_positive": ("positive_activation", "sum"),
}


def flatten(trial: Trial) -> float:
    """Flatten shard by shard, one process a core.

    Returns:
        Seconds, after a warm-up on a few files in each process.
    """
    return run_in_pool(_flatten_shard, trial)


def _flatten_shard(trial: Trial) -> None:
    pa.set_cpu_count(1)
    records = [_read_records(path) for path in trial.files()]
    statistics = [_compute_statistics(unit) for unit in records]
    for table, parts in (("records", records), ("token_stats", statistics)):
        path = trial.partition(table) / f"{trial.units[0]:06d}.parquet"
        pq.write_table(pa.concat_tables(parts), path, compression="zstd", compression_level=1)


def _read_records(path: str) -> pa.Table:
    unit = orjson.loads(Path(path).read_bytes())
    lists: list[tuple[str, int | None, list[dict[str, Any]]]] = [
        ("top", None, unit["most_positive_activation_records"]),
        ("random", None, unit["random_sample"]),
        *(("quantile", q, bucket) for q, bucket in enumerate(unit["random_sample_by_quantile"] or [])),
    ]
    columns: dict[str, list[Any]] = {name: [] for name in _FIELDS}
    for section, quantile, records in lists:
        n = len(records)
        columns["unit"] += [unit["neuron_id"]["neuron_index"]] * n
        columns["section"] += [section] * n
        columns["quantile"] += [quantile] * n
        columns["rank"] += range(n)
        columns["tokens"] += [record["tokens"] for record in records]
        columns["activations"] += [record["activations"] for record in records]
    return pa.table(columns, schema=pa.schema(_FIELDS))


def _compute_statistics(records: pa.Table) -> pa.Table:
    """Give the rows of token_stats of one unit."""
    # pyarrow's type stubs do not know what its compute functions take.
    tokens: Any = records.column("tokens").combine_chunks()
    activation: Any = pc.list_flatten(records.column("activations").combine_chunks())
    section: Any = records.column("section")
    nothing: Any = pa.scalar(0, pa.float32())
    is_active = pc.greater(activation, nothing)
    is_random = pc.equal(section, pa.scalar("random")).take(pc.list_parent_indices(tokens)).combine_chunks()
    positions = pa.table(
        {
            "token": pc.list_flatten(tokens).dictionary_encode(),
            "activation": activation,
            "active": is_active.cast(pa.int32()),
            "random": is_random.cast(pa.int32()),
            "random_activation": pc.if_else(is_random, activation, nothing),
            "positive_activation": pc.if_else(is_active, activation, nothing),
        }
    )
    aggregates: Any = list(_FIGURES.values())
    grouped: Any = positions.group_by("token", use_threads=False).aggregate(aggregates)
    grouped = grouped.filter(pc.greater(grouped["active_sum"], pa.scalar(0)))
    figures = {name: grouped[f"{column}_{function}"] for name, (column, function) in _FIGURES.items()}
    unit = records.column("unit")[0].as_py()
    return pa.table(
        {
            "unit": pa.array([unit] * grouped.num_rows, pa.int32()),
            "token": grouped["token"].cast(pa.string()),
            **{name: c.cast(pa.int32() if name.startswith("n") else pa.float32()) for name, c in figures.items()},
        }
    )
