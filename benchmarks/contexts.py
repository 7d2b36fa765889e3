"""Contexts of a phrase: the catalogue's texts and records beside DuckDB over the records' Parquet.

`python -m benchmarks.contexts --units 5000,20000` makes lakes of that many XL-like units: 150 records of 64 tokens
each, excerpts of the same 50,000 made texts (as OpenAI's are), with 16 % of the activations positive (as in published
excerpts) and phrases planted in 5, 200 and 5,000 of the texts. It builds the tables that `contexts` reads in a process
of its own, asks on an open connection, and asks DuckDB the same of the Parquet. Both must give the same strengths.
Units are rounded up to whole shards.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import median, quantiles

import duckdb
import numpy as np
import pyarrow as pa

from benchmarks.lakes import DATASET, list_shards
from warehouse import catalogue
from warehouse.contexts import update_contexts
from warehouse.decode.gpt2 import N_TOKENS, token_texts
from warehouse.index import IndexedShard, IndexPlan
from warehouse.lake import Lake
from warehouse.mirror.text import find_token_id, make_corpus
from warehouse.parts import Shard
from warehouse.records import FloatArray, IntArray
from warehouse.schema import arrow_schema

N_TEXTS, N_TOKENS_OF_TEXT = 50_000, 64
SECTIONS = np.repeat(["top", "random", "quantile"], [20, 30, 100])
QUANTILES = [None] * 50 + np.repeat(np.arange(5), 20).tolist()
RANKS = np.concatenate([np.arange(20), np.arange(30), *[np.arange(20)] * 5]).astype(np.int32)
PLANTED = {
    5: (" Golden", " Gate", " Bridge"),
    200: (" United", " Arab", " Emirates"),
    5000: (" once", " upon", " a"),
}
"""Phrases by the number of texts that hold them, each in a place of its own."""

QUESTIONS = {
    "phrase in 5 texts": ("Golden Gate Bridge", "phrase"),
    "phrase in 200 texts": ("United Arab Emirates", "phrase"),
    "phrase in 5,000 texts": ("once upon a", "phrase"),
    "phrase of a frequent word": (" the", "phrase"),
    "phrase of frequent words": (" of the", "phrase"),
    "phrase in no text": ("a phrase of no text", "phrase"),
    "substring in 200 texts": ("nited Arab Emir", "substring"),
    "frequent substring": ("the", "substring"),
    "regex in 205 texts": (r"Gate\s+Bridge|Arab Emirates", "regex"),
    "regex in 5,000 texts": (r"[Oo]nce\s+upon", "regex"),
    "regex of a frequent word": (r"\bthe\b", "regex"),
}
_UNITS_AT_ONCE = 256
_ROUNDS = 21

Ask = Callable[[str, str], list[float]]
"""Takes a pattern and how it is meant, gives the strongest activations inside it."""


@dataclass(frozen=True, slots=True)
class Answered:
    """How fast one contender answered; milliseconds."""

    contender: str
    units: int
    question: str
    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Built:
    """What it took to build the tables; bytes of the tables alone, megabytes of resident memory at the peak."""

    units: int
    records: int
    texts: int
    seconds: float
    bytes_per_record: float
    parquet_bytes_per_record: float
    peak_mb: float


@cache
def make_texts() -> IntArray:
    """Make the texts that all units share: [N_TEXTS, N_TOKENS_OF_TEXT] token ids, with the phrases planted."""
    ids = make_corpus("gpt2", N_TEXTS, N_TOKENS_OF_TEXT, 0).ids.copy()
    rng = np.random.default_rng(1)
    for place, (n_texts, phrase) in enumerate(PLANTED.items()):
        chosen = rng.choice(N_TEXTS, n_texts, replace=False)
        ids[chosen[:, None], 10 + 10 * place + np.arange(len(phrase))] = [find_token_id(token) for token in phrase]
    return ids


def draw_activations(shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    """Draw GELU of normal inputs of which 16 % are positive, as published: float16, printed with four decimals."""
    inputs = np.sort(np.random.default_rng(0).normal(-1.0, 1.0, 1 << 16))
    gelu = inputs / (1 + np.exp(-1.702 * inputs))
    printed: FloatArray = gelu.astype(np.float16).astype(np.float64).round(4).astype(np.float32)
    drawn: FloatArray = printed[rng.integers(0, 1 << 16, shape, dtype=np.uint16)]
    return drawn


def make_records(root: Path, n_units: int) -> Lake:
    """Make a lake of records and commits alone, or add to one the shards it lacks."""
    lake = Lake(root)
    lake.create()
    present = set(lake.shards())
    for number, shard in enumerate(list_shards(n_units)):
        if shard not in present:
            _write_shard(lake, shard, np.random.default_rng((2, number)))
    return lake


def _write_shard(lake: Lake, shard: Shard, rng: np.random.Generator) -> None:
    units = np.arange(shard.first, min(shard.last + 1, DATASET.units_per_layer), dtype=np.int32)
    with lake.write_part("records", shard) as records:
        for first in range(0, len(units), _UNITS_AT_ONCE):
            records.write(_records_table(units[first : first + _UNITS_AT_ONCE], rng))
    with lake.write_part("files", shard) as files:
        files.commit_facts = {"source": "made", "path": DATASET.paths[0]}
        files.write(pa.Table.from_pylist([{"unit": 0, "status": "ok"}], schema=arrow_schema("files")))


def _records_table(units: IntArray, rng: np.random.Generator) -> pa.Table:
    n_records = len(units) * len(SECTIONS)
    tokens = make_texts()[rng.integers(0, N_TEXTS, n_records)]
    values = draw_activations(tokens.shape, rng)
    offsets = pa.array(np.arange(n_records + 1, dtype=np.int32) * N_TOKENS_OF_TEXT)
    texts = pa.DictionaryArray.from_arrays(pa.array(tokens.ravel()), pa.array(token_texts()[:N_TOKENS], pa.string()))
    columns = {
        "unit": np.repeat(units, len(SECTIONS)),
        "section": np.tile(SECTIONS, len(units)),
        "quantile": pa.array(QUANTILES * len(units), pa.int32()),
        "rank": np.tile(RANKS, len(units)),
        "tokens": pa.ListArray.from_arrays(offsets, texts),
        "activations": pa.ListArray.from_arrays(offsets, pa.array(values.ravel())),
        "max_activation": values.max(axis=1),
        "argmax": values.argmax(axis=1).astype(np.int32),
    }
    return pa.table(columns)


def build_in_child(lake: Lake, path: Path) -> tuple[float, float]:
    """Build the tables in a process of its own, and give its seconds and peak megabytes."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_build, (lake.url, path))


