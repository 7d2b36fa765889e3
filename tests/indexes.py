"""Catalogues as any client opens them, and the checks of what they hold themselves."""

from __future__ import annotations

import duckdb

from warehouse.catalogue import read_sql
from warehouse.lake import Lake


def open_indexed(lake: Lake) -> duckdb.DuckDBPyConnection:
    """Open a lake's catalogue as any client does."""
    return duckdb.connect(str(lake.catalogue_path), read_only=True)


def failing_units(lake: Lake, check: str) -> list[str]:
    """Run a check of the catalogue's own tables; give the units that fail it."""
    query = read_sql("checks")[check].rstrip().removesuffix(";")
    with open_indexed(lake) as connection:
        rows = connection.execute(f"SELECT concat_ws('/', model, component, layer, unit) FROM ({query})").fetchall()
    return [unit for (unit,) in rows]
