"""Reading a lake: SQL, rankings by token and whole units, as Polars frames."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

import duckdb
import polars as pl

from warehouse.box import Parameters, open_boxed, query_boxed
from warehouse.errors import UnknownUnit
from warehouse.export import rebuild_record
from warehouse.lake import Lake
from warehouse.records import NeuronRecord, Section, UnitId
from warehouse.remote_parts import RemoteParts
from warehouse.search import Searcher, parse_unit
from warehouse.unit_parts import UnitParts

if TYPE_CHECKING:
    from warehouse.shown import Shown

TokenOrder: TypeAlias = Literal["max", "mean", "relative", "share"]
PairOrder: TypeAlias = Literal["max", "mean", "relative", "abs"]

_HERE = "model = $model AND component = $component AND layer = $layer AND unit = $unit"


@dataclass(frozen=True, slots=True)
class _Opened:
    """A catalogue that is open.

    Attributes:
        connection: boxed in.
        remote: what reads the parts of a remote lake.
        parts: which there are.
        checked: the statements that were found to be reads, by their texts.
    """

    connection: duckdb.DuckDBPyConnection
    remote: RemoteParts | None
    parts: UnitParts
    checked: dict[str, str] = field(default_factory=dict)


class LakeReader(Searcher):
    """A lake that was built, open for reading; `warehouse.open` gives one.

    Every answer is a Polars frame with the columns of the SQL view or macro of the same name; `show`, `show_contexts`
    and `show_similar` draw one for a notebook or a terminal. Threads may share a reader. It reads the catalogue as it
    was when it was opened. Where a remote lake is found to be built again meanwhile, a question ends with an error that
    says so, and the next one reads the new lake.
    """

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self._opened: _Opened | None = None
        self._opening = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next question opens a new one, on the catalogue as it is then."""
        with self._opening:
            if self._opened is not None:
                self._opened.connection.close()
                self._opened = None

    def sql(self, query: str, params: Parameters = None) -> pl.DataFrame:
        """Run one SELECT over the lake's views and macros, boxed in: no other file, no network, no change.

        Args:
            query: a SELECT in any of its forms, or EXPLAIN of one.
            params: values for ? or $name.

        Raises:
            QueryError: the statement is wrong, does more than read, or asks for what is outside the lake.
            LakeError: there is no lake, no catalogue can be had, or a remote lake was built again meanwhile.
        """
        return self._run(self._open(), query, params)

    def sql_of_units(
        self,
        tables: Sequence[str],
        units: Sequence[UnitId],
        query: str,
        params: Parameters = None,
        reach: int = 0,
    ) -> pl.DataFrame:
        """Run one SELECT about some units, for which only the parts are looked at that can hold their rows.

        Args:
            tables: the views of one table's parts that the query, or a macro in it, asks.
            units: those that the query has conditions for.
            query: as for `sql`.
            params: as for `sql`.
            reach: also look for units of the same layer whose number differs by so much.

        Raises:
            QueryError: as `sql`.
            LakeError: as `sql`.
        """
        opened = self._open()
        return self._run(opened, query, params, opened.parts.narrow(tables, units, reach))

    def _open(self) -> _Opened:
        with self._opening:
            if self._opened is None:
                remote = None if self.lake.is_local else RemoteParts(self.lake)
                connection = open_boxed(self.lake, remote)
                self._opened = _Opened(connection, remote, UnitParts(connection))
            return self._opened

    def _run(self, opened: _Opened, query: str, params: Parameters, before: Sequence[str] = ()) -> pl.DataFrame:
        if opened.remote is None:
            return query_boxed(opened.connection, query, params, before, opened.checked)
        try:
            frame = query_boxed(opened.connection, query, params, before, opened.checked)
            opened.remote.check_unchanged()
            return frame
        finally:
            if opened.remote.is_changed:
                self.close()

    def datasets(self) -> pl.DataFrame:
        """Give every dataset that can be in the lake, built or not."""
        return self.sql("FROM datasets")

    def coverage(self) -> pl.DataFrame:
        """Give the number of files expected, ok, absent, rejected, failed, missing and extra in each layer."""
        return self.sql("FROM coverage ORDER BY model, component, layer")

    def top_units(
        self,
        token: str,
        k: int = 20,
        model: str | None = None,
        component: str | None = None,
        layer: int | None = None,
        by: TokenOrder = "max",
    ) -> pl.DataFrame:
        """Rank the units that respond to a token, best first; empty where none does.

        Args:
            token: exactly as in the source, so most words begin with a space.
            k: rows at most.
            model: only units of this model.
            component: only units of this component.
            layer: only units of this layer.
            by: strongest activation on the token (max), mean over its occurrences in the random sample (mean), mean
                over all of them as a part of the unit's strongest activation (relative), or the token's part of the
                unit's whole positive activation (share).

        Raises:
            QueryError: `by` is none of these, or k is negative.
        """
        # Planning is most of the time, and without "by" there is less of it.
        how, order = ("", {}) if by == "max" else (', "by" := $by', {"by": by})
        return self.rank(
            f"FROM top_units($token, k := $k, model := $model, component := $component, layer := $layer{how})",
            {"token": token, **order},
            {"k": k, "model": model, "component": component, "layer": layer},
        )

    def top_units_by_pair(
        self,
        query_token: str | None = None,
        key_token: str | None = None,
        k: int = 20,
        model: str | None = None,
        component: str | None = None,
        layer: int | None = None,
        by: PairOrder = "max",
    ) -> pl.DataFrame:
        """Rank the units that respond to a pair of tokens, each with its best pair, best first.

        Only the 1,000 strongest pairs of each unit are searched.

        Args:
            query_token: the attending (later) token; None for any.
            key_token: the attended-to (earlier or same) token; None for any.
            k: rows at most.
            model: only units of this model.
            component: only units of this component.
            layer: only units of this layer.
            by: as in `top_units`, with the largest absolute activation (abs) in place of share.

        Raises:
            QueryError: `by` is none of these, or k is negative.
        """
        return self.rank(
            "FROM top_units_by_pair($query_token, $key_token, k := $k, "
            'model := $model, component := $component, layer := $layer, "by" := $by)',
            {"query_token": query_token, "key_token": key_token, "by": by},
            {"k": k, "model": model, "component": component, "layer": layer},
        )

    def top_tokens(self, unit_id: str | UnitId, k: int = 20) -> pl.DataFrame:
        """Rank the tokens that a unit responds to by its strongest activation on them.

        Raises:
            UnknownUnit: the text is not a unit_id, or the unit is not in the lake.
        """
        return self.ask_of_unit("FROM top_tokens($unit_id, k := $k)", unit_id, {"k": k}, "token_stats")

    def top_pairs(self, unit_id: str | UnitId, k: int = 20) -> pl.DataFrame:
        """Rank the pairs of query and key token that a unit responds to by its largest absolute activation on them.

        Raises:
            UnknownUnit: the text is not a unit_id, or the unit is not in the lake.
        """
        return self.ask_of_unit("FROM top_pairs($unit_id, k := $k)", unit_id, {"k": k}, "pair_stats")

    def records(self, unit_id: str | UnitId, section: Section | None = None) -> pl.DataFrame:
        """Give a unit's records in the order of its file, of one section or all.

        Raises:
            UnknownUnit: the text is not a unit_id, or the unit is not in the lake.
            QueryError: there is no such section.
        """
        query = "FROM unit_records($unit_id, section := $section)"
        return self.ask_of_unit(query, unit_id, {"section": section}, "records")

    def unit(self, unit_id: str | UnitId) -> pl.DataFrame:
        """Give the figures of one unit, in one row.

        Raises:
            UnknownUnit: it is not in the lake; the message says why, and what is there.
        """
        name = parse_unit(unit_id)
        row = self.sql_of_units(["units"], [name], f"FROM units WHERE {_HERE}", _place(name))
        if row.is_empty():
            raise UnknownUnit(self._miss(name))
        return row

    def neuron_record(self, unit_id: str | UnitId) -> NeuronRecord:
        """Build a unit's NeuronRecord again from the lake, every list in the order of its file.

        Raises:
            UnknownUnit: it is not in the lake; the message says why, and what is there.
        """
        name, parts = parse_unit(unit_id), self._open().parts
        units = self.sql(f"FROM {parts.relation('units', name)} WHERE unit = $unit", {"unit": name.unit})
        if units.is_empty():
            raise UnknownUnit(self._miss(name))
        records = self.sql(  # a part has them in the order of their file
            f"SELECT section, quantile, tokens, activations FROM {parts.relation('records', name)} WHERE unit = $unit",
            {"unit": name.unit},
        )
        return rebuild_record(name.layer, units.row(0, named=True), records.iter_rows())

    def show(self, unit_id: str | UnitId, k: int = 5) -> Shown:
        """Show a unit: its figures, its top tokens or pairs, and its first records, shaded by activation.

        Args:
            unit_id: which.
            k: records of each section, and top tokens or pairs.

        Returns:
            A drawing, whose frame is all of the unit's records.

        Raises:
            UnknownUnit: it is not in the lake; the message says why, and what is there.
        """
        from warehouse.shown import Shown, UnitDrawing  # here, as most questions are not drawn

        name = parse_unit(unit_id)
        (unit,) = self.unit(name).iter_rows(named=True)
        (dataset,) = self.sql(
            "FROM datasets WHERE model = $model AND component = $component",
            {"model": name.model, "component": name.component},
        ).iter_rows(named=True)
        tops = self.top_pairs(name, k) if dataset["per"] == "token_pair" else self.top_tokens(name, k)
        records = self.records(name)
        record = rebuild_record(
            name.layer, unit, records.select("section", "quantile", "tokens", "activations").iter_rows()
        )
        return Shown(records, UnitDrawing(unit, dataset, tops, record, k))

    def _miss(self, name: UnitId) -> str:
        """Say why a unit is not there, and what is."""
        files = self.sql(f"SELECT status, uri, error FROM files WHERE {_HERE}", _place(name))
        for status, uri, error in files.iter_rows():
            if status == "ok":
                break  # of a sibling, whose rows are about units of another component
            reason = "the source has no such file" if status == "absent" else error
            return f"{name} is {status}: {reason}{say_where(uri)}"
        dataset = {"model": name.model, "component": name.component}
        known = self.sql("FROM datasets WHERE model = $model AND component = $component", dataset)
        if known.is_empty():
            keys = self.sql("SELECT model || '/' || component AS key FROM datasets ORDER BY key")["key"].to_list()
            near = get_close_matches(f"{name.model}/{name.component}", keys, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}? " if near else ""
            return f"{name} is of no known dataset: {hint}known are {', '.join(keys)}"
        if (holds := known["holds"][0]) != "activations":
            unit_id = UnitId(name.model, known["about"][0], name.layer, name.unit)
            return f"{name} is no unit: ask \"FROM {holds} WHERE unit_id = '{unit_id}'\" for what it says of {unit_id}"
        built = self.sql(
            "SELECT layer, min(unit), max(unit) FROM units WHERE model = $model AND component = $component "
            "GROUP BY layer ORDER BY abs(layer - $layer), layer LIMIT 3",
            {**dataset, "layer": name.layer},
        )
        n_layers, n_units = known["n_layers"][0], known["units_per_layer"][0]
        if name.layer >= n_layers or name.unit >= n_units:
            key = f"{name.model}/{name.component}"
            return f"{name} is out of range: {key} has layers 0-{n_layers - 1} with units 0-{n_units - 1} each"
        there = ", ".join(f"layer {layer} units {first}-{last}" for layer, first, last in built.iter_rows())
        return (
            f"{name} was not built yet: the lake has {there or 'nothing'} of {name.model}/{name.component}; build it "
            f"with 'warehouse build {name.model}/{name.component} --layers {name.layer} --units {name.unit}'"
        )


def say_where(uri: str) -> str:
    """Write where a file was looked for behind a reason; a path of the machine that looked is no business of others."""
    return "" if uri.startswith("file:") else f" ({uri})"


def _place(name: UnitId) -> dict[str, object]:
    return {"model": name.model, "component": name.component, "layer": name.layer, "unit": name.unit}
