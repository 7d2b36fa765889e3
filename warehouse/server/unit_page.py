"""What the page of a unit shows, and that of one record: read from the lake, shaded and drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import polars as pl

from warehouse.errors import UnknownUnit
from warehouse.reader import LakeReader
from warehouse.records import UnitId
from warehouse.server.charts import Chart, draw_histogram, draw_profile
from warehouse.server.shading import ShownRecord, show_record
from warehouse.unit_parts import EVERYWHERE

_HERE = "model = $model AND component = $component AND layer = $layer AND unit = $unit"
_N_TOKENS = 24
_N_SIMILAR = 12
_N_RELATED = 5
MOST_RECORDS = 1_000
"""Records of one section that a page shows at most."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ShownSection:
    """A section of a unit's records, or one quantile bucket of it, with the first of its records."""

    title: str
    slug: str
    about: str
    n_records: int
    records: list[ShownRecord]


@dataclass(frozen=True, slots=True)
class Identity:
    """A unit with its dataset's facts."""

    name: UnitId
    figures: Row
    dataset: Row

    @property
    def is_pair(self) -> bool:
        """Whether its activations belong to token pairs."""
        return bool(self.dataset["per"] == "token_pair")

    @property
    def notes(self) -> list[str]:
        """Caveats of its dataset, as the one on GELU."""
        return (self.dataset["notes"] or "").splitlines()


@dataclass(frozen=True, slots=True)
class Said:
    """What the siblings say of a unit; lists of what is related stand under what they are lists of."""

    explanations: list[Row]
    related_units: dict[str, list[Row]]
    related_tokens: dict[str, list[Row]]


@dataclass(frozen=True, slots=True)
class UnitView:
    """All that a unit's page shows; previous and following are the units beside it in the layer."""

    identity: Identity
    previous: int | None
    following: int | None
    largest: float
    sections: list[ShownSection]
    histogram: Chart | None
    profile: Chart | None
    tokens: list[Row]
    similar: list[Row]
    said: Said


def identify(reader: LakeReader, unit_id: UnitId) -> Identity:
    """Find a unit.

    Raises:
        UnknownUnit: it is not in the lake; the message says why, and what is there.
    """
    figures = reader.unit(unit_id).row(0, named=True)
    facts = reader.sql(
        "SELECT kind, per, notes FROM datasets WHERE model = $model AND component = $component",
        {"model": unit_id.model, "component": unit_id.component},
    )
    return Identity(unit_id, figures, facts.row(0, named=True))


def _find_neighbours(reader: LakeReader, unit_id: UnitId, reach: int = 1) -> tuple[int | None, int | None]:
    """Find the units before and after one in its layer: in the next parts, or where those have none in all of them."""
    query = (
        "SELECT max(unit) FILTER (unit < $unit), min(unit) FILTER (unit > $unit) FROM files "
        "WHERE status = 'ok' AND model = $model AND component = $component AND layer = $layer"
    )
    found = reader.sql_of_units(["files"], [unit_id], query, _place(unit_id), reach)
    previous, following = found.row(0)
    if None in (previous, following) and reach < EVERYWHERE:
        return _find_neighbours(reader, unit_id, EVERYWHERE)
    return previous, following


def find_near_units(reader: LakeReader, unit_id: UnitId, k: int = 6) -> list[str]:
    """Give the units of the lake whose names are nearest to one that is not there."""
    built = reader.sql("SELECT DISTINCT model, component FROM units").rows()
    keys = {f"{model}/{component}": (model, component) for model, component in built}
    near = get_close_matches(f"{unit_id.model}/{unit_id.component}", keys, n=1, cutoff=0.0)
    if not near:
        return []
    model, component = keys[near[0]]
    asked = {"model": model, "component": component, "layer": unit_id.layer, "unit": unit_id.unit, "k": k}
    return reader.sql(
        "SELECT unit_id FROM units WHERE model = $model AND component = $component "
        "ORDER BY abs(layer - $layer), abs(unit - $unit), layer, unit LIMIT $k",
        asked,
    )["unit_id"].to_list()


def view_unit(reader: LakeReader, unit_id: UnitId, n_records: int) -> UnitView:
    """Read and prepare all that a unit's page shows.

    Args:
        reader: the lake.
        unit_id: which unit.
        n_records: records of each section, and of each quantile bucket, at most.

    Raises:
        UnknownUnit: it is not in the lake.
    """
    identity = identify(reader, unit_id)
    records = reader.records(unit_id)
    largest = find_largest(records, identity.is_pair)
    random = records.filter(pl.col("section") == "random")
    values = random["activations"].explode().drop_nulls().to_numpy()
    tokens = [] if identity.is_pair else reader.top_tokens(unit_id, _N_TOKENS).to_dicts()
    if identity.is_pair:
        tokens = reader.top_pairs(unit_id, _N_TOKENS).to_dicts()
    previous, following = _find_neighbours(reader, unit_id)
    return UnitView(
        identity=identity,
        previous=previous,
        following=following,
        largest=largest,
        sections=list(_split(records, identity, largest, n_records)),
        histogram=draw_histogram(values, "token pairs" if identity.is_pair else "tokens"),
        profile=_profile(reader, unit_id) if identity.is_pair else None,
        tokens=tokens,
        similar=[] if identity.is_pair else reader.similar_units(unit_id, _N_SIMILAR).to_dicts(),
        said=find_said(reader, unit_id),
    )


