"""Files to Parquet, end to end: this project beside DuckDB by itself, and orjson with pyarrow.

`python -m benchmarks.flatten` makes XL-like files (150 records of 64 tokens, some 150 KB each), flattens N, 2N and 4N
of them with every contender on one core and on two, in interleaved rounds, checks that all wrote the same rows, and
prints MB/s of JSON and ratios. The files are in the page cache; a process's start, its imports and a warm-up on four
files are not timed. All write zstd at level 1. Ours also writes `units` and `files`, with each file's SHA-256.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.digest import Digest, compute_digest, measure_tables
from benchmarks.trial import CONTENDERS, DATASET, Trial, run_in_child
from warehouse.mirror import MirrorSpec, make_mirror


@dataclass(slots=True)
class Measured:
    """All rounds of one contender on n files and some cores."""

    seconds: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    tables: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Setup:
    """What is measured: unit counts, cores, contenders and rounds, over the files of one mirror."""

    source: Path
    scratch: Path
    sizes: tuple[int, ...]
    cores: tuple[int, ...]
    contenders: tuple[str, ...]
    rounds: int
    shard_units: int

    def trial(self, contender: str, n: int, cores: int) -> Trial:
        """Describe one trial; its output folder is the same for all, and emptied between them."""
        units = tuple(range(n))
        return Trial(contender, str(self.source), units, cores, self.shard_units, str(self.scratch / "out"))

    def input_bytes(self, n: int) -> int:
        """Give the bytes of the first n files."""
        return sum(Path(path).stat().st_size for path in self.trial("", n, 1).files())


Results = dict[tuple[str, int, int], Measured]
"""By contender, number of files and cores."""


def measure(setup: Setup) -> Results:
    """Run all trials, round by round, and check in each the rows that were written.

    Raises:
        SystemExit: two contenders wrote different rows.
        subprocess.CalledProcessError: a contender failed.
    """
    results: Results = defaultdict(Measured)
    digests: dict[int, tuple[str, Digest]] = {}
    for _, n, cores, contender in product(range(setup.rounds), setup.sizes, setup.cores, setup.contenders):
        trial = setup.trial(contender, n, cores)
        outcome = run_in_child(trial)
        digest = compute_digest(Path(trial.out))
        first, expected = digests.setdefault(n, (contender, digest))
        if differences := expected.differences(digest):
            raise SystemExit(f"{first} and {contender} differ on {n} files: {'; '.join(differences)}")
        measured = results[contender, n, cores]
        measured.seconds.append(outcome.seconds)
        measured.peak_mb = max(measured.peak_mb, outcome.peak_mb)
        measured.tables = measure_tables(Path(trial.out))
        shutil.rmtree(setup.scratch)
    return results


def summarise(setup: Setup, results: Results) -> list[dict[str, Any]]:
    """Give one row for each contender, number of files and cores."""
    rows = []
    for (contender, n, cores), measured in sorted(results.items(), key=lambda item: (item[0][2], item[0][1])):
        n_bytes = setup.input_bytes(n)
        seconds = median(measured.seconds)
        row = {
            "contender": contender,
            "files": n,
            "cores": cores,
            "mb_per_s": n_bytes / seconds / 1e6,
            "slowest": n_bytes / max(measured.seconds) / 1e6,
            "fastest": n_bytes / min(measured.seconds) / 1e6,
            "ms_per_unit": seconds / n * 1e3,
            "peak_mb": measured.peak_mb,
            "out_per_in": {table: size / n_bytes for table, size in measured.tables.items()},
        }
        rows.append(row)
    return rows


def compare(setup: Setup, results: Results) -> dict[str, float]:
    """Give ratios of medians: ours to each peer's speed, and the time a unit takes among most files to among fewest."""

    def seconds_per_unit(contender: str, n: int, cores: int) -> float:
        return median(results[contender, n, cores].seconds) / n

    ratios: dict[str, float] = {}
    few, many = setup.sizes[0], setup.sizes[-1]
    for cores in setup.cores:
        peers = {"duckdb": [c for c in setup.contenders if c.startswith("duckdb")], "orjson": ["orjson"]}
        for n, (peer, names) in product(setup.sizes, peers.items()):
            if "ours" in setup.contenders and set(names) & set(setup.contenders):
                best = min(seconds_per_unit(name, n, cores) for name in names)
                ratios[f"ours / {peer}, {n} files, {cores} core(s)"] = best / seconds_per_unit("ours", n, cores)
        for contender in setup.contenders:
            growth = seconds_per_unit(contender, many, cores) / seconds_per_unit(contender, few, cores)
            ratios[f"time a unit, {many} files / {few}, {contender}, {cores} core(s)"] = growth
    return ratios


def print_report(rows: Iterable[dict[str, Any]], ratios: dict[str, float]) -> None:
    """Print the human form of what was measured."""
    print(
        f"{'contender':14} {'files':>6} {'cores':>5} {'MB/s (slowest-fastest)':>24} "
        f"{'ms/unit':>8} {'peak MB':>8}  bytes out / in"
    )
    for row in rows:
        speed = f"{row['mb_per_s']:.1f} ({row['slowest']:.1f}-{row['fastest']:.1f})"
        sizes = "  ".join(f"{table} {share:.3f}" for table, share in row["out_per_in"].items())
        print(
            f"{row['contender']:14} {row['files']:6} {row['cores']:5} {speed:>24} "
            f"{row['ms_per_unit']:8.2f} {row['peak_mb']:8.0f}  {sizes}"
        )
    print()
    for name, ratio in ratios.items():
        print(f"{name:56} {ratio:6.2f}")


def profile(setup: Setup) -> None:
    """Print where the time of this project goes, on one shard in this process."""
    from benchmarks.contenders.ours import build

    trial = setup.trial("ours", min(setup.sizes[0], setup.shard_units), 1)
    build(trial.warm_up())
    with cProfile.Profile() as profiler:
        build(trial)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


def main() -> None:
    """Read the options, make the files, measure, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=512, help="files of the smallest trial; the others have 2N and 4N")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shard", type=int, default=256, help="units of one piece of work (512 in a build)")
    parser.add_argument("--cores", default="1,2")
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help="some of: %(default)s")
    parser.add_argument("--source", type=Path, help="keep the made files here, or take those that are here")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--profile", action="store_true", help="profile this project on one shard instead")
    options = parser.parse_args()
    cores = tuple(int(c) for c in options.cores.split(","))
    contenders = tuple(options.contenders.split(","))
    if unknown := set(contenders) - set(CONTENDERS):
        parser.error(f"no contender {', '.join(sorted(unknown))}")
    if max(cores) > len(os.sched_getaffinity(0)):
        parser.error(f"this machine lends {len(os.sched_getaffinity(0))} processors")
    with tempfile.TemporaryDirectory() as temporary:
        source = options.source or Path(temporary, "mirror")
        sizes = tuple(options.n * factor for factor in (1, 2, 4))
        units = range(sizes[0] if options.profile else sizes[-1])
        missing = tuple(u for u in units if not (source / DATASET.paths[0].format(layer=0, unit=u)).exists())
        make_mirror(source, MirrorSpec((DATASET,), units=missing))
        setup = Setup(source, Path(temporary, "scratch"), sizes, cores, contenders, options.rounds, options.shard)
        if options.profile:
            profile(setup)
            return
        results = measure(setup)
        rows, ratios = summarise(setup, results), compare(setup, results)
    print_report(rows, ratios)
    if options.json:
        options.json.write_text(json.dumps({"measured": rows, "ratios": ratios}, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
