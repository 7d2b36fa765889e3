"""What the start page and the lists of units show: how much of each dataset is there, and the units of a layer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from warehouse.reader import LakeReader

Row = dict[str, Any]

_PAGE = 100
_SHORT_NAME = re.compile(r"[lL](\d+)[nNhH.](\d+)", re.ASCII)
_ORDERS = {
    "unit": "u.unit",
    "max_activation": "u.max_activation DESC NULLS LAST, u.unit",
    "active_fraction": "u.active_fraction DESC NULLS LAST, u.unit",
    "entropy": "u.entropy NULLS LAST, u.unit",
    "top_token_share": "u.top_token_share DESC NULLS LAST, u.unit",
}


@dataclass(frozen=True, slots=True)
class LayerCell:
    """A layer's files: how many there should be, how many are in the lake, and what became of the others."""

    layer: int
    expected: int
    ok: int
    text: str

    @property
    def tenths(self) -> int:
        """How much of it is there, from 0 to 10; what was begun is 1 at least, what is not whole 9 at most."""
        if not self.ok:
            return 0
        return 10 if self.ok >= self.expected else max(1, min(9, int(10 * self.ok / self.expected)))


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """A dataset with its layers."""

    facts: Row
    ok: int
    expected: int
    layers: list[LayerCell]


@dataclass(frozen=True, slots=True)
class StartView:
    """All that the start page shows."""

    datasets: list[DatasetRow]
    siblings: list[DatasetRow]
    built_at: datetime
    n_units: int
    n_tokens: int
    n_texts: int
    some_tokens: list[str]
    some_units: list[str]


@dataclass(frozen=True, slots=True)
class LayerView:
    """A page of the units of one layer."""

    model: str
    component: str
    layer: int
    n_units: int
    order: str
    first: int
    rows: list[Row]
    layers: list[int]

    @property
    def page(self) -> int:
        """Units of one page."""
        return _PAGE


def view_start(reader: LakeReader) -> StartView:
    """Read and prepare all that the start page shows."""
    layers: dict[tuple[str, str], list[LayerCell]] = {}
    for row in reader.coverage().iter_rows(named=True):
        lost = {name: row[name] for name in ("absent", "rejected", "failed", "missing") if row[name]}
        text = f"{row['ok']:,} of {row['expected']:,}" + "".join(f", {n:,} {name}" for name, n in lost.items())
        cell = LayerCell(row["layer"], row["expected"], row["ok"], text)
        layers.setdefault((row["model"], row["component"]), []).append(cell)
    rows = [
        DatasetRow(facts, sum(cell.ok for cell in cells), sum(cell.expected for cell in cells), cells)
        for facts in reader.datasets().to_dicts()
        for cells in (layers.get((facts["model"], facts["component"]), []),)
    ]
    built_at, n_units, n_tokens, n_texts = reader.sql(
        "SELECT (SELECT built_at FROM catalogue), (SELECT count(*) FROM units), (SELECT count(*) FROM vocabulary), "
        "(SELECT count(*) FROM context_texts)"
    ).row(0)
    tokens = reader.sql(
        "SELECT token FROM vocabulary WHERE regexp_full_match(token, ' [A-Z][a-z]{3,}') "
        "ORDER BY n_units DESC, token LIMIT 8"
    )
    units = reader.sql("SELECT arg_min(unit_id, entropy) AS unit_id FROM units GROUP BY model, component ORDER BY ALL")
    return StartView(
        datasets=[row for row in rows if row.facts["holds"] == "activations"],
        siblings=[row for row in rows if row.facts["holds"] != "activations"],
        built_at=built_at,
        n_units=n_units,
        n_tokens=n_tokens,
        n_texts=n_texts,
        some_tokens=tokens["token"].to_list(),
        some_units=units["unit_id"].drop_nulls().head(6).to_list(),
    )


def view_layer(reader: LakeReader, model: str, component: str, layer: int, order: str, first: int) -> LayerView:
    """Read a page of a layer's units, each with its best explanation where it has one."""
    place = {"model": model, "component": component}
    built = reader.sql(
        "SELECT layer, count(*) AS n FROM units WHERE model = $model AND component = $component "
        "GROUP BY layer ORDER BY layer",
        place,
    )
    counts = dict(built.iter_rows())
    rows = reader.sql(
        "SELECT u.unit, u.unit_id, u.max_activation, u.active_fraction, u.entropy, u.top_token, u.top_token_share, "
        "e.explanation FROM (FROM units WHERE model = $model AND component = $component AND layer = $layer "
        f"ORDER BY {_ORDERS[order].replace('u.', '')} LIMIT {_PAGE} OFFSET $first) AS u "
        "LEFT JOIN (SELECT unit, first(explanation ORDER BY rank) AS explanation FROM explanations "
        "WHERE model = $model AND component = $component AND layer = $layer GROUP BY unit) AS e USING (unit) "
        f"ORDER BY {_ORDERS[order]}",
        {**place, "layer": layer, "first": first},
    )
    return LayerView(model, component, layer, counts.get(layer, 0), order, first, rows.to_dicts(), list(counts))


def list_units(reader: LakeReader, text: str, k: int = 12) -> list[Row]:
    """Find the units that a text may name in part: `mlp_post_act/5/131`, `5/131`, `L5N131` or a dataset's name."""
    short = _SHORT_NAME.fullmatch(text)
    parts = list(short.groups()) if short else re.split(r"[/\s]+", text)
    numbers = [int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 9]
    names = [part for part in parts if part and not part.isdigit()]
    if len(numbers) != 2 or len(names) > 2:
        return []
    asked: dict[str, object] = {"layer": numbers[0], "unit": numbers[1], "names": names, "k": k}
    return reader.sql(
        "SELECT unit_id, max_activation, top_token FROM units WHERE layer = $layer AND unit = $unit "
        "AND list_has_all([model, component], $names) ORDER BY unit_id LIMIT $k",
        asked,
    ).to_dicts()