def find_said(reader: LakeReader, unit_id: UnitId) -> Said:
    """Read what the siblings say of a unit, which may be without a file of its own."""
    return Said(
        explanations=find_explanations(reader, unit_id),
        related_units=_related(reader, unit_id, "related_units", "related_unit_id, weight"),
        related_tokens=_related(reader, unit_id, "related_tokens", "token, strength"),
    )


def view_record(
    reader: LakeReader, unit_id: UnitId, section: str, quantile: int | None, rank: int
) -> tuple[Identity, ShownRecord, float]:
    """Read one record of a unit, and the activation that is shaded darkest.

    Raises:
        UnknownUnit: the unit is not in the lake, or has no such record.
    """
    identity = identify(reader, unit_id)
    records = reader.records(unit_id)
    is_wanted = (pl.col("section") == section) & pl.col("quantile").eq_missing(quantile) & (pl.col("rank") == rank)
    found = records.filter(is_wanted)
    if found.is_empty():
        where = section if quantile is None else f"{section} {quantile}"
        raise UnknownUnit(f"{unit_id} has no record {rank} in section {where}")
    peaks = records.filter(pl.col("section") == "top")
    largest = max(find_largest(peaks, identity.is_pair), find_largest(found, identity.is_pair))
    return identity, show_record(found.row(0, named=True), largest, identity.is_pair, is_alone=True), largest


def find_largest(records: pl.DataFrame, is_pair: bool) -> float:
    """Give the activation that is shaded darkest: the largest one, and of signed ones the largest by absolute value."""
    strongest = records["max_activation"].max()
    high = float(strongest) if isinstance(strongest, float) else 0.0
    if not is_pair and high > 0:
        return high
    values = records["activations"].explode().drop_nulls().to_numpy()
    return float(np.abs(values).max(initial=0.0))


def find_explanations(reader: LakeReader, unit_id: UnitId) -> list[Row]:
    """Give a unit's explanations, each with all of its scores as a list of (kind, score)."""
    place = _place(unit_id)
    rows = reader.sql_of_units(
        ["explanations"],
        [unit_id],
        "SELECT dataset, rank, explanation, explainer, origin, score, score_kind FROM explanations "
        f"WHERE {_HERE} ORDER BY dataset, rank",
        place,
    ).to_dicts()
    if not rows:
        return rows
    query = f"SELECT dataset, rank, score_kind AS kind, score FROM explanation_scores WHERE {_HERE} ORDER BY score_kind"
    scores = reader.sql_of_units(["explanation_scores"], [unit_id], query, place).rows_by_key(
        ["dataset", "rank"], named=True
    )
    return [row | {"scores": scores.get((row["dataset"], row["rank"]), [])} for row in rows]


def _split(records: pl.DataFrame, identity: Identity, largest: float, n_records: int) -> Iterator[ShownSection]:
    def shown(rows: pl.DataFrame) -> list[ShownRecord]:
        return [show_record(row, largest, identity.is_pair) for row in rows.head(n_records).iter_rows(named=True)]

    figures = identity.figures
    top = records.filter(pl.col("section") == "top")
    yield ShownSection("Top records", "top", "Where the unit is strongest, best first.", top.height, shown(top))
    bounds = figures["quantile_boundaries"] or []
    quantiles = records.filter(pl.col("section") == "quantile")
    for bucket in reversed(range(figures["n_buckets"] or 0)):
        rows = quantiles.filter(pl.col("quantile") == bucket)
        about = f"A random sample from bucket {bucket} of {figures['n_buckets']}"
        if bounds and len(bounds) + 1 == figures["n_buckets"]:
            about += f": {_between(bounds, bucket)}"
        yield ShownSection(f"Quantile {bucket}", f"quantile-{bucket}", about + ".", rows.height, shown(rows))
    random = records.filter(pl.col("section") == "random")
    about = "Chosen at random from all texts: the only unbiased section."
    yield ShownSection("Random sample", "random", about, random.height, shown(random))


def _between(bounds: Sequence[float], bucket: int) -> str:
    """Say between which of the file's boundaries a bucket lies; whether these are levels or activations is unknown."""
    if bucket == 0:
        return f"below {bounds[0]:.4g}"
    if bucket == len(bounds):
        return f"above {bounds[-1]:.4g}"
    return f"between {bounds[bucket - 1]:.4g} and {bounds[bucket]:.4g}"


def _profile(reader: LakeReader, unit_id: UnitId) -> Chart | None:
    frame = reader.sql(
        "SELECT distance, mean_activation FROM head_profile($u, section := 'random') ORDER BY distance",
        {"u": str(unit_id)},
    )
    return draw_profile(frame["distance"].to_list(), frame["mean_activation"].to_list())


def _related(reader: LakeReader, unit_id: UnitId, view: str, columns: str) -> dict[str, list[Row]]:
    """Give the first rows of each list of a sibling's file, by what the list is."""
    facts = "direction, sign" if view == "related_units" else "basis, direction, sign"
    frame = reader.sql_of_units(
        [view],
        [unit_id],
        f"SELECT concat_ws(' ', {facts}) AS list, {columns} FROM {view} "
        f"WHERE {_HERE} AND rank < {_N_RELATED} ORDER BY list DESC, rank",
        _place(unit_id),
    )
    lists = frame.partition_by("list", maintain_order=True)
    return {str(rows["list"][0]): rows.drop("list").to_dicts() for rows in lists}


def _place(unit_id: UnitId) -> dict[str, object]:
    return {"model": unit_id.model, "component": unit_id.component, "layer": unit_id.layer, "unit": unit_id.unit}