def _build(url: str, path: Path) -> tuple[float, float]:
    lake = Lake(url)
    tables = ("index_rows", "index_units", "context_texts", "context_records")
    macros = ("context_matches", "context_hits", "context_excerpts", "contexts")
    marks = lake.marks()
    plan = IndexPlan((), tuple(IndexedShard(shard, marks[shard]) for shard in lake.shards("records")), 0)
    with catalogue.connect(lake, path) as connection:
        connection.execute(
            f"CREATE TABLE datasets AS SELECT '{DATASET.model}' AS model, '{DATASET.component}' AS component"
        )
        for text in (*map(catalogue.read_sql("tables").get, tables), *map(catalogue.read_sql("macros").get, macros)):
            connection.execute(str(text))
        start = time.perf_counter()
        update_contexts(connection, lake, plan)
        seconds = time.perf_counter() - start
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ask_contexts(connection: duckdb.DuckDBPyConnection) -> Ask:
    """Ask the catalogue's own macro."""

    def ask(pattern: str, how: str) -> list[float]:
        rows = connection.execute("FROM contexts($pattern, how := $how)", {"pattern": pattern, "how": how}).fetchall()
        return [row[6] for row in rows]

    return ask


def ask_parquet(lake: Lake) -> Ask:
    """Ask DuckDB over the records as they lie in the lake, for phrases alone, each by its first place in a text."""
    connection = duckdb.connect()

    def ask(pattern: str, how: str) -> list[float]:
        rows = connection.execute(
            f"""
            WITH matched AS (
              SELECT tokens, activations, list_transform(tokens, lambda t: length(t)) AS lengths,
                array_to_string(tokens, '') AS text
              FROM read_parquet('{lake.root}/records/**/*.parquet')
              WHERE contains(text, $pattern)
            ),
            spans AS (
              SELECT activations, strpos(text, $pattern) - 1 AS first_char, first_char + length($pattern) AS last_char,
                list_transform(range(len(tokens)), lambda i: coalesce(list_sum(lengths[:i]), 0)) AS starts
              FROM matched
            )
            SELECT list_max(activations[
              len(list_filter(starts[2:], lambda s: s <= first_char)) + 1
              :len(list_filter(starts, lambda s: s < last_char))
            ]) AS activation
            FROM spans WHERE activation > 0 ORDER BY activation DESC LIMIT 20
            """,
            {"pattern": pattern},
        ).fetchall()
        return [row[0] for row in rows]

    return ask


