"""Import of and search over explanations: real ones, and many more made from them.

Usage: python -m benchmarks.explanations FILE [--rows 0,300000] [--folder DIR]

FILE is JSON lines with layer, unit, explanation and score, of GPT-2 XL neurons. `--rows 0` takes it as it is; any other
number of rows is made by repeating it with some words changed for others of it, so that each text is another. Their
embeddings are those of the texts that they were made from, moved a little at random: what a comparison costs does not
depend on the numbers. Questions are one to three words of the texts, drawn at random, and whole texts.

Printed, for each size: rows a second of import and of a first catalogue, then the median and the 95th percentile of a
question on an open lake, by words and by meaning (with and without the time that embedding the question takes), and
the median of `warehouse search` as a process of its own.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

import warehouse
from warehouse.catalogue import build_catalogue
from warehouse.datasets import builtin_datasets
from warehouse.embedding import EMBEDDER, SIZE, Embedder
from warehouse.explain.importing import ImportOptions, import_explanations
from warehouse.lake import Lake
from warehouse.reader import LakeReader
from warehouse.records import FloatArray
from warehouse.schema import arrow_schema

SEED = 5
N_QUESTIONS = 60
N_PROCESSES = 5
BATCH = 50_000


def read_entries(path: Path) -> list[dict[str, object]]:
    """Read the file, packed or not."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        return [json.loads(line) for line in stream]


def repeat_changed(entries: Sequence[dict[str, object]], n_rows: int) -> list[dict[str, object]]:
    """Repeat entries until there are `n_rows`, each repetition with a third of its words changed."""
    draw = random.Random(SEED)
    words = sorted({word for entry in entries for word in str(entry["explanation"]).split()})
    made = list(entries[:n_rows])
    while len(made) < n_rows:
        entry = entries[len(made) % len(entries)]
        text = [draw.choice(words) if draw.random() < 1 / 3 else word for word in str(entry["explanation"]).split()]
        made.append({**entry, "unit": draw.randrange(6400), "explanation": " ".join(text) + f" {len(made)}"})
    return made


def embed_once(texts: Sequence[str], cache: Path) -> FloatArray:
    """Embed texts, or take their embeddings from an earlier run."""
    if not cache.exists():
        start = time.perf_counter()
        np.save(cache, Embedder().embed(texts))
        print(f"embedding: {len(texts) / (time.perf_counter() - start):,.0f} texts/s")
    found: FloatArray = np.load(cache)
    return found


def write_vectors(lake: Lake, texts: Sequence[str], base: FloatArray) -> None:
    """Write an embedding for each text: that of the text it was made from, moved a little where it was changed."""
    draw = np.random.default_rng(SEED)
    for first in range(0, len(texts), BATCH):
        here = texts[first : first + BATCH]
        vectors = base[np.arange(first, first + len(here)) % len(base)]
        if len(texts) > len(base):
            vectors = vectors + draw.normal(0, 0.02, vectors.shape).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        rows = pa.table(
            {
                "explanation_hash": pa.array(_hash_texts(here), pa.uint64()),
                "embedder": pa.repeat(EMBEDDER, len(here)),
                "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), SIZE),
            },
            schema=arrow_schema("embeddings"),
        )
        lake.write_batch("embeddings", f"benchmark-{first:09d}", rows)


def _hash_texts(texts: Sequence[str]) -> list[int]:
    return [int.from_bytes(hashlib.md5(text.encode()).digest()[8:], "little") for text in texts]


def draw_questions(texts: Sequence[str]) -> list[str]:
    """Draw questions of one, two and three words of a text, and whole texts."""
    draw = random.Random(SEED)
    questions = []
    for i in range(N_QUESTIONS):
        words = draw.choice(texts).split()
        questions.append(" ".join(words if i % 4 == 3 else draw.sample(words, min(len(words), 1 + i % 4))))
    return questions


def time_each(ask: Callable[[str], object], questions: Sequence[str]) -> str:
    """Ask every question twice and time the second; give the median and the 95th percentile."""
    seconds = []
    for question in questions:
        ask(question)
        start = time.perf_counter()
        ask(question)
        seconds.append(time.perf_counter() - start)
    return f"p50 {statistics.median(seconds) * 1e3:.1f} ms, p95 {np.quantile(seconds, 0.95) * 1e3:.1f} ms"


def time_process(lake: Path, *arguments: str) -> float:
    """Run `warehouse search` as a user does; give the median of its seconds."""
    seconds = []
    for _ in range(N_PROCESSES):
        start = time.perf_counter()
        command = [sys.executable, "-m", "warehouse", "search", *arguments, "--lake", str(lake)]
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure(entries: Sequence[dict[str, object]], base: FloatArray, folder: Path) -> None:
    """Import, build and ask one size."""
    root = folder / f"lake-{len(entries)}"
    shutil.rmtree(root, ignore_errors=True)
    source = folder / f"explanations-{len(entries)}.jsonl"
    source.write_text("".join(json.dumps(entry) + "\n" for entry in entries), "utf-8")
    dataset = builtin_datasets()["gpt2-xl/mlp_post_act"]
    how = ImportOptions("benchmark", dataset=dataset, score_kind="ev_correlation")
    lake = Lake(root)

    start = time.perf_counter()
    summary = import_explanations(lake, source, how, lambda where, reason: print(where, reason))
    imported = time.perf_counter() - start
    start = time.perf_counter()
    build_catalogue(lake)
    built = time.perf_counter() - start
    print(f"\n{summary.n_new:,} explanations")
    print(f"import: {summary.n_new / imported:,.0f} rows/s; first catalogue: {built:.1f} s")

    texts = [str(entry["explanation"]) for entry in entries]
    write_vectors(lake, texts, base)
    start = time.perf_counter()
    build_catalogue(lake)
    print(f"embeddings into the catalogue: {time.perf_counter() - start:.1f} s")
    questions = draw_questions(texts)
    with warehouse.open(root) as reader:
        _ask(reader, questions)
    by_words, by_meaning = time_process(root, questions[1]), time_process(root, questions[1], "--how", "meaning")
    print(f"warehouse search, a process each: by words {by_words:.2f} s, by meaning {by_meaning:.2f} s")


def _ask(reader: LakeReader, questions: Sequence[str]) -> None:
    embedder = Embedder()
    embedded = {question: embedder.embed([question])[0].tolist() for question in questions}
    near = "FROM nearest_explanations($embedding, k := 20)"
    print("by words:             ", time_each(lambda q: reader.search_explanations(q), questions))
    print(
        "by words, filtered:   ", time_each(lambda q: reader.search_explanations(q, min_score=0.5, layer=9), questions)
    )
    print("by meaning:           ", time_each(lambda q: reader.search_explanations(q, "meaning"), questions))
    print("by meaning, embedded: ", time_each(lambda q: reader.sql(near, {"embedding": embedded[q]}), questions))
    print(
        "by expression:        ", time_each(lambda q: reader.search_explanations(q.split()[0], "regex"), ["the royal"])
    )


def main() -> None:
    """Measure each size that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", default="0,300000")
    parser.add_argument("--folder", type=Path, default=Path("benchmark-explanations"))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    entries = read_entries(arguments.file)
    base = embed_once([str(entry["explanation"]) for entry in entries], arguments.folder / "embeddings.npy")
    for n_rows in map(int, arguments.rows.split(",")):
        measure(repeat_changed(entries, n_rows) if n_rows else entries, base, arguments.folder)


if __name__ == "__main__":
    main()
