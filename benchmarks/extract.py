"""Fetching many small files, and building from them: this project beside other clients, and beside its own parts.

`python -m benchmarks.extract` makes XL-like files (150 records of 64 tokens, some 150 KB each, every one a file of its
own), serves them by nginx with and without latency, and measures in interleaved rounds

- fetch: files/s of each client, each in a process of its own, with its connections open, and of wrk, at some numbers
  of requests at once. Bodies are thrown away. Every client must have got every byte;
- azure: the same against Azurite, at 64 requests at once, 512 files, without credentials;
- build: the whole build from HTTP, from the same files on disk, and the fetch by itself, pinned to the same cores, in
  as many processes as a flow would start there. All builds must have written the same rows.

Clients and servers share the machine; files are in the page cache. What to install: see benchmarks/servers.py.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

from benchmarks.digest import compute_digest
from benchmarks.fetching import AZURE_CLIENTS, CLIENTS, FetchTrial
from benchmarks.fetching import run_in_child as fetch_in_child
from benchmarks.servers import fill_azurite, run_wrk, serve_azurite, serve_nginx
from benchmarks.trial import DATASET, Trial
from benchmarks.trial import run_in_child as build_in_child
from warehouse.mirror import MirrorSpec, make_mirror

AZURE_CONCURRENCY = 64
AZURE_FILES = 512
BUILD_CONCURRENCY = 64
SHARD_UNITS = 512
TARGETS = {(64, 0): 0.60, (64, 40): 0.95, (256, 40): 0.80}
"""Least share of bare aiohttp's files/s that the fetch alone is to reach, by requests at once and ms of latency."""
BUILD_TARGET = 1.3
"""Most times the seconds of a build from local files that one from HTTP is to take."""


@dataclass(slots=True)
class Measured:
    """All rounds of one thing: files/s of each, the processor ms a file of the client, and the peak memory in MB."""

    files_per_s: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    peak_mb: float = 0.0

    def add(self, n_files: int, seconds: float, cpu_seconds: float, peak_mb: float) -> None:
        """Take in a round."""
        self.files_per_s.append(n_files / seconds)
        self.cpu_ms.append(cpu_seconds / n_files * 1e3)
        self.peak_mb = max(self.peak_mb, peak_mb)


Key: TypeAlias = tuple[str, str, int, int]
"""Part, name, requests at once or cores, ms of latency."""
Results: TypeAlias = dict[Key, Measured]


@dataclass(frozen=True, slots=True)
class Setup:
    """What is measured, over the first files of one tree.

    Attributes:
        tree: the folder that is served.
        scratch: for what builds write.
        sizes: bytes of each file.
        urls: of nginx, by ms of latency.
        azure_url: of Azurite's container; "" to leave it out.
        clients: names of CLIENTS.
        concurrencies: requests at once of the fetches.
        cores: of the builds; empty to leave them out.
        rounds: how often.
        wrk_seconds: how long wrk runs; 0 to leave it out.
    """

    tree: Path
    scratch: Path
    sizes: tuple[int, ...]
    urls: dict[int, str]
    azure_url: str
    clients: tuple[str, ...]
    concurrencies: tuple[int, ...]
    cores: tuple[int, ...]
    rounds: int
    wrk_seconds: int


def measure(setup: Setup) -> Results:
    """Run everything, round by round.

    Raises:
        SystemExit: a client lost files or bytes, or two builds wrote different rows.
        subprocess.CalledProcessError: a client or a build failed.
    """
    results: Results = defaultdict(Measured)
    for _ in range(setup.rounds):
        for (latency, url), concurrency in product(setup.urls.items(), setup.concurrencies):
            if setup.wrk_seconds:
                paths = [f"/{path}" for path in FetchTrial("", url, len(setup.sizes), concurrency).paths()]
                load = run_wrk(url, paths, concurrency, setup.wrk_seconds)
                results["fetch", "wrk", concurrency, latency].add(load.n_requests, load.seconds, 0.0, 0.0)
            for client in setup.clients:
                trial = FetchTrial(client, url, len(setup.sizes), concurrency)
                _measure_fetch(setup, trial, results["fetch", client, concurrency, latency])
        for client in AZURE_CLIENTS if setup.azure_url else ():
            n_files = min(AZURE_FILES, len(setup.sizes))
            trial = FetchTrial(client, setup.azure_url, n_files, AZURE_CONCURRENCY, is_azure=True)
            _measure_fetch(setup, trial, results["azure", client, AZURE_CONCURRENCY, 0])
        for cores in setup.cores:
            _measure_builds(setup, cores, results)
    return results


