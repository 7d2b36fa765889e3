"""How long the server takes for a unit and for a token, at a constant rate, with heavy SQL going on beside or not.

`python -m benchmarks.serve --lake LAKE` starts `warehouse serve`, picks units and tokens of the lake at random, and
asks at a constant rate whatever has been answered so far: a request's time counts from when it was due, so that one
slow answer counts for all that it delays. With --heavy that many clients ask beside, one statement after the other,
for what never ends in the time that a statement has. One line for each kind of question: median, p99 and slowest, in
milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlencode

import aiohttp

import warehouse

_HEAVY = "SELECT count(*) FROM range(10000000) AS a, range(10000000) AS b WHERE a.range * b.range = 7"
_N_CHOICES = 200


@contextmanager
def running_server(lake: str) -> Iterator[tuple[str, int]]:
    """Run the command on a free port for the time of the context, and give its URL and process."""
    arguments = [sys.executable, "-m", "warehouse", "serve", "--lake", lake, "--port", "0"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip().rstrip("/"), process.pid
        finally:
            process.send_signal(signal.SIGTERM)


def choose_questions(lake: str, draw: random.Random) -> dict[str, list[str]]:
    """Give paths by kind of question, for units and tokens of the lake that are drawn at random."""
    with warehouse.open(lake) as reader:
        units = reader.sql(
            "SELECT unit_id, layer, unit FROM units WHERE model = 'gpt2-xl' AND component = 'mlp_post_act' ORDER BY ALL"
        ).rows(named=True)
        tokens = reader.sql("SELECT token FROM vocabulary ORDER BY ALL")["token"].to_list()
        has_records = not reader.sql("FROM records LIMIT 1").is_empty()
    units = [draw.choice(units) for _ in range(_N_CHOICES)]
    tokens = [draw.choice(tokens) for _ in range(_N_CHOICES)]
    questions = {
        "unit (API)": [f"/api/v1/units/{unit['unit_id']}" for unit in units],
        "token (API)": [f"/api/v1/top_units?{urlencode({'token': token})}" for token in tokens],
        "token (page)": [f"/token?{urlencode({'token': token})}" for token in tokens],
        "unit (page)": [f"/unit/{quote(unit['unit_id'])}" for unit in units],
    }
    if has_records:
        template = "/data/collated-activations/{layer}/{unit}.json"
        questions["unit (NeuronRecord)"] = [template.format(layer=u["layer"], unit=u["unit"]) for u in units]
    return questions


def cpu_seconds(pid: int) -> float:
    """Give the processor time that a process has used, without its workers."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(url: str, pid: int, questions: dict[str, list[str]], rate: float, seconds: float, n_heavy: int) -> None:
    """Ask at a constant rate, the kinds in turn, and print how long the answers took."""
    times: dict[str, list[float]] = {kind: [] for kind in questions}
    failures: list[str] = []
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(url, timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(kind: str, path: str, due: float) -> None:
            async with session.get(path) as answer:
                await answer.read()
                if answer.status != 200:
                    failures.append(f"{answer.status} {path}")
            times[kind].append(time.perf_counter() - due)

        async def ask_heavily() -> None:
            while True:
                async with session.post("/api/v1/sql", json={"sql": _HEAVY}) as answer:
                    await answer.read()

        heavy = [asyncio.create_task(ask_heavily()) for _ in range(n_heavy)]
        for kind, paths in questions.items():  # what is only slow once
            await ask(kind, paths[-1], time.perf_counter())
            times[kind].clear()
        start, cpu_before = time.perf_counter(), cpu_seconds(pid)
        asked: list[asyncio.Task[None]] = []
        kinds = list(questions)
        for number in range(int(rate * seconds)):
            due = start + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            kind = kinds[number % len(kinds)]
            asked.append(asyncio.create_task(ask(kind, questions[kind][number // len(kinds) % _N_CHOICES], due)))
        await asyncio.gather(*asked)
        cpu = 1e3 * (cpu_seconds(pid) - cpu_before) / len(asked)
        for task in heavy:
            task.cancel()
    everything = {"all": [t for some in times.values() for t in some]} if len(times) > 1 else {}
    for kind, some in (times | everything).items():
        ordered = sorted(1e3 * t for t in some)
        p50, p99 = (ordered[min(len(ordered) - 1, int(part * len(ordered)))] for part in (0.5, 0.99))
        print(f"{kind:22} {len(ordered):6} asked  p50 {p50:7.1f}  p99 {p99:7.1f}  slowest {ordered[-1]:7.1f} ms")
    print(f"processor time of the server, workers apart: {cpu:.1f} ms a request")
    for failure in failures[:5]:
        print("FAILED", failure)


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lake", required=True)
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second, all kinds together")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--heavy", type=int, default=1, help="clients that ask for heavy SQL beside")
    parser.add_argument("--kinds", default="API", help="only kinds of question whose name holds one of these, by comma")
    options = parser.parse_args()
    print(f"load average before: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    chosen = choose_questions(options.lake, random.Random(1))
    wanted = {kind: paths for kind, paths in chosen.items() if any(name in kind for name in options.kinds.split(","))}
    with running_server(options.lake) as (url, pid):
        asyncio.run(load(url, pid, wanted, options.rate, options.seconds, options.heavy))


if __name__ == "__main__":
    main()
