"""Top units for a token: the catalogue's index beside unsorted Parquet, JSON files, and PostgreSQL.

`python -m benchmarks.query --units 5000,20000` makes lakes of that many XL-like units (`benchmarks.lakes`; --lakes
keeps them), builds each one's catalogue in a process of its own, asks for the top 20 units of frequent, median and rare
tokens on an open connection, then adds one shard and builds again. All contenders must give the same strengths. JSON
files are searched by DuckDB over a few hundred files, which the table states. PostgreSQL, where --postgres names the
folder of its programs, is a server of its own on a Unix socket with a b-tree on (token, max_activation); as it does not
run as root, root runs it as the user postgres.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles

import duckdb

from benchmarks.lakes import DATASET, list_shards, make_lake
from warehouse import catalogue
from warehouse.lake import Lake
from warehouse.mirror import MirrorSpec, make_mirror

_K = 20
_PER_GROUP = 25
_ROUNDS = 4
_FIGURES = "n, n_active, max_activation, sum_activation, n_random, sum_random, sum_positive"

Ask = Callable[[str], list[float]]
"""Takes a token, gives the strengths of its top units."""


@dataclass(frozen=True, slots=True)
class Answered:
    """How fast one contender answered for tokens of one frequency; milliseconds."""

    contender: str
    units: int
    tokens: str
    p50: float
    p95: float
    fastest: float


@dataclass(frozen=True, slots=True)
class Built:
    """What it took to make one contender's store; megabytes of resident memory at the peak, 0 where not measured."""

    contender: str
    units: int
    rows: int
    seconds: float
    bytes_per_row: float
    peak_mb: float


def build_in_child(lake: Lake) -> tuple[float, float]:
    """Build a catalogue in a process of its own, and give its seconds and peak megabytes."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(_build, (lake,))


def _build(lake: Lake) -> tuple[float, float]:
    start = time.perf_counter()
    catalogue.build_catalogue(lake)
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def choose_tokens(connection: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """Give the most frequent tokens, those about the median, and the rarest, by the units that are active on them."""
    rows = connection.execute("SELECT token FROM vocabulary ORDER BY n_units DESC, token").fetchall()
    tokens = [token for (token,) in rows]
    middle = len(tokens) // 2
    return {
        "frequent": tokens[:_PER_GROUP],
        "median": tokens[middle : middle + _PER_GROUP],
        "rare": tokens[-_PER_GROUP:],
    }


def measure(
    contender: str, units: int, groups: Mapping[str, list[str]], ask: Ask, rounds: int = _ROUNDS
) -> Iterator[Answered]:
    """Ask for every token, the first round untimed, and give percentiles over the others."""
    for name, tokens in groups.items():
        times = []
        for number in range(rounds):
            for token in tokens:
                start = time.perf_counter()
                ask(token)
                if number or rounds == 1:
                    times.append((time.perf_counter() - start) * 1e3)
        yield Answered(contender, units, name, median(times), quantiles(times, n=20)[-1], min(times))


def require_same(groups: Mapping[str, list[str]], expected: Ask, found: Ask) -> None:
    """Check that two contenders give the same strengths.

    Raises:
        SystemExit: they do not.
    """
    for tokens in groups.values():
        for token in tokens[:2]:
            if expected(token) != found(token):
                raise SystemExit(f"the contenders differ on {token!r}: {expected(token)} and {found(token)}")


def ask_index(connection: duckdb.DuckDBPyConnection, by: str = "max") -> Ask:
    """Ask the catalogue's own macro."""

    def ask(token: str) -> list[float]:
        how, order = ("", {}) if by == "max" else (', "by" := $by', {"by": by})
        query = f"SELECT * FROM top_units($token, k := $k{how})"
        rows = connection.execute(query, {"token": token, "k": _K, **order}).fetchall()
        return [row[6] for row in rows]

    return ask


def ask_parquet(connection: duckdb.DuckDBPyConnection) -> Ask:
    """Ask DuckDB over token_stats as it lies in the lake."""

    def ask(token: str) -> list[float]:
        rows = connection.execute(
            f"SELECT max_activation, unit_id, {_FIGURES} FROM token_stats WHERE token = $token "
            "ORDER BY max_activation DESC, model, component, layer, unit LIMIT $k",
            {"token": token, "k": _K},
        ).fetchall()
        return [row[0] for row in rows]

    return ask


