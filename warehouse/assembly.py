"""A shard's parts as they come together: new rows as they are flattened, and those kept of what the lake holds.

A shard that is built for the first time is written as it is read, a row group at a time. One that the lake holds is
merged: rows of the files that were asked for again take the place of the old ones, in the order of units, so that the
parts are those of a build that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from warehouse.lake import Lake, PartWriter
from warehouse.parts import Shard
from warehouse.schema import arrow_schema

_ROW_GROUP_BYTES = 32 * 2**20


class ShardParts:
    """Writes the parts of one shard. Leaving it without `commit` leaves the lake as it was."""

    def __init__(self, lake: Lake, shard: Shard, tables: Sequence[str], *, is_merged: bool) -> None:
        """Begin.

        Args:
            lake: where.
            shard: which.
            tables: those that will have rows, `files` not among them.
            is_merged: hold the new rows until it is known which old ones are kept, rather than write them at once.
        """
        self._lake = lake
        self._shard = shard
        self._tables = tables
        self._held: dict[str, list[pa.Table]] | None = {table: [] for table in tables} if is_merged else None
        self._stack = ExitStack()
        self._parts: dict[str, PartWriter] = {}

    def __enter__(self) -> Self:
        if self._held is None:
            self._open()
        return self

    def _open(self) -> None:
        for table in self._tables:
            self._parts[table] = self._stack.enter_context(self._lake.write_part(table, self._shard))

    def write(self, rows: Mapping[str, pa.Table], facts: Mapping[str, object]) -> None:
        """Add new rows of some tables; a raw pack says of itself what its shard's commit would."""
        for table, new in rows.items():
            if self._held is None:
                self._write_part(table, new, facts)
            else:
                self._held[table].append(new.cast(arrow_schema(table)))

    def commit(self, kept: Set[int], rows: pa.Table | None, facts: Mapping[str, object]) -> None:
        """Put the parts in their places, the commit last.

        Args:
            kept: units whose rows stay as the lake has them.
            rows: the shard's rows of `files`; None where only a raw pack is written, which is its own commit.
            facts: what the commit says of the whole shard.
        """
        if self._held is not None:
            self._open()
            for table, new in self._held.items():
                for group in _merge(self._lake, self._shard, table, kept, new):
                    self._write_part(table, group, facts)
        if rows is None:
            self._stack.close()
            return
        with self._stack:
            self._lake.remove_shard(self._shard)  # the new parts are whole: from here on they take the old ones' place
        with self._lake.write_part("files", self._shard) as part:
            part.commit_facts = dict(facts)
            part.write(rows)

    def _write_part(self, table: str, rows: pa.Table, facts: Mapping[str, object]) -> None:
        part = self._parts[table]
        if table == "raw":
            part.commit_facts = dict(facts)
        part.write(rows)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Without a commit the parts are given up, which to their writers is an error like any other.
        self._stack.__exit__(kind or _NotCommitted, error or _NotCommitted(), trace)


class _NotCommitted(Exception):
    """A shard's parts were left without a commit."""


def _merge(lake: Lake, shard: Shard, table: str, kept: Set[int], new: list[pa.Table]) -> list[pa.Table]:
    """Give the rows of the kept units and the new ones, in the order of units, as row groups."""
    units = pa.array(sorted(kept), pa.int32())
    old = [
        group.filter(pc.is_in(group["unit"], value_set=units)).cast(arrow_schema(table))
        for group in (lake.iterate_part(table, shard) if kept else ())
    ]
    rows = pa.concat_tables([*old, *new]) if old or new else arrow_schema(table).empty_table()
    rows = rows.take(pc.sort_indices(rows, [("unit", "ascending")]))  # stable: a unit's rows keep their order
    n_groups = max(1, -(-rows.nbytes // _ROW_GROUP_BYTES))
    n_rows = -(-rows.num_rows // n_groups) if rows.num_rows else 0
    return [rows.slice(first, n_rows) for first in range(0, rows.num_rows, n_rows or 1)]
