"""Questions across units, each a macro of the catalogue and here a method that gives a Polars frame."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import polars as pl

from warehouse.absence import require_known
from warehouse.box import Parameters
from warehouse.explanation_searcher import ExplanationSearcher
from warehouse.layer_searcher import LayerSearcher
from warehouse.records import UnitId

if TYPE_CHECKING:
    from warehouse.shown import Shown

ContextForm: TypeAlias = Literal["phrase", "substring", "regex"]
SetOrder: TypeAlias = Literal["max", "share", "tokens"]
TokenForm: TypeAlias = Literal["exact", "prefix", "regex", "loose"]

_FILTERS = "k := $k, model := $model, component := $component, layer := $layer"


class Searcher(ExplanationSearcher, LayerSearcher, ABC):
    """Asks the macros that go across units.

    Everywhere `k` is the most rows there can be, and `model`, `component` and `layer` leave out units of others. Ranks
    start at 0. What a column says is in its comment: `SELECT column_name, comment FROM duckdb_columns()`, or the
    macro's own in `duckdb_functions()`. A frame without rows is an answer; a unit that the lake does not have is an
    UnknownUnit, and a model, component or layer that no dataset has an UnknownDataset, which name what there is.
    """

    @abstractmethod
    def sql(self, query: str, params: Parameters = None) -> pl.DataFrame:
        """Run one SELECT over the lake."""

    @abstractmethod
    def sql_of_units(
        self, tables: Sequence[str], units: Sequence[UnitId], query: str, params: Parameters = None
    ) -> pl.DataFrame:
        """Run one SELECT about some units, looking only at the parts of these tables that can hold their rows."""

    @abstractmethod
    def unit(self, unit_id: str | UnitId) -> pl.DataFrame:
        """Give the figures of one unit."""

    def rank(self, query: str, params: Mapping[str, object], filters: Mapping[str, Any]) -> pl.DataFrame:
        """Ask a macro for a ranking.

        Args:
            query: the SQL, with parameters by name.
            params: values of all but the filters.
            filters: k, model, component and layer.

        Raises:
            QueryError: a parameter is none that the macro knows.
            UnknownDataset: the ranking is empty, and no dataset has this model, component or layer.
        """
        found = self.sql(query, {**params, **filters})
        if found.is_empty():
            require_known(self.sql, filters["model"], filters["component"], filters["layer"])
        return found

    def ask_of_unit(
        self, query: str, unit_id: str | UnitId, params: Mapping[str, object], *tables: str
    ) -> pl.DataFrame:
        """Ask a macro about one unit.

        Args:
            query: the SQL, with parameters by name.
            unit_id: which unit, in the query $unit_id.
            params: values of all others.
            tables: the views of one table's parts that the macro asks about the unit alone.

        Raises:
            QueryError: a parameter is none that the macro knows.
            UnknownUnit: the text is not a unit_id, or the answer is empty and the unit is not in the lake.
        """
        name = parse_unit(unit_id)
        found = self.sql_of_units(tables, [name], query, {"unit_id": str(name), **params})
        if found.is_empty():
            self.unit(name)
        return found

    def near_tokens(self, token: str, k: int = 5) -> list[str]:
        """Give tokens of the lake that are like one that is not in it: other case or spaces, longer, or misspelt."""
        return self.sql("FROM near_tokens($token, k := $k)", {"token": token, "k": k})["token"].to_list()

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
        """Rank the units that respond to a set of tokens, taken together, or by how many of them (tokens).

        There is no mean of a set: tokens that a unit is never active on are not in the index, and would be left out.

        Raises:
            QueryError: `by` is none of these.
        """
        filters = {"k": k, "model": model, "component": component, "layer": layer}
        query = f'FROM top_units_of_tokens($tokens, {_FILTERS}, "by" := $by)'
        return self.rank(query, {"tokens": list(tokens), "by": by}, filters)

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
        return self.rank(query, {"token": token, "other": other}, filters)

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
        return self.rank(query, {"pattern": pattern, "how": how}, filters)

    def top_units_by_context(
        self,
        pattern: str,
        how: ContextForm = "phrase",
        k: int = 20,
        model: str | None = None,
        component: str | None = None,
        layer: int | None = None,
        by: Literal["max", "texts"] = "max",
    ) -> pl.DataFrame:
        """Rank units by their strongest activation inside a pattern, or by the texts in which they fire inside it.

        Raises:
            QueryError: `how` or `by` is none of these, or the regular expression is wrong.
        """
        filters = {"k": k, "model": model, "component": component, "layer": layer}
        query = f'FROM top_units_by_context($pattern, how := $how, {_FILTERS}, "by" := $by)'
        return self.rank(query, {"pattern": pattern, "how": how, "by": by}, filters)

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
            UnknownUnit: the text is not a unit_id, or the unit is not in the lake.
        """
        filters = {"k": k, "model": model, "component": component, "layer": layer}
        return self._rank_by_unit(f"FROM similar_units($unit_id, {_FILTERS})", unit_id, {}, filters)

    def units_with_shared_texts(
        self,
        unit_id: str | UnitId,
        k: int = 20,
        model: str | None = None,
        component: str | None = None,
        layer: int | None = None,
    ) -> pl.DataFrame:
        """Rank the units that have most of a unit's top texts among their own.

        Raises:
            UnknownUnit: the text is not a unit_id, or the unit is not in the lake.
        """
        filters = {"k": k, "model": model, "component": component, "layer": layer}
        return self._rank_by_unit(f"FROM units_with_shared_texts($unit_id, {_FILTERS})", unit_id, {}, filters)

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
            UnknownUnit: the text is not a unit_id, or the unit is not in the lake.
            QueryError: `by` is none of these.
        """
        filters = {"k": k, "model": model, "component": component, "layer": layer}
        query = f'FROM coactive_units($unit_id, {_FILTERS}, "by" := $by)'
        return self._rank_by_unit(query, unit_id, {"by": by}, filters)

    def head_profile(self, unit_id: str | UnitId) -> pl.DataFrame:
        """Give the strength of an attention head, or of a latent by token pair, by the distance from query to key.

        Raises:
            UnknownUnit: the text is not a unit_id, or the unit is not in the lake.
        """
        return self.ask_of_unit("FROM head_profile($unit_id)", unit_id, {})

    def show_contexts(
        self,
        pattern: str,
        how: ContextForm = "phrase",
        k: int = 10,
        model: str | None = None,
        component: str | None = None,
        layer: int | None = None,
    ) -> Shown:
        """Show where units fire inside a match, the text shaded by activation: `contexts` to look at.

        Returns:
            A drawing, whose frame is that of the macro context_excerpts.

        Raises:
            QueryError: `how` is none of these, or the regular expression is wrong.
        """
        from warehouse.shown import ContextsDrawing, Shown  # here, as most questions are not drawn

        filters = {"k": k, "model": model, "component": component, "layer": layer}
        query = f"FROM context_excerpts($pattern, how := $how, {_FILTERS})"
        found = self.rank(query, {"pattern": pattern, "how": how}, filters)
        return Shown(found, ContextsDrawing(found))

    def show_similar(
        self,
        unit_id: str | UnitId,
        k: int = 20,
        model: str | None = None,
        component: str | None = None,
        layer: int | None = None,
    ) -> Shown:
        """Show which units resemble a unit, how much, and by which tokens: `similar_units` to look at.

        Raises:
            UnknownUnit: the text is not a unit_id, or the unit is not in the lake.
        """
        from warehouse.shown import Shown, SimilarDrawing

        found = self.similar_units(unit_id, k, model, component, layer)
        return Shown(found, SimilarDrawing(found))

    def _rank_by_unit(
        self, query: str, unit_id: str | UnitId, params: Mapping[str, object], filters: Mapping[str, Any]
    ) -> pl.DataFrame:
        found = self.ask_of_unit(query, unit_id, {**params, **filters})
        if found.is_empty():
            require_known(self.sql, filters["model"], filters["component"], filters["layer"])
        return found

    def splits(self, unit_id: str | UnitId, n: int | None = None) -> pl.DataFrame:
        """Give a unit's records in the train, calibration, valid and test splits of OpenAI's explanation method.

        Args:
            unit_id: which unit.
            n: records of a split from each of the two lists, top and random; as many as there are by default.

        Raises:
            UnknownUnit: the text is not a unit_id, or the unit is not in the lake.
            QueryError: the unit has too few records; the message says how many.
        """
        return self.ask_of_unit("FROM splits($unit_id, n := $n)", unit_id, {"n": n}, "records", "units")


def parse_unit(unit_id: str | UnitId) -> UnitId:
    """Read a unit's name, unless that was done.

    Raises:
        UnknownUnit: the text is not a unit_id.
    """
    return unit_id if isinstance(unit_id, UnitId) else UnitId.parse(unit_id)