def _measure_fetch(setup: Setup, trial: FetchTrial, measured: Measured) -> None:
    outcome = fetch_in_child(trial)
    if (outcome.n_files, outcome.n_bytes) != (trial.n_files, sum(setup.sizes[: trial.n_files])):
        raise SystemExit(f"{trial.client} got {outcome.n_files} files of {outcome.n_bytes:,} bytes")
    measured.add(outcome.n_files, outcome.seconds, outcome.cpu_seconds, outcome.peak_mb)


def _measure_builds(setup: Setup, cores: int, results: Results) -> None:
    """Build from the folder and from each URL, in turns with the fetch alone, and compare what was written."""
    n = len(setup.sizes)
    places = {("local", 0): str(setup.tree)} | {("http", latency): url for latency, url in setup.urls.items()}
    written = []
    for (kind, latency), place in places.items():
        trial = Trial("ours", place, tuple(range(n)), cores, SHARD_UNITS, str(setup.scratch / "out"))
        built = build_in_child(trial)
        results["build", kind, cores, latency].add(n, built.seconds, 0.0, built.peak_mb)
        written.append(compute_digest(Path(trial.out)))
        if differences := written[0].differences(written[-1]):
            raise SystemExit(f"builds from {trial.source} and {setup.tree} differ: {'; '.join(differences)}")
        shutil.rmtree(setup.scratch)
        if kind == "http":
            alone = FetchTrial("ours", place, n, BUILD_CONCURRENCY, cores=cores)
            _measure_fetch(setup, alone, results["build", "fetch alone", cores, latency])


def summarise(setup: Setup, results: Results) -> list[dict[str, Any]]:
    """Give one row for each thing measured."""
    mb_per_file = sum(setup.sizes) / len(setup.sizes) / 1e6
    return [
        {
            "part": part,
            "name": name,
            "cores" if part == "build" else "concurrency": count,
            "latency_ms": latency,
            "files_per_s": median(measured.files_per_s),
            "slowest": min(measured.files_per_s),
            "fastest": max(measured.files_per_s),
            "mb_per_s": median(measured.files_per_s) * mb_per_file,
            "cpu_ms_per_file": median(measured.cpu_ms),
            "peak_mb": measured.peak_mb,
        }
        for (part, name, count, latency), measured in sorted(results.items(), key=lambda item: _order(item[0]))
    ]


def _order(key: Key) -> tuple[int, int, int]:
    part, _, count, latency = key
    return ("fetch", "azure", "build").index(part), latency, count


def compare(setup: Setup, results: Results) -> dict[str, float]:
    """Give ratios of medians: clients to bare aiohttp, builds from HTTP to local ones and to their parts."""

    def speed(*key: Any) -> float:
        return median(results[key].files_per_s)

    ratios: dict[str, float] = {}
    for part, name, count, latency in sorted(results, key=_order):
        if part in ("fetch", "azure") and name != "aiohttp" and (part, "aiohttp", count, latency) in results:
            ratios[f"{part}: {name} / aiohttp, {count} at once, {latency} ms{_target(part, name, count, latency)}"] = (
                speed(part, name, count, latency) / speed(part, "aiohttp", count, latency)
            )
        if part == "build" and name == "http":
            ours, local = speed(part, name, count, latency), speed(part, "local", count, 0)
            fetch = speed(part, "fetch alone", count, latency)
            where = f"{count} core(s), {latency} ms"
            ratios[f"build: seconds from HTTP / from local files, {where} (at most {BUILD_TARGET})"] = local / ours
            ratios[f"build: seconds from HTTP / fetch alone + local build, {where}"] = (
                1 / ours / (1 / fetch + 1 / local)
            )
    return ratios


