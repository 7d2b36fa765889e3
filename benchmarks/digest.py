"""What a contender wrote, in figures that must be the same for all: a benchmark of wrong answers is worthless."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb

_SUM_TOLERANCE = 1e-6

_RECORDS = """
SELECT
  count(*) AS n_records,
  sum(len(tokens)) AS n_positions,
  sum(hash(
    unit::INTEGER, section::VARCHAR, coalesce(quantile::INTEGER, -1), rank::INTEGER,
    tokens::VARCHAR[], activations::FLOAT[]
  )) AS records_hash
FROM read_parquet(?, hive_partitioning = true)
"""

_TOKEN_STATS = """
SELECT
  count(*) AS n_token_stats,
  sum(n) AS n_counted,
  sum(hash(
    unit::INTEGER, token::VARCHAR, n::INTEGER, n_active::INTEGER, n_random::INTEGER, max_activation::FLOAT
  )) AS token_stats_hash,
  sum(sum_activation::DOUBLE) AS sum_activation,
  sum(sum_random::DOUBLE) AS sum_random,
  sum(sum_positive::DOUBLE) AS sum_positive
FROM read_parquet(?, hive_partitioning = true)
"""


@dataclass(frozen=True, slots=True)
class Digest:
    """Counts, order-free hashes over all rows, and the sums, whose last bits depend on the order of adding."""

    n_records: int
    n_positions: int
    records_hash: int
    n_token_stats: int
    n_counted: int
    token_stats_hash: int
    sum_activation: float
    sum_random: float
    sum_positive: float

    def differences(self, other: Digest) -> list[str]:
        """Name the figures that differ; sums may differ by a millionth part."""
        return [
            f"{name} {mine!r} against {theirs!r}"
            for (name, mine), theirs in zip(asdict(self).items(), asdict(other).values(), strict=True)
            if abs(mine - theirs) > (_SUM_TOLERANCE * abs(mine) if name.startswith("sum_") else 0)
        ]


def compute_digest(out: Path) -> Digest:
    """Digest the Parquet of the tables `records` and `token_stats` under a folder."""
    with duckdb.connect() as con:
        figures: list[Any] = []
        for query, table in ((_RECORDS, "records"), (_TOKEN_STATS, "token_stats")):
            figures += con.execute(query, [f"{out}/{table}/**/*.parquet"]).fetchone() or ()
    return Digest(*figures)


def measure_tables(out: Path) -> dict[str, int]:
    """Give the bytes of each table under a folder."""
    return {
        table.name: sum(path.stat().st_size for path in table.rglob("*.parquet"))
        for table in sorted(out.iterdir())
        if any(table.rglob("*.parquet"))
    }
