"""Similar units: how fast the catalogue finds them, what that costs, and which weights of tokens find planted twins.

`python -m benchmarks.similar --units 5000,20000` makes lakes of that many XL-like units (`benchmarks.lakes`; --lakes
keeps them), builds each one's catalogue in a process of its own, and asks for the 20 most similar units of units drawn
at random, on an open connection, once of all units and once of one layer. DuckDB over token_stats as it lies in the
lake must give the same scores.

--twins plants so many pairs of units of each kind: two that respond to the same 1 to 40 tokens, the second to most of
them, each with its own texts, scale and noise. A pair is found if the second is the first's most similar of all.
Some respond to one frequent token alone and have true rivals, so that no weight finds all.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from benchmarks.lakes import make_lake
from benchmarks.query import Answered, Ask, Built, build_in_child, measure
from warehouse.lake import Lake

_K = 20
_ASKED = 25
_TOKENS, _RECORDS, _RECORD_TOKENS, _STRONG_RECORDS = 50_000, 150, 64, 60
_KINDS = (("latent", "latent"), ("neuron", "latent"), ("neuron", "neuron"), ("made neuron", "made neuron"))
_TAILS = {"neuron": (-0.6, 0.6), "made neuron": (0.35, 1.0)}
"""Mean and deviation of a neuron's input where nothing drives it; the second are those of `benchmarks.lakes`."""

Figures = NDArray[np.float64]
Weigh = Callable[[Figures, Figures, Figures], Figures]
"""Takes occurrences, sums of positive activations, and strongest activations, each [n_tokens]; gives weights."""

WEIGHTS: dict[str, Weigh] = {
    "max": lambda n, total, strongest: strongest,
    "sum": lambda n, total, strongest: total,
    "mean": lambda n, total, strongest: total / n,
    "sum / sqrt(n)": lambda n, total, strongest: total / np.sqrt(n),
    "above the unit's mean": lambda n, total, strongest: np.maximum(total - n * total.sum() / n.sum(), 0) / np.sqrt(n),
    "sum / (n + 1)": lambda n, total, strongest: total / (n + 1),
    "sum / (n + 3)": lambda n, total, strongest: total / (n + 3),
    "sum / (n + 10)": lambda n, total, strongest: total / (n + 10),
    "its square": lambda n, total, strongest: (total / (n + 3)) ** 2,
}


@dataclass(frozen=True, slots=True)
class Found:
    """The part of planted twins that a weight finds, 0 to 1, by how many of each unit's tokens are kept."""

    kinds: str
    weight: str
    is_rarity_in_it: bool
    found: dict[int, float]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a unit's records say of each token it is active on; [n] each."""

    tokens: NDArray[np.int64]
    n: Figures
    total: Figures
    strongest: Figures


def measure_twins(n_pairs: int, rng: np.random.Generator) -> Iterator[Found]:
    """Plant pairs of every two kinds, and find the second of each by the first."""
    share = 1 / (np.arange(_TOKENS) + 3.0)
    texts = np.searchsorted(np.cumsum(share / share.sum()), (np.arange(1 << 21) + 0.5) / (1 << 21))
    for kinds in _KINDS:
        twins = [_plant_twins(kinds, texts, rng) for _ in range(n_pairs)]
        sides = [[pair[side] for pair in twins] for side in (0, 1)]
        n_units = np.bincount(np.concatenate([unit.tokens for side in sides for unit in side]), minlength=_TOKENS)
        rarity = np.log((2 * n_pairs + 1) / np.maximum(n_units, 1))
        for name, weigh in WEIGHTS.items():
            for factor in (np.ones(_TOKENS), rarity):
                found = {}
                for kept in (16, 32, 64):
                    first, second = ([_profile(unit, weigh, factor, kept) for unit in side] for side in sides)
                    found[kept] = _part_found(np.stack(first), np.stack(second))
                yield Found(" and ".join(kinds), name, factor is rarity, found)


def _plant_twins(kinds: Sequence[str], texts: NDArray[np.int64], rng: np.random.Generator) -> list[Seen]:
    planted = np.unique(np.exp(rng.uniform(0, np.log(_TOKENS), rng.choice([1, 2, 4, 8, 16, 40]))).astype(np.int64) - 1)
    strengths = rng.uniform(0.3, 1, len(planted))
    is_shared = rng.random(len(planted)) < 0.7
    is_shared[rng.integers(len(planted))] = True
    return [
        _draw_unit(kinds[0], planted, strengths, texts, rng),
        _draw_unit(kinds[1], planted[is_shared], strengths[is_shared], texts, rng),
    ]