def _target(part: str, name: str, count: int, latency: int) -> str:
    target = TARGETS.get((count, latency)) if (part, name) == ("fetch", "ours") else None
    return f" (at least {target:.2f})" if target else ""


def print_report(rows: list[dict[str, Any]], ratios: dict[str, float]) -> None:
    """Print the human form of what was measured."""
    print(
        f"{'part':6} {'name':16} {'at once':>8} {'cores':>5} {'ms':>4} {'files/s (slowest-fastest)':>27} "
        f"{'MB/s':>7} {'CPU ms/file':>11} {'peak MB':>8}"
    )
    for row in rows:
        speed = f"{row['files_per_s']:,.0f} ({row['slowest']:,.0f}-{row['fastest']:,.0f})"
        cpu = f"{row['cpu_ms_per_file']:.2f}" if row["cpu_ms_per_file"] else ""
        peak = f"{row['peak_mb']:.0f}" if row["peak_mb"] else ""
        print(
            f"{row['part']:6} {row['name']:16} {row.get('concurrency', ''):>8} {row.get('cores', ''):>5} "
            f"{row['latency_ms']:>4} {speed:>27} {row['mb_per_s']:7.0f} {cpu:>11} {peak:>8}"
        )
    print()
    for name, ratio in ratios.items():
        print(f"{name:80} {ratio:6.2f}")


def main() -> None:
    """Read the options, make the files, start the servers, measure, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2048, help="files")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", default="fetch,azure,build", help="some of: %(default)s")
    parser.add_argument("--concurrency", default="16,64,256", help="requests at once of the fetches")
    parser.add_argument("--latency", default="0,40", help="ms that an answer of nginx is held back")
    parser.add_argument("--clients", default=",".join(CLIENTS), help="some of: %(default)s")
    parser.add_argument("--cores", default="1,2", help="of the builds")
    parser.add_argument("--wrk-seconds", type=int, default=2, help="0 for no wrk")
    parser.add_argument("--azurite", type=Path, default=Path("tests/servers/node_modules"), help="%(default)s")
    parser.add_argument("--source", type=Path, help="keep the made files here, or take those that are here")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    parts, clients = set(options.parts.split(",")), tuple(options.clients.split(","))
    if unknown := parts - {"fetch", "azure", "build"} | set(clients) - set(CLIENTS):
        parser.error(f"no part or client {', '.join(sorted(unknown))}")
    with ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        tree = options.source or temporary / "tree"
        files = [tree / DATASET.paths[0].format(layer=0, unit=unit) for unit in range(options.n)]
        missing = tuple(unit for unit, file in enumerate(files) if not file.exists())
        make_mirror(tree, MirrorSpec((DATASET,), units=missing))
        azure_url = ""
        if "azure" in parts:
            azure_url = fill_azurite(stack.enter_context(serve_azurite(options.azurite)), tree, files[:AZURE_FILES])
        latencies = [int(latency) for latency in options.latency.split(",")] if parts & {"fetch", "build"} else []
        workers = min(2, len(os.sched_getaffinity(0)))
        setup = Setup(
            tree,
            temporary / "scratch",
            tuple(file.stat().st_size for file in files),
            {ms: stack.enter_context(serve_nginx(tree, latency_ms=ms, workers=workers)) for ms in latencies},
            azure_url,
            clients,
            tuple(int(count) for count in options.concurrency.split(",")) if "fetch" in parts else (),
            tuple(int(count) for count in options.cores.split(",")) if "build" in parts else (),
            options.rounds,
            options.wrk_seconds,
        )
        results = measure(setup)
        rows, ratios = summarise(setup, results), compare(setup, results)
    print_report(rows, ratios)
    if options.json:
        options.json.write_text(json.dumps({"measured": rows, "ratios": ratios}, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
