"""Kill -9 of a real `warehouse build`, again and again, at random moments: the lake must not care.

`python -m benchmarks.soak --kills 50` builds a small dataset from nginx with the installed command, kills the flow's
process, one of its workers, or all of them at once, and goes on with the same command; after each few kills it lets
one run end, and compares the lake's content with that of a build that was never disturbed. It takes some ten seconds a
kill, most of them Prefect's start.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import warehouse
from benchmarks.servers import serve_nginx
from warehouse.datasets import parse_registration
from warehouse.lake import Lake
from warehouse.mirror import MirrorSpec, RecordCounts, make_mirror

N_UNITS = 192
KILLS_PER_LAKE = 5
REQUESTS_PER_SECOND = 80
"""Of a build: so slow that a random moment is likely to be one in which it does something."""
TABLES = ("files", "records", "units", "token_stats", "raw")
DATASET = f"""
[[dataset]]
model = "soak"
component = "mlp"
kind = "neuron"
per = "token"
n_layers = 2
units_per_layer = {N_UNITS}
shard_units = 16
paths = ["acts/{{layer}}/{{unit}}.json"]
"""

Victim: TypeAlias = Literal["flow", "worker", "all"]
Content: TypeAlias = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Soak:
    """Where everything is, and how long an undisturbed build takes: until its first commit, and in all."""

    scratch: Path
    url: str
    first_commit: float
    seconds: float


def start_build(scratch: Path, url: str, lake: Lake, *options: str) -> subprocess.Popen[bytes]:
    """Start `warehouse build` in a session of its own; what it says goes to a file."""
    command = [sys.executable, "-m", "warehouse", "build", "soak", "--source", url, "--lake", lake.url, "--keep-raw"]
    command += ["--workers", "2", "--max-rate", str(REQUESTS_PER_SECOND), *options]
    environment = os.environ | {
        "PREFECT_HOME": str(scratch / "prefect"),  # its state may be lost with the process; it is not the lake's
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }
    with (scratch / "said").open("ab") as said:
        return subprocess.Popen(command, stdout=said, stderr=said, env=environment, start_new_session=True)


def make_lake(path: Path) -> Lake:
    """Make a lake that knows the dataset."""
    lake = Lake(path)
    lake.register(DATASET, "soak.toml")
    return lake


def read_content(lake: Lake) -> Content:
    """Read every part of a lake but for when its files were fetched."""
    content: Content = {}
    for table in TABLES:
        for shard in lake.shards(table):
            rows = [row for group in lake.iterate_part(table, shard) for row in group.to_pylist()]
            content[f"{table}/{shard.part_name}"] = [row | {"fetched_at": None} for row in rows]
    return content


def find_faults(lake: Lake, expected: Content) -> list[str]:
    """Say what is not as it should be in a lake whose last build was not disturbed."""
    found = read_content(lake)
    faults = [f"{part} is not what it should be" for part in expected if found.get(part) != expected[part]]
    faults += [f"{part} should not be there" for part in found.keys() - expected.keys()]
    faults += [f"{path} was left behind" for path in Path(lake.root, ".tmp").iterdir()]
    with warehouse.open(lake.url) as reader:
        counted = reader.sql("SELECT status, count(*) AS n FROM files GROUP BY status").rows()
    if counted != [("ok", 2 * N_UNITS)]:
        faults.append(f"the catalogue counts {counted}")
    return faults


def run_undisturbed(scratch: Path, url: str) -> tuple[Soak, Content]:
    """Build twice, the first time so that all is loaded, and time the second."""
    for name in ("first", "undisturbed"):
        lake = make_lake(scratch / name)
        started = time.monotonic()
        first_commit = 0.0
        with start_build(scratch, url, lake) as build:
            while build.poll() is None:
                if not first_commit and lake.shards():
                    first_commit = time.monotonic() - started
                time.sleep(0.02)
        _end_session(build)
        if build.returncode:
            raise SystemExit((scratch / "said").read_text("utf-8"))
        seconds = time.monotonic() - started
    return Soak(scratch, url, first_commit, seconds), read_content(lake)


def kill_a_build(soak: Soak, lake: Lake, victim: Victim, seconds: float, *options: str) -> str:
    """Start a build, kill it after so long, and say how it ended."""
    build = start_build(soak.scratch, soak.url, lake, *options)
    with suppress(subprocess.TimeoutExpired):
        build.wait(seconds)
        return "ended before"
    n_before = len(lake.shards())
    workers = list(_workers_of(build.pid))
    if victim == "worker" and workers:
        os.kill(random.choice(workers), signal.SIGKILL)  # noqa: S311  (any of them)
        build.wait(120)  # the flow sees it, and ends
        if build.returncode == 0:
            return "worker killed, build done"
    elif victim == "all":
        os.killpg(build.pid, signal.SIGKILL)
    else:
        victim = "flow"
        build.kill()
    build.wait()
    deadline = time.monotonic() + 30
    while list(_workers_of(build.pid)):  # they see that they are alone
        if time.monotonic() > deadline:
            raise SystemExit("workers live on without their flow")
        time.sleep(0.05)
    _end_session(build)
    return f"{victim} killed, {'amid its shards' if n_before else 'before its first shard'}"


def _workers_of(session: int) -> Iterator[int]:
    """Give the processes that do shards: children of the fork server in a session."""
    parents = {}
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            state, parent, _, of = (folder / "stat").read_text("utf-8").rpartition(") ")[2].split()[:4]
            if int(of) == session and state != "Z" and b"forkserver" in (folder / "cmdline").read_bytes():
                parents[int(folder.name)] = int(parent)
    yield from (process for process, parent in parents.items() if parent in parents or parent == 1)


def _end_session(build: subprocess.Popen[bytes]) -> None:
    """End what a killed flow leaves of Prefect: its server."""
    with suppress(ProcessLookupError):
        os.killpg(build.pid, signal.SIGKILL)


@contextmanager
def _served(scratch: Path) -> Iterator[str]:
    spec = MirrorSpec(
        parse_registration(DATASET, "soak.toml"),
        layers=(0, 1),
        units=tuple(range(N_UNITS)),
        counts=RecordCounts(top=3, random=4, per_bucket=2),
    )
    make_mirror(scratch / "tree", spec)
    with serve_nginx(scratch / "tree") as url:
        yield url


def main() -> None:
    """Read the options, kill and mend, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)  # noqa: S311  (no secret)
    ends: Counter[str] = Counter()
    faults: list[str] = []
    n_killed = n_lakes = 0
    with tempfile.TemporaryDirectory(prefix="warehouse-soak-") as folder, _served(Path(folder)) as url:
        soak, expected = run_undisturbed(Path(folder), url)
        print(f"undisturbed: {soak.seconds:.1f} s, its first commit after {soak.first_commit:.1f} s", flush=True)
        while n_killed < options.kills and not faults:
            lake = make_lake(Path(folder, f"lake-{n_lakes}"))
            for place in range(min(KILLS_PER_LAKE, options.kills - n_killed)):
                # Half of the moments are among the commits, the others anywhere.
                earliest = draw.choice((0.0, soak.first_commit))
                again = ("--force",) if place > 2 else ()
                end = kill_a_build(
                    soak, lake, draw.choice(("flow", "worker", "all")), draw.uniform(earliest, soak.seconds), *again
                )
                ends[end] += 1
                n_killed += "killed" in end
                print(f"{n_killed:4} {end}, {len(lake.shards())} shards", flush=True)
            build = start_build(soak.scratch, soak.url, lake)
            if build.wait():
                raise SystemExit((soak.scratch / "said").read_text("utf-8"))
            _end_session(build)
            faults = find_faults(lake, expected)
            n_lakes += 1
    for end, count in sorted(ends.items()):
        print(f"{count:4} {end}")
    if faults:
        raise SystemExit("\n".join(faults))
    print(f"{n_killed} kills, {n_lakes} lakes: each ended with the content of the undisturbed build, and nothing else")


if __name__ == "__main__":
    main()
