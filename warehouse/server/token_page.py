"""What the page of a token shows: where in the models it counts, and the units that respond to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from warehouse.reader import LakeReader, TokenOrder
from warehouse.server.shading import shade_of

Row = dict[str, Any]

ORDERS: dict[TokenOrder, tuple[str, str]] = {
    "relative": (
        "relative",
        "mean over all occurrences ÷ the unit's largest activation: compares components",
    ),
    "max": ("strongest", "strongest activation on the token, in each component's own units"),
    "mean": ("mean at random", "mean over its occurrences in the random sample: unbiased, and NULL without any"),
    "share": ("share", "part of the unit's whole positive activation that is on the token: how selective it is"),
}
"""What units can be ranked by: a name, and what it says."""
_N_UNITS = 40
_N_NEAR = 8
_N_PAIRS = 8
_EVERY = 1_000_000_000
_FILTERS = "model := $model, component := $component, layer := $layer"


@dataclass(frozen=True, slots=True)
class HeatCell:
    """The best unit of a layer: its score with the class of its shade; None where no unit is active."""

    layer: int
    score: float | None
    shade: str
    unit_id: str | None
    n_units: int


@dataclass(frozen=True, slots=True)
class HeatRow:
    """A component's layers, in order; None for one that is not built."""

    model: str
    component: str
    cells: list[HeatCell | None]


@dataclass(frozen=True, slots=True)
class TokenView:
    """All that a token's page shows.

    Attributes:
        facts: its row of the vocabulary; None where no unit is ever active on it.
        near: tokens that are like it.
        layers: of each model the layers that its heat rows have.
        heat: rows by model.
        largest: the score that is shaded darkest.
        units: the best, as `top_units` gives them.
        queries: units per token pair with the token as query, and their best key.
        keys: units per token pair with the token as key, and their best query.
    """

    facts: Row | None
    near: list[Row]
    layers: dict[str, list[int]]
    heat: dict[str, list[HeatRow]]
    largest: float
    units: list[Row]
    queries: list[Row]
    keys: list[Row]


def view_token(
    reader: LakeReader, token: str, by: TokenOrder, model: str | None, component: str | None, layer: int | None
) -> TokenView:
    """Read and prepare all that a token's page shows; the filters are for the lists of units, not for the heat map."""
    facts = reader.find_tokens(token).to_dicts()
    near = reader.sql(
        "SELECT token, n_units FROM find_tokens($t, how := 'loose') WHERE token <> $t UNION BY NAME "
        "SELECT token, n_units FROM near_tokens($t, k := $k) ORDER BY n_units DESC, token LIMIT $k",
        {"t": token, "k": _N_NEAR},
    )
    filters = {"model": model, "component": component, "layer": layer}
    pairs = {"t": token, "k": _N_PAIRS, **filters}
    cells = reader.sql(
        "SELECT model, component, layer, max(score) AS score, arg_max(unit_id, score) AS unit_id, count(*) AS n_units "
        'FROM top_units($t, k := $k, "by" := $by) GROUP BY ALL',
        {"t": token, "k": _EVERY, "by": by},
    )
    layers, heat, largest = _lay_out(_built(reader), cells)
    return TokenView(
        facts=facts[0] if facts else None,
        near=near.to_dicts(),
        layers=layers,
        heat=heat,
        largest=largest,
        units=reader.top_units(token, _N_UNITS, model, component, layer, by).to_dicts(),
        queries=reader.sql(f"FROM top_units_by_query($t, k := $k, {_FILTERS})", pairs).to_dicts(),
        keys=reader.sql(f"FROM top_units_by_key($t, k := $k, {_FILTERS})", pairs).to_dicts(),
    )


def _built(reader: LakeReader) -> pl.DataFrame:
    return reader.sql(
        "SELECT DISTINCT model, component, layer FROM index_shards INNER JOIN datasets USING (model, component) "
        "WHERE per = 'token' AND holds = 'activations' ORDER BY ALL"
    )


def _lay_out(built: pl.DataFrame, cells: pl.DataFrame) -> tuple[dict[str, list[int]], dict[str, list[HeatRow]], float]:
    found = {row[:3]: row[3:] for row in cells.iter_rows()}
    strongest = cells["score"].max()
    largest = float(strongest) if isinstance(strongest, float) else 0.0
    places = set(built.iter_rows())

    def cell(model: str, component: str, layer: int) -> HeatCell | None:
        if (model, component, layer) not in places:
            return None
        score, unit_id, n_units = found.get((model, component, layer), (None, None, 0))
        return HeatCell(layer, score, shade_of(score, largest), unit_id, n_units)

    models = sorted({model for model, _, _ in places})
    layers = {model: sorted({at for name, _, at in places if name == model}) for model in models}
    heat = {
        model: [
            HeatRow(model, component, [cell(model, component, at) for at in layers[model]])
            for component in sorted({component for name, component, _ in places if name == model})
        ]
        for model in models
    }
    return layers, heat, largest