def _draw_unit(
    kind: str, planted: NDArray[np.int64], strengths: Figures, texts: NDArray[np.int64], rng: np.random.Generator
) -> Seen:
    tokens = texts[rng.integers(0, len(texts), (_RECORDS, _RECORD_TOKENS))]
    for record in tokens[:_STRONG_RECORDS]:  # chosen for the unit's activations, as top records are
        places = rng.integers(0, _RECORD_TOKENS, rng.integers(1, 4))
        record[places] = rng.choice(planted, len(places), p=strengths / strengths.sum())
    tuning = np.zeros(_TOKENS)
    tuning[planted] = strengths * rng.lognormal(0, 0.2, len(planted))
    is_fit = rng.random(tokens.shape) < 0.7  # the rest of the context decides too
    driven = 5 * tuning[tokens] * np.where(is_fit, 1, 0.1) * rng.lognormal(0, 0.3, tokens.shape)
    if kind == "latent":
        stray = np.where(rng.random(tokens.shape) < 0.005, rng.exponential(0.7, tokens.shape), 0)
        values = np.maximum(driven - 0.3, 0) + stray
    else:
        inputs = driven + rng.normal(*_TAILS[kind], tokens.shape)
        values = np.maximum(inputs / (1 + np.exp(-1.702 * inputs)), 0)
    values *= rng.lognormal(0, 1)
    strongest = np.zeros(_TOKENS)
    np.maximum.at(strongest, tokens, values)
    active = np.flatnonzero(strongest)
    n = np.bincount(tokens.ravel(), minlength=_TOKENS).astype(np.float64)
    total = np.bincount(tokens.ravel(), values.ravel(), _TOKENS).astype(np.float64)
    return Seen(active, n[active], total[active], strongest[active])


def _profile(unit: Seen, weigh: Weigh, factor: Figures, kept: int) -> NDArray[np.float32]:
    weights = weigh(unit.n, unit.total, unit.strongest) * factor[unit.tokens]
    best = np.argsort(-weights, kind="stable")[:kept]
    profile = np.zeros(_TOKENS, np.float32)
    profile[unit.tokens[best]] = weights[best] / max(float(np.linalg.norm(weights[best])), 1e-30)
    return profile


