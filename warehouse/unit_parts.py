"""Questions about one unit, put to the few parts that can hold its rows rather than to a view of all.

A view of the catalogue names every part of its table, and DuckDB goes through the names whenever the view is asked:
for 5,600 parts that takes 0.1 s. Then it opens the parts of the unit's whole layer. A temporary view of the same name
and the same text, over the parts whose names fit, stands before it for one question, in the catalogue's macros too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from string import Template

import duckdb

from warehouse.catalogue import read_sql, relation
from warehouse.parts import Shard
from warehouse.records import UnitId
from warehouse.schema import TABLES

EVERYWHERE = 10**9
"""As far as any unit of a layer can be from another."""


class UnitParts:
    """Knows the parts of an open catalogue by the units that they may hold."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Point at a connection that has the catalogue attached as `warehouse`."""
        self._connection = connection

    @cached_property
    def _parts(self) -> dict[str, dict[tuple[str, ...], list[tuple[Shard, str]]]]:
        """By table, then by model, layer and component; the component is left out where rows are about another."""
        found: dict[str, dict[tuple[str, ...], list[tuple[Shard, str]]]] = defaultdict(lambda: defaultdict(list))
        with self._connection.cursor() as cursor:
            parts = cursor.execute("SELECT table_name, path FROM warehouse.parts").fetchall()
        for table, path in parts:
            if shard := Shard.of_part("/".join(path.split("/")[-4:])):
                found[table][_key(table, shard)].append((shard, path))
        return found

    @cached_property
    def _views(self) -> dict[str, Template]:
        """Each view's text, to be made a temporary one, without its comments."""
        made = {name: text.partition("\nCOMMENT ON")[0] for name, text in read_sql("views").items()}
        return {name: Template(text.replace("CREATE VIEW", "CREATE TEMP VIEW", 1)) for name, text in made.items()}

    def narrow(self, tables: Sequence[str], units: Sequence[UnitId], reach: int = 0) -> list[str]:
        """Write the statements that narrow views to the parts that can hold rows about some units.

        Args:
            tables: views that have a row for each row of their parts.
            units: which units.
            reach: also units of the same layer whose number differs by so much.

        Returns:
            A CREATE TEMP VIEW for each table that has other parts as well.
        """
        statements = []
        for table in tables:
            paths = {path for name in units for path in self._find(table, name, reach)}
            if len(paths) < sum(map(len, self._parts[table].values())):
                statements.append(self._views[table].substitute(parts=relation(table, sorted(paths))))
        return statements

    def relation(self, table: str, unit: UnitId) -> str:
        """Write the FROM clause of a table's rows as the part has them that can hold a unit's, in its order."""
        return relation(table, self._find(table, unit))

    def _find(self, table: str, unit: UnitId, reach: int = 0) -> list[str]:
        parts = self._parts[table].get(_key(table, unit), ())
        return [path for shard, path in parts if shard.first - reach <= unit.unit <= shard.last + reach]


def _key(table: str, place: Shard | UnitId) -> tuple[str, ...]:
    layer = (place.model, str(place.layer))
    return layer if "about" in TABLES[table] else (*layer, place.component)
