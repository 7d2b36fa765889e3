"""Questions about all units of a layer, each a macro or view of the catalogue and here a method that gives a frame."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, TypeAlias, get_args

import polars as pl

from warehouse.absence import require_known
from warehouse.box import Parameters
from warehouse.errors import QueryError

Kind: TypeAlias = Literal["dead", "near_dead", "duplicate", "one_token"]
KINDS: tuple[str, ...] = get_args(Kind)
"""Kinds of units that have a view of their own, as `dead_units`."""

_HERE = (
    "model = coalesce($model, model) AND component = coalesce($component, component) "
    "AND layer = coalesce($layer, layer)"
)


class LayerSearcher(ABC):
    """Asks about layers; `model`, `component` and `layer` leave out units of others."""

    @abstractmethod
    def sql(self, query: str, params: Parameters = None) -> pl.DataFrame:
        """Run one SELECT over the lake."""

    def match_units(
        self,
        component_a: str,
        component_b: str,
        model: str | None = None,
        layer: int | None = None,
        *,
        model_a: str | None = None,
        model_b: str | None = None,
        layer_a: int | None = None,
        layer_b: int | None = None,
    ) -> pl.DataFrame:
        """Give each unit of one component its most similar unit of another, and say whether that is mutual.

        Args:
            component_a: whose units have a row each.
            component_b: in which the matches are looked for.
            model: only units of this model, on either side that has none of its own.
            layer: only units of this layer, on either side that has none of its own.
            model_a: only units of this model of component_a.
            model_b: only matches of this model.
            layer_a: only units of this layer of component_a.
            layer_b: only matches of this layer.

        Raises:
            UnknownDataset: there are no rows, and no dataset has this model, component or layer.
        """
        sides = {"model_a": model_a, "model_b": model_b, "layer_a": layer_a, "layer_b": layer_b}
        places = ", ".join(f"{name} := ${name}" for name in ("model", "layer", *sides))
        params = {"a": component_a, "b": component_b, "model": model, "layer": layer, **sides}
        found = self.sql(f"FROM match_units($a, $b, {places})", params)
        if found.is_empty() or found["match_unit_id"].is_null().all():
            for component, own, at in ((component_a, model_a, layer_a), (component_b, model_b, layer_b)):
                require_known(self.sql, own or model, component, layer if at is None else at)
        return found

    def head_patterns(
        self, model: str | None = None, component: str | None = None, layer: int | None = None
    ) -> pl.DataFrame:
        """Give what part of each head's activation goes to the first token, the one before, itself, and by induction.

        Reads every pair of the random samples: name a layer of a large lake.

        Raises:
            UnknownDataset: there are no rows, and no dataset has this model, component or layer.
        """
        query = "FROM head_patterns(model := $model, component := $component, layer := $layer)"
        return self._ask_of_layer(query, model, component, layer)

    def units_of_kind(
        self, kind: Kind, model: str | None = None, component: str | None = None, layer: int | None = None
    ) -> pl.DataFrame:
        """Give the units that are dead, nearly so, duplicates of others, or active on one token alone.

        Raises:
            QueryError: there is no such kind.
            UnknownDataset: there are no rows, and no dataset has this model, component or layer.
        """
        if kind not in KINDS:
            raise QueryError(f"kind must be one of {', '.join(KINDS)}")
        query = f"FROM {kind}_units WHERE {_HERE} ORDER BY model, component, layer, unit"
        return self._ask_of_layer(query, model, component, layer)

    def unit_kinds_by_layer(
        self, model: str | None = None, component: str | None = None, layer: int | None = None
    ) -> pl.DataFrame:
        """Give how many units of each kind a layer has.

        Raises:
            UnknownDataset: there are no rows, and no dataset has this model, component or layer.
        """
        query = f"FROM unit_kinds_by_layer WHERE {_HERE} ORDER BY ALL"
        return self._ask_of_layer(query, model, component, layer)

    def _ask_of_layer(self, query: str, model: str | None, component: str | None, layer: int | None) -> pl.DataFrame:
        found = self.sql(query, {"model": model, "component": component, "layer": layer})
        if found.is_empty():
            require_known(self.sql, model, component, layer)
        return found