def ask_json(connection: duckdb.DuckDBPyConnection, folder: Path) -> Ask:
    """Ask DuckDB over the JSON files themselves."""
    record = "STRUCT(tokens VARCHAR[], activations FLOAT[])"
    columns = (
        "{neuron_id: 'STRUCT(layer_index INTEGER, neuron_index INTEGER)', "
        f"most_positive_activation_records: '{record}[]', random_sample: '{record}[]', "
        f"random_sample_by_quantile: '{record}[][]'}}"
    )

    def ask(token: str) -> list[float]:
        rows = connection.execute(
            f"""
            WITH records AS (
              SELECT neuron_id, unnest(list_concat(
                list_concat(most_positive_activation_records, random_sample), flatten(random_sample_by_quantile)
              )) AS record
              FROM read_json('{folder}/**/*.json', columns = {columns}, maximum_object_size = 67108864)
            ),
            positions AS (
              SELECT neuron_id, unnest(record.tokens) AS token, unnest(record.activations) AS activation FROM records
            )
            SELECT max(activation) AS strongest, neuron_id, count(*), sum(activation)
            FROM positions WHERE token = $token GROUP BY neuron_id HAVING strongest > 0
            ORDER BY strongest DESC, neuron_id LIMIT $k
            """,
            {"token": token, "k": _K},
        ).fetchall()
        return [row[0] for row in rows]

    return ask


@contextmanager
def serve_postgres(programs: Path) -> Iterator[tuple[str, Path]]:
    """Run a PostgreSQL of our own until the context is left, and give its connection string and data folder."""
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o777)
        become = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        data = Path(root, "data")
        options = f"-k {root} -c listen_addresses='' -c shared_buffers=1GB -c maintenance_work_mem=1GB -c fsync=off"
        control = [*become, str(programs / "pg_ctl"), "-D", str(data), "-w", "-s"]
        create = [
            *become,
            str(programs / "initdb"),
            "-D",
            str(data),
            "-U",
            "bench",
            "-A",
            "trust",
            "--no-locale",
            "-E",
            "UTF8",
        ]
        subprocess.run(create, check=True, stdout=subprocess.DEVNULL, cwd=root)
        subprocess.run([*control, "-l", f"{root}/log", "-o", options, "start"], check=True, cwd=root)
        try:
            yield f"host={root} user=bench dbname=postgres", data
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, cwd=root)


def load_postgres(dsn: str, connection: duckdb.DuckDBPyConnection) -> float:
    """Load the rows of token_stats by COPY, make the b-tree, and give the seconds of both."""
    import psycopg  # not among the project's dependencies: only this trial wants it

    start = time.perf_counter()
    with psycopg.connect(dsn, autocommit=True) as postgres, postgres.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE token_stats (layer smallint, unit integer, token text, n integer, n_active integer, "
            "max_activation real, sum_activation real, n_random integer, sum_random real, sum_positive real)"
        )
        columns = "layer, unit, token, n, n_active, max_activation, sum_activation, n_random, sum_random, sum_positive"
        rows = connection.execute(f"SELECT {columns} FROM token_stats WHERE position(chr(0) IN token) = 0")
        with cursor.copy(f"COPY token_stats ({columns}) FROM STDIN") as copy:
            while batch := rows.fetchmany(100_000):
                for row in batch:
                    copy.write_row(row)
        cursor.execute("CREATE INDEX ON token_stats (token, max_activation DESC)")
        cursor.execute("VACUUM ANALYZE token_stats")
    return time.perf_counter() - start


def ask_postgres(dsn: str) -> Ask:
    """Ask PostgreSQL on one open connection."""
    import psycopg  # not among the project's dependencies: only this trial wants it

    postgres = psycopg.connect(dsn, autocommit=True)

    def ask(token: str) -> list[float]:
        query = "SELECT * FROM token_stats WHERE token = %s ORDER BY max_activation DESC LIMIT %s"
        return [row[5] for row in postgres.execute(query, (token, _K), binary=True).fetchall()]

    return ask


