"""The checks of a lake: what must hold between its tables, each a query of `sql/checks/` for the rows that fail it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import duckdb

from warehouse.catalogue import connect, define, describe, is_current, quote, read_sql
from warehouse.errors import LakeError
from warehouse.lake import Lake
from warehouse.remote_parts import RemoteParts
from warehouse.schema import TABLES

CATALOGUE_CHECKS = (
    "context_maxima_agree",
    "contexts_agree",
    "explanation_terms_agree",
    "index_agrees",
    "profiles_agree",
)
"""Checks of the tables that the catalogue itself holds, against the Parquet that they were made from."""
_SAMPLE = 5
_HOLDS = re.compile(r"^-- Holds: (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The outcome of one check.

    Attributes:
        name: the check's file in `sql/checks/`, without its suffix.
        title: what must hold.
        n_failing: rows that fail it; 0 is a pass.
        sample: some of those rows, by column.
    """

    name: str
    title: str
    n_failing: int
    sample: list[dict[str, object]]


def run_checks(lake: Lake) -> list[CheckResult]:
    """Run every check on what is committed now; nothing in the lake is changed.

    Tables that the catalogue itself holds are checked where it is of all that is committed.

    Raises:
        LakeError: there is no lake, or a part of it cannot be read.
    """
    lake.require()
    results = [_check_uncommitted(lake)]
    name = "the views"
    parts = None if lake.is_local else RemoteParts(lake)
    with connect(lake, parts=parts) as connection:
        try:
            connection.execute("SET preserve_insertion_order = false")
            define(connection, lake)
            for name, text in read_sql("checks").items():
                if name not in CATALOGUE_CHECKS:
                    results.append(_check(connection, name, text))
            if is_current(lake):
                connection.execute(f"ATTACH {quote(str(lake.catalogue_path))} AS in_place (READ_ONLY)")
                connection.execute("USE in_place")
                for name in CATALOGUE_CHECKS:
                    results.append(_check(connection, name, read_sql("checks")[name]))
            if parts is not None:
                parts.check_unchanged()
        except duckdb.Error as e:
            raise LakeError(f"cannot check {lake.url}: {name}: {describe(e)}") from e
    return results


def _check(connection: duckdb.DuckDBPyConnection, name: str, text: str) -> CheckResult:
    query = text.strip().removesuffix(";")
    failing = connection.execute(f"SELECT *, count(*) OVER () AS n_failing FROM (\n{query}\n) LIMIT {_SAMPLE}")
    columns = [column[0] for column in failing.description or ()]
    sample = [dict(zip(columns, row, strict=True)) for row in failing.fetchall()]
    n_failing = max((row.pop("n_failing") for row in sample), default=0)
    return CheckResult(name, _HOLDS.findall(text)[0], n_failing, sample)


def _check_uncommitted(lake: Lake) -> CheckResult:
    commits = set(lake.shards())
    leftovers: list[dict[str, object]] = [
        {"table_name": table, "path": lake.part_path(table, shard), "advice": "run the build of this shard again"}
        for table in TABLES
        for shard in lake.shards(table)
        if shard not in commits
    ]
    title = "every part belongs to a committed shard"
    return CheckResult("no_uncommitted_parts", title, len(leftovers), leftovers[:_SAMPLE])
