"""Questions across units, each a macro of the catalogue and here a method that gives a Polars frame."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, TypeAlias

import polars as pl

from warehouse.box import Parameters
from warehouse.records import UnitId

ContextForm: TypeAlias = Literal["phrase", "substring", "regex"]
SetOrder: TypeAlias = Literal["max", "mean", "relative", "share", "tokens"]
TokenForm: TypeAlias = Literal["exact", "prefix", "regex", "loose"]

_FILTERS = "k := $k, model := $model, component := $component, layer := $layer"


class Searcher(ABC):
    """Asks the macros that go across units.

    Everywhere `k` is the most rows there can be, and `model`, `component` and `layer` leave out units of others. Ranks
    start at 0. What a column says is in its comment: `SELECT column_name, comment FROM duckdb_columns()`, or the
    macro's own in `duckdb_functions()`.
    """

    @abstractmethod
    def sql(self, query: str, params: Parameters = None) -> pl.DataFrame:
        """Run one SELECT over the lake."""

    def find_tokens(self, pattern: str, how: TokenForm = "exact") -> pl.DataFrame:
        """Find tokens of the lake: exactly, by prefix, by regular expression, or but for case and spaces (loose).

        Raises:
            QueryError: `how` is none of these, or the regular expression is wrong.
        """
        return self.sql("FROM find_tokens($pattern, how := $how)", {"pattern": pattern, "how": how})

    def top_units_of_tokens(
        self,
        tokens: Sequence[str],
        k: int = 20,
        model: str | None = None,
        component: str | None = None,
        layer: int | None = None,
        by: SetOrder = "max",
    ) -> pl.DataFrame:
        """Rank the units that respond to a set of tokens, taken together as one, or by how many of them (tokens).

        Raises:
            QueryError: `by` is none of these.
        """
        filters = {"k": k, "model": model, "component": component, "layer": layer}
        query = f'FROM top_units_of_tokens($tokens, {_FILTERS}, "by" := $by)'
        return self.sql(query, {"tokens": list(tokens), "by": by, **filters})

    def top_units_but_not(
        self,
        token: str,
        other: str,
        k: int = 20,
        model: str | None = None,
        component: str | None = None,
        layer: int | None = None,
    ) -> pl.DataFrame:
        """Rank the units that respond to a token and not, or ten times less, to another: ' bank', not ' river'."""
        filters = {"k": k, "model": model, "component": component, "layer": layer}
        query = f"FROM top_units_but_not($token, $other, {_FILTERS})"
        return self.sql(query, {"token": token, "other": other, **filters})

    def contexts(
        self,
        pattern: str,
        how: ContextForm = "phrase",
        k: int = 20,
        model: str | None = None,
        component: str | None = None,
        layer: int | None = None,
    ) -> pl.DataFrame:
        """Find where units fire inside a phrase of whole tokens, a substring or a regular expression, strongest first.

        Raises:
            QueryError: `how` is none of these, or the regular expression is wrong.
        """
        filters = {"k": k, "model": model, "component": component, "layer": layer}
        query = f"FROM contexts($pattern, how := $how, {_FILTERS})"
        return self.sql(query, {"pattern": pattern, "how": how, **filters})

    def similar_units(
        self,
        unit_id: str | UnitId,
        k: int = 20,
        model: str | None = None,
        component: str | None = None,
        layer: int | None = None,
    ) -> pl.DataFrame:
        """Rank the units of any component whose token profiles resemble a unit's most.

        Raises:
            UnknownUnit: the text is not a unit_id.
        """
        filters = {"k": k, "model": model, "component": component, "layer": layer}
        return self.sql(f"FROM similar_units($unit_id, {_FILTERS})", {"unit_id": canonical(unit_id), **filters})

    def coactive_units(
        self,
        unit_id: str | UnitId,
        k: int = 20,
        model: str | None = None,
        component: str | None = None,
        layer: int | None = None,
        by: Literal["count", "share"] = "count",
    ) -> pl.DataFrame:
        """Rank the units that fire where a unit does: on the same text at the same positions.

        Raises:
            UnknownUnit: the text is not a unit_id.
            QueryError: `by` is none of these.
        """
        filters = {"k": k, "model": model, "component": component, "layer": layer}
        query = f'FROM coactive_units($unit_id, {_FILTERS}, "by" := $by)'
        return self.sql(query, {"unit_id": canonical(unit_id), "by": by, **filters})

    def match_units(
        self, component_a: str, component_b: str, model: str | None = None, layer: int | None = None
    ) -> pl.DataFrame:
        """Give each unit of one component its most similar unit of another, and say whether that is mutual."""
        query = "FROM match_units($a, $b, model := $model, layer := $layer)"
        return self.sql(query, {"a": component_a, "b": component_b, "model": model, "layer": layer})

    def head_profile(self, unit_id: str | UnitId) -> pl.DataFrame:
        """Give the strength of an attention head, or of a latent by token pair, by the distance from query to key.

        Raises:
            UnknownUnit: the text is not a unit_id.
        """
        return self.sql("FROM head_profile($unit_id)", {"unit_id": canonical(unit_id)})


def canonical(unit_id: str | UnitId) -> str:
    """Spell a unit's name in the one way in which the lake has it.

    Raises:
        UnknownUnit: the text is not a unit_id.
    """
    return str(unit_id if isinstance(unit_id, UnitId) else UnitId.parse(unit_id))