def measure_lake(
    root: Path, units: int, postgres: Path | None, *, with_parquet: bool
) -> tuple[list[Built], list[Answered]]:
    """Measure every contender on a lake of so many units."""
    lake = make_lake(root, units)
    lake.catalogue_path.unlink(missing_ok=True)
    seconds, peak = build_in_child(lake)
    size = lake.catalogue_path.stat().st_size
    built: list[Built] = []
    answered: list[Answered] = []
    with duckdb.connect(str(lake.catalogue_path), read_only=True) as connection:
        ((rows,),) = connection.execute("SELECT count(*) FROM index_rows").fetchall()
        built.append(Built("index", units, rows, seconds, size / rows, peak))
        groups = choose_tokens(connection)
        for by in ("max", "mean", "relative", "share"):
            answered += measure(f"index, by {by}", units, groups, ask_index(connection, by))
        if with_parquet:
            require_same(groups, ask_parquet(connection), ask_index(connection))
            few = {name: tokens[:3] for name, tokens in groups.items()}
            answered += measure("unsorted Parquet", units, few, ask_parquet(connection), rounds=1)
        if postgres:
            with serve_postgres(postgres) as (dsn, data):
                seconds = load_postgres(dsn, connection)
                on_disk = sum(path.stat().st_size for path in (data / "base").rglob("*") if path.is_file())
                built.append(Built("PostgreSQL", units, rows, seconds, on_disk / rows, 0.0))
                groups = {name: [t for t in tokens if "\0" not in t] for name, tokens in groups.items()}
                require_same(groups, ask_index(connection), ask_postgres(dsn))
                answered += measure("PostgreSQL", units, groups, ask_postgres(dsn))
    built.append(_add_shard(lake, units))
    return built, answered


def _add_shard(lake: Lake, units: int) -> Built:
    n_shards = len(list_shards(units))
    more = next(n for n in range(units, units + 2 * DATASET.shard_units) if len(list_shards(n)) > n_shards)
    make_lake(Path(lake.root), more)
    seconds, peak = build_in_child(lake)
    with duckdb.connect(str(lake.catalogue_path), read_only=True) as connection:
        ((rows,),) = connection.execute("SELECT count(*) FROM index_rows").fetchall()
    added = (set(lake.shards()) - set(list_shards(units))).pop()
    lake.remove_shard(added)
    size = lake.catalogue_path.stat().st_size
    lake.catalogue_path.unlink()
    return Built("index, one shard added", units, rows, seconds, size / rows, peak)


def measure_json(n_files: int) -> list[Answered]:
    """Measure DuckDB over JSON files of the same shape."""
    with tempfile.TemporaryDirectory() as root, duckdb.connect() as connection:
        make_mirror(Path(root), MirrorSpec((DATASET,), units=tuple(range(n_files))))
        ask = ask_json(connection, Path(root))
        return list(measure("JSON files", n_files, {"frequent": [" the", ",", "."]}, ask, rounds=1))


def print_report(built: list[Built], answered: list[Answered]) -> None:
    """Print the human form of what was measured."""
    print(f"{'store':24} {'units':>7} {'rows':>12} {'seconds':>8} {'B/row':>6} {'peak MB':>8}")
    for b in built:
        print(
            f"{b.contender:24} {b.units:7} {b.rows:12} {b.seconds:8.1f} {b.bytes_per_row:6.2f} {b.peak_mb or '':8.0f}"
            if b.peak_mb
            else f"{b.contender:24} {b.units:7} {b.rows:12} {b.seconds:8.1f} {b.bytes_per_row:6.2f}"
        )
    print(f"\n{'top 20 units of a token':24} {'units':>7} {'tokens':9} {'p50 ms':>8} {'p95 ms':>8} {'fastest':>8}")
    for a in answered:
        print(f"{a.contender:24} {a.units:7} {a.tokens:9} {a.p50:8.2f} {a.p95:8.2f} {a.fastest:8.2f}")


def main() -> None:
    """Read the options, measure, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", default="5000,20000")
    parser.add_argument("--lakes", type=Path, help="keep the made lakes in this folder, or take those that are there")
    parser.add_argument("--postgres", type=Path, help="folder of pg_ctl and initdb")
    parser.add_argument("--postgres-units", type=int, default=5000, help="largest lake to load into PostgreSQL")
    parser.add_argument("--parquet-units", type=int, default=20_000, help="largest lake to scan as Parquet")
    parser.add_argument("--json-files", type=int, default=200, help="JSON files to search; 0 for none")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    built: list[Built] = []
    answered: list[Answered] = measure_json(options.json_files) if options.json_files else []
    with tempfile.TemporaryDirectory() as temporary:
        for units in map(int, options.units.split(",")):
            postgres = options.postgres if units <= options.postgres_units else None
            root = (options.lakes or Path(temporary)) / str(units)
            figures = measure_lake(root, units, postgres, with_parquet=units <= options.parquet_units)
            built += figures[0]
            answered += figures[1]
            if not options.lakes:
                shutil.rmtree(root)
    print_report(built, answered)
    if options.json:
        figures_by_kind = {"built": [asdict(b) for b in built], "answered": [asdict(a) for a in answered]}
        options.json.write_text(json.dumps(figures_by_kind, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