def _part_found(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    scores = first @ second.T
    own = scores.diagonal().copy()
    np.fill_diagonal(scores, -1)
    return float(np.mean((own > 0) & (own > scores.max(axis=1))))


def ask_macro(connection: duckdb.DuckDBPyConnection, restriction: str = "") -> Ask:
    """Ask the catalogue's own macro."""

    def ask(unit_id: str) -> list[float]:
        query = f"SELECT score FROM similar_units($unit_id, k := $k{restriction})"
        return [score for (score,) in connection.execute(query, {"unit_id": unit_id, "k": _K}).fetchall()]

    return ask


def ask_parquet(connection: duckdb.DuckDBPyConnection) -> Ask:
    """Ask DuckDB over token_stats as it lies in the lake."""

    def ask(unit_id: str) -> list[float]:
        rows = connection.execute(
            """
            WITH strongest AS (
              SELECT unit_id, token, CAST(CAST(sum_positive AS DOUBLE) / (n + 3) AS FLOAT) AS weight
              FROM token_stats
              QUALIFY row_number() OVER (PARTITION BY unit_id ORDER BY weight DESC, token) <= 32
            ),
            profiles AS MATERIALIZED (
              SELECT
                unit_id, token,
                weight / sqrt(sum(CAST(weight AS DOUBLE) ** 2) OVER (PARTITION BY unit_id)) AS weight
              FROM strongest
            )
            SELECT round(sum(a.weight * p.weight), 6) AS score
            FROM profiles AS p
            INNER JOIN profiles AS a ON a.token = p.token AND a.unit_id = $unit_id AND p.unit_id <> $unit_id
            GROUP BY p.unit_id ORDER BY score DESC LIMIT $k
            """,
            {"unit_id": unit_id, "k": _K},
        ).fetchall()
        return [score for (score,) in rows]

    return ask


def measure_lake(root: Path, units: int, *, with_parquet: bool) -> tuple[Built, list[Answered]]:
    """Measure every contender on a lake of so many units."""
    lake: Lake = make_lake(root, units)
    lake.catalogue_path.unlink(missing_ok=True)
    seconds, peak = build_in_child(lake)
    with duckdb.connect(str(lake.catalogue_path), read_only=True) as connection:
        rows = connection.execute(
            "SELECT concat_ws('/', model, component, layer, unit) FROM unit_profiles ORDER BY hash(unit_number)"
        ).fetchmany(_ASKED)
        groups = {"random": [unit_id for (unit_id,) in rows]}
        answered = list(measure("similar_units", units, groups, ask_macro(connection)))
        answered += measure("similar_units of a layer", units, groups, ask_macro(connection, ", layer := 0"))
        if with_parquet:
            asked = groups["random"][0]
            start = time.perf_counter()
            if not np.allclose(ask_parquet(connection)(asked), ask_macro(connection)(asked), atol=2e-6):
                raise SystemExit(f"the contenders differ on {asked}")
            milliseconds = (time.perf_counter() - start) * 1e3
            answered.append(Answered("unsorted Parquet", units, "one", milliseconds, milliseconds, milliseconds))
        ((n_units,),) = connection.execute("SELECT count(*) FROM unit_profiles").fetchall()
        sizes = dict(connection.execute(_BLOCKS).fetchall())
    profile_bytes = sizes["unit_profiles"] + sizes["profile_rows"]
    return Built("profiles (bytes a unit)", units, n_units, seconds, profile_bytes / n_units, peak), answered


_BLOCKS = """
SELECT table_name, count(DISTINCT block_id) * 262144
FROM (
  SELECT 'unit_profiles' AS table_name, block_id FROM pragma_storage_info('unit_profiles')
  UNION ALL
  SELECT 'profile_rows', block_id FROM pragma_storage_info('profile_rows')
)
WHERE block_id >= 0
GROUP BY table_name
"""


def print_report(twins: list[Found], built: list[Built], answered: list[Answered]) -> None:
    """Print the human form of what was measured."""
    for kinds in dict.fromkeys(t.kinds for t in twins):
        print(f"\nplanted twins found, {kinds}: {'16 tokens':>10} {'32':>6} {'64':>6}")
        for t in (t for t in twins if t.kinds == kinds):
            name = t.weight + (", times rarity" if t.is_rarity_in_it else "")
            print(f"  {name:46} " + " ".join(f"{part:6.3f}" for part in t.found.values()))
    print(f"\n{'whole catalogue':24} {'units':>7} {'seconds':>8} {'B/unit':>7} {'peak MB':>8}")
    for b in built:
        print(f"{b.contender:24} {b.rows:7} {b.seconds:8.1f} {b.bytes_per_row:7.0f} {b.peak_mb:8.0f}")
    print(f"\n{'20 similar units':24} {'units':>7} {'p50 ms':>9} {'p95 ms':>9} {'fastest':>9}")
    for a in answered:
        print(f"{a.contender:24} {a.units:7} {a.p50:9.1f} {a.p95:9.1f} {a.fastest:9.1f}")


def main() -> None:
    """Read the options, measure, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", default="5000,20000", help="lake sizes; an empty text for none")
    parser.add_argument("--lakes", type=Path, help="keep the made lakes in this folder, or take those that are there")
    parser.add_argument("--parquet-units", type=int, default=5000, help="largest lake to scan as Parquet")
    parser.add_argument("--twins", type=int, default=300, help="pairs to plant of each kind; 0 for none")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    twins = list(measure_twins(options.twins, np.random.default_rng(0))) if options.twins else []
    built: list[Built] = []
    answered: list[Answered] = []
    with tempfile.TemporaryDirectory() as temporary:
        for units in map(int, filter(None, options.units.split(","))):
            root = (options.lakes or Path(temporary)) / str(units)
            figures = measure_lake(root, units, with_parquet=units <= options.parquet_units)
            built.append(figures[0])
            answered += figures[1]
            if not options.lakes:
                shutil.rmtree(root)
    print_report(twins, built, answered)
    if options.json:
        figures_by_kind = {
            "twins": [asdict(t) for t in twins],
            "built": [asdict(b) for b in built],
            "answered": [asdict(a) for a in answered],
        }
        options.json.write_text(json.dumps(figures_by_kind, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