def measure(contender: str, units: int, ask: Ask, questions: dict[str, tuple[str, str]], rounds: int) -> list[Answered]:
    """Ask every question so many times, the first untimed where there are more."""
    answered = []
    for name, (pattern, how) in questions.items():
        times = []
        for number in range(rounds):
            start = time.perf_counter()
            ask(pattern, how)
            if number or rounds == 1:
                times.append((time.perf_counter() - start) * 1e3)
        p95 = quantiles(times, n=20)[-1] if len(times) > 1 else times[0]
        answered.append(Answered(contender, units, name, median(times), p95))
    return answered


def measure_lake(root: Path, units: int, *, with_parquet: bool) -> tuple[Built, list[Answered]]:
    """Measure both contenders on a lake of so many units."""
    lake = make_records(root, units)
    path = root / "contexts.duckdb"
    path.unlink(missing_ok=True)
    seconds, peak = build_in_child(lake, path)
    parquet = sum(part.stat().st_size for part in (root / "records").rglob("*.parquet"))
    with duckdb.connect(str(path), read_only=True) as connection:
        ((records, texts),) = connection.execute(
            "SELECT (SELECT count(*) FROM context_records), (SELECT count(*) FROM context_texts)"
        ).fetchall()
        built = Built(units, records, texts, seconds, path.stat().st_size / records, parquet / records, peak)
        ask = ask_contexts(connection)
        answered = measure("contexts", units, ask, QUESTIONS, _ROUNDS)
        if with_parquet:
            few = {name: QUESTIONS[name] for name in ("phrase in 200 texts", "phrase in 5,000 texts")}
            answered += measure("DuckDB over Parquet", units, ask_parquet(lake), few, 1)
            for pattern, how in few.values():
                if ask(pattern, how) != ask_parquet(lake)(pattern, how):
                    raise SystemExit(f"the contenders differ on {pattern!r}")
    path.unlink()
    return built, answered


def print_report(built: list[Built], answered: list[Answered]) -> None:
    """Print the human form of what was measured."""
    print(f"{'units':>7} {'records':>10} {'texts':>7} {'seconds':>8} {'B/record':>9} {'Parquet B':>10} {'peak MB':>8}")
    for b in built:
        print(
            f"{b.units:7} {b.records:10} {b.texts:7} {b.seconds:8.1f} {b.bytes_per_record:9.1f} "
            f"{b.parquet_bytes_per_record:10.1f} {b.peak_mb:8.0f}"
        )
    print(f"\n{'contender':20} {'units':>7} {'question':26} {'p50 ms':>8} {'p95 ms':>8}")
    for a in answered:
        print(f"{a.contender:20} {a.units:7} {a.question:26} {a.p50:8.1f} {a.p95:8.1f}")


def main() -> None:
    """Read the options, measure, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", default="5000,20000")
    parser.add_argument("--lakes", type=Path, help="keep the made lakes in this folder, or take those that are there")
    parser.add_argument("--parquet-units", type=int, default=20_000, help="largest lake to scan as Parquet")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    built: list[Built] = []
    answered: list[Answered] = []
    with tempfile.TemporaryDirectory() as temporary:
        for units in map(int, options.units.split(",")):
            root = (options.lakes or Path(temporary)) / str(units)
            figures = measure_lake(root, units, with_parquet=units <= options.parquet_units)
            built.append(figures[0])
            answered += figures[1]
            if not options.lakes:
                shutil.rmtree(root)
    print_report(built, answered)
    if options.json:
        figures_by_kind = {"built": [asdict(b) for b in built], "answered": [asdict(a) for a in answered]}
        options.json.write_text(json.dumps(figures_by_kind, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
