"""Made lakes for the benchmarks of search: the statistics of XL-like units, counted from drawn tokens and activations.

No file is made and none decoded. A unit has 150 records of 64 tokens, as `benchmarks.flatten`'s files have; tokens are
drawn from GPT-2's vocabulary by Zipf's law, activations from GELU of a normal distribution, in float16 printed with
four decimals as those that are published; one token of each unit is planted. What the lake holds of them is counted by
the warehouse's own `token_statistics`. A shard depends on its number and the seed alone, so that a lake of more units
holds the same ones first.
"""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from warehouse.datasets import builtin_datasets
from warehouse.decode.gpt2 import token_texts
from warehouse.decode.scan import QUANTILE, RANDOM, TOP
from warehouse.lake import Lake
from warehouse.parts import Shard, shard_of
from warehouse.records import FloatArray, IntArray
from warehouse.schema import arrow_schema
from warehouse.statistics import summarise_records, summarise_units, token_statistics

DATASET = builtin_datasets()["gpt2-xl/mlp_post_act"]

_SECTIONS = np.repeat([TOP, RANDOM, QUANTILE], [20, 30, 100])
_RECORD_TOKENS = 64
_ZIPF_EXPONENT, _ZIPF_OFFSET = 1.0, 3.0
_TOKEN_SLOTS = 1 << 22
_SCALES = (0.5, 0.8, 1.2, 2.0)
_PLANTED_BOOST = np.float32(4)
_UNITS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Drawn:
    """Distributions to draw from, as tables from which every entry is equally likely.

    Attributes:
        texts: the tokens that have one id only, most frequent first.
        tokens: [_TOKEN_SLOTS] index into texts.
        activations: [n_scales, 65,536].
    """

    texts: pa.StringArray
    tokens: IntArray
    activations: FloatArray


@functools.cache
def _drawn() -> Drawn:
    counts = Counter(token_texts())
    texts = [text for text in token_texts() if counts[text] == 1]
    share = (np.arange(len(texts)) + _ZIPF_OFFSET) ** -_ZIPF_EXPONENT
    tokens = np.searchsorted(np.cumsum(share / share.sum()), (np.arange(_TOKEN_SLOTS) + 0.5) / _TOKEN_SLOTS)
    inputs = np.sort(np.random.default_rng(0).normal(0.35, 1.0, (len(_SCALES), 1 << 16)), axis=1)
    scaled = inputs * np.array(_SCALES)[:, None]
    gelu = scaled / (1 + np.exp(-1.702 * scaled))
    return Drawn(pa.array(texts, pa.string()), tokens.astype(np.int32), _print(gelu))


def _print(values: NDArray[np.floating]) -> FloatArray:
    """Round as the published files do: to float16, then to four decimals."""
    return values.astype(np.float16).astype(np.float64).round(4).astype(np.float32)


def make_lake(root: Path, n_units: int, seed: int = 0) -> Lake:
    """Make a lake of the first n_units units of DATASET, layer by layer, or add to one the shards it lacks.

    Args:
        root: the lake's folder, which keeps what earlier calls with the same seed made.
        n_units: rounded up to whole shards; units of no other shard are in the lake.
        seed: of everything that is drawn.

    Returns:
        The lake: parts of `token_stats`, `units` and `files`, without records and without a catalogue.
    """
    lake = Lake(root)
    lake.create()
    present = set(lake.shards())
    for number, shard in enumerate(list_shards(n_units)):
        if shard not in present:
            write_shard(lake, shard, np.random.default_rng((seed, number)))
    return lake


def list_shards(n_units: int) -> list[Shard]:
    """Give the shards that hold the first n_units units."""
    places = (divmod(unit, DATASET.units_per_layer) for unit in range(n_units))
    return sorted({shard_of(DATASET, layer, unit) for layer, unit in places})


def write_shard(lake: Lake, shard: Shard, rng: np.random.Generator) -> None:
    """Draw a shard's units and write their parts, the commit last."""
    units = np.arange(shard.first, min(shard.last + 1, DATASET.units_per_layer), dtype=np.int32)
    with lake.write_part("token_stats", shard) as statistics, lake.write_part("units", shard) as figures:
        for first in range(0, len(units), _UNITS_AT_ONCE):
            rows = _draw_units(units[first : first + _UNITS_AT_ONCE], rng)
            statistics.write(rows[0])
            figures.write(rows[1])
    with lake.write_part("files", shard) as files:
        files.commit_facts = {"source": "made", "path": DATASET.paths[0]}
        files.write(_files_table(units, rng))


def _draw_units(units: IntArray, rng: np.random.Generator) -> tuple[pa.Table, pa.Table]:
    drawn = _drawn()
    n_records = len(_SECTIONS) * len(units)
    shape = (len(units), len(_SECTIONS) * _RECORD_TOKENS)
    tokens = drawn.tokens[rng.integers(0, _TOKEN_SLOTS, shape, dtype=np.uint32)]
    scales = rng.integers(0, len(_SCALES), (len(units), 1))
    values = drawn.activations[scales, rng.integers(0, 1 << 16, shape, dtype=np.uint16)]
    planted = tokens == tokens[:, :1]
    values[planted] = _print(values[planted] + _PLANTED_BOOST)
    records = np.zeros((n_records, 5), np.int32)
    records[:, 0] = np.tile(_SECTIONS, len(units))
    records[:, 3:] = _RECORD_TOKENS
    first_records = np.arange(len(units) + 1, dtype=np.int64) * len(_SECTIONS)
    tokens, values = tokens.reshape(-1), values.reshape(-1)
    largest, _, n_active = summarise_records(values, records)
    return (
        _statistics_table(units, tokens, values, records, first_records),
        _units_table(units, *summarise_units(records, first_records, largest, n_active)),
    )


def _statistics_table(
    units: IntArray, tokens: IntArray, values: FloatArray, records: IntArray, first_records: NDArray[np.int64]
) -> pa.Table:
    texts = _drawn().texts
    rows = token_statistics(tokens, values, records, first_records, len(texts))
    columns = (
        units[rows.units],
        pa.DictionaryArray.from_arrays(pa.array(rows.tokens), texts),
        rows.counts[:, 0].copy(),
        rows.counts[:, 1].copy(),
        rows.figures[:, 0].copy(),
        rows.figures[:, 2].copy(),
        rows.counts[:, 2].copy(),
        rows.figures[:, 3].copy(),
        rows.figures[:, 4].copy(),
    )
    return pa.table(dict(zip(arrow_schema("token_stats").names, columns, strict=True)))


def _units_table(
    units: IntArray, largest: FloatArray, active_fraction: NDArray[np.float64], counts: IntArray
) -> pa.Table:
    nothing = [None] * len(units)
    columns = {name: nothing for name in arrow_schema("units").names} | {
        "unit": units,
        "n_buckets": np.full(len(units), 5, np.int32),
        "max_activation": largest,
        "active_fraction": active_fraction,
        "n_top": counts[:, 0].copy(),
        "n_random": counts[:, 1].copy(),
        "n_quantile": counts[:, 2].copy(),
    }
    return pa.table(columns, schema=arrow_schema("units"))


def _files_table(units: IntArray, rng: np.random.Generator) -> pa.Table:
    rows = [
        {
            "unit": unit,
            "status": "ok",
            "uri": f"made://{unit}",
            "format": "json",
            "bytes": 150_000,
            "sha256": rng.bytes(32).hex(),
            "fetched_at": datetime(2026, 1, 1, tzinfo=UTC),
        }
        for unit in units.tolist()
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("files"))
