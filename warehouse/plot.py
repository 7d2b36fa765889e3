"""Pictures of units, tokens and layers: each a matplotlib figure, drawn from what a lake's views and macros say."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

import matplotlib
import numpy as np
import polars as pl
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import MaxNLocator

from warehouse.errors import WarehouseError
from warehouse.output import printable
from warehouse.reader import LakeReader
from warehouse.records import Section

Strength: TypeAlias = Literal["relative", "max"]
Selectivity: TypeAlias = Literal["entropy", "top_token_share"]

SUFFIXES = (".png", ".svg")
_COLOURS = "cividis"
_BARS, _TOP, _RANGE = "#56708f", "#d55e00", "#9db0c4"  # still apart for every kind of colour blindness
_EMPTY = "0.88"
_BINS = 60
_MOST_LABELLED = 14
_MOST_DRAWN = 48
# Text of the lake is text: neither $ nor a user's matplotlibrc makes it a formula.
_PLAIN: dict[str, Any] = {"parse_math": False, "usetex": False}
_STRENGTHS = {
    "relative": "mean on the token ÷ the unit's max activation (unitless)",
    "max": "max activation on the token (each component's own units)",
}
_SCORES = {"relative": "relative score", "max": "max activation"}
_SELECTIVITIES = {"entropy": "entropy over tokens (bits)", "top_token_share": "share of the top token (0 to 1)"}
_PLACE = (
    "model = coalesce($model, model) AND component = coalesce($component, component) "
    "AND layer = coalesce($layer, layer)"
)


def draw_unit(reader: LakeReader, unit_id: str) -> Figure:
    """Draw how a unit's activations are spread in the random sample, and below where its chosen records peak.

    Args:
        reader: the lake.
        unit_id: a unit per token or per token pair.

    Returns:
        Two axes over one scale of activations: a histogram with log counts, of tokens or token pairs; and a row for the
        top records and for each quantile bucket, with a mark at each record's max_activation.

    Raises:
        UnknownUnit: it is not in the lake.
        WarehouseError: its random sample has no activation.
    """
    unit = reader.unit(unit_id).row(0, named=True)
    name, per = unit["unit_id"], _per(reader, unit)
    values = reader.sql(
        "SELECT a.activation FROM (SELECT unnest(activations) AS activation "
        "FROM unit_records($unit_id, section := 'random')) AS a WHERE isfinite(a.activation)",
        {"unit_id": name},
    )["activation"].to_numpy()
    if not len(values):
        raise WarehouseError(f"{name} has no activation in a random sample: there is no histogram to draw")
    peaks = reader.sql(
        "SELECT quantile, max_activation FROM unit_records($unit_id) "
        "WHERE section <> 'random' AND isfinite(max_activation)",
        {"unit_id": name},
    )
    rows = _peak_rows(peaks, unit["n_buckets"] or 0)

    figure = Figure((8, 3.6 + 0.24 * len(rows)), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True, height_ratios=[3, 0.28 * len(rows) + 0.2])
    counts, edges = np.histogram(values, _BINS)
    axes[0].stairs(counts, edges, fill=True, color=_BARS, baseline=0.5)
    axes[0].set_yscale("log")
    axes[0].set_ylim(bottom=0.5)
    axes[0].set_ylabel(f"{per.replace('_', ' ')}s (count, log)")
    axes[0].set_title(f"{name}\n{len(values):,} activations of {unit['n_random']:,} random records", **_PLAIN)
    for place, (_, maxima, colour) in enumerate(rows):
        axes[1].plot(maxima, np.full(len(maxima), place), "|", color=colour, markersize=11, markeredgewidth=1.6)
    axes[1].set_yticks(range(len(rows)), [f"{label} ({len(maxima)})" for label, maxima, _ in rows])
    axes[1].set_ylim(len(rows) - 0.4, -0.6)
    axes[1].set_ylabel("max of record")
    axes[1].set_xlabel("activation (the component's own units)")
    axes[1].grid(axis="x", alpha=0.3)
    return figure


def draw_token(
    reader: LakeReader,
    token: str,
    by: Strength = "relative",
    model: str | None = None,
    component: str | None = None,
    layer: int | None = None,
) -> Figure:
    """Draw how strong a token is in each component and layer: the score of the unit that responds to it most.

    Args:
        reader: the lake.
        token: exactly as in the source.
        by: relative can be compared between components, max cannot.
        model: only units of this model.
        component: only units of this component.
        layer: only units of this layer.

    Returns:
        One heat map a model on one scale, [n_components, n_layers that are built]. White has no unit that is active on
        the token, grey is not built.

    Raises:
        WarehouseError: no unit is active on the token, or has the score.
    """
    if by not in _STRENGTHS:
        raise WarehouseError(f"by must be {' or '.join(_STRENGTHS)}, not {by!r}")
    filters = {"model": model, "component": component, "layer": layer}
    n_units = reader.sql("SELECT count(*) AS n FROM units")["n"][0]
    cells = reader.sql(
        "SELECT model, component, layer, max(score) AS score FROM top_units($token, k := $k, "
        'model := $model, component := $component, layer := $layer, "by" := $by) GROUP BY ALL ORDER BY ALL',
        {"token": token, "k": n_units, "by": by, **filters},
    )
    if cells.is_empty():
        raise WarehouseError(_explain_nothing(reader, token, by))
    built = reader.sql(
        f"SELECT DISTINCT model, component, layer FROM units INNER JOIN datasets USING (model, component) "
        f"WHERE per = 'token' AND {_PLACE} ORDER BY ALL",
        filters,
    )
    models = built["model"].unique(maintain_order=True).to_list()
    grids = [_Grid(built.filter(pl.col("model") == name), cells.filter(pl.col("model") == name)) for name in models]
    n_rows, n_columns = [len(grid.components) for grid in grids], max(len(grid.layers) for grid in grids)
    width = 4.4 + min(0.5 * n_columns, 10)
    figure = Figure((max(width, 6.4), 1.7 + sum(0.42 * n + 0.75 for n in n_rows)), layout="constrained")
    axes = figure.subplots(len(models), 1, squeeze=False, height_ratios=[n + 0.5 for n in n_rows])[:, 0]
    scores = cells["score"].to_numpy()
    scale = Normalize(min(0.0, float(scores.min())), float(scores.max()))
    for ax, name, grid in zip(axes, models, grids, strict=True):
        image = grid.draw(ax, scale)
        ax.set_title(name, fontsize="medium", loc="left", **_PLAIN)
    axes[-1].set_xlabel("layer (index from 0; white: no unit active, grey: not built)")
    figure.colorbar(image, ax=list(axes), label=_STRENGTHS[by].replace(" (", "\n("), fraction=0.05)
    figure.suptitle(f"'{_drawable(token)}' by component and layer: strongest unit's {_SCORES[by]}", **_PLAIN)
    return figure


def draw_selectivity(
    reader: LakeReader,
    by: Selectivity = "entropy",
    model: str | None = None,
    component: str | None = None,
    layer: int | None = None,
) -> Figure:
    """Draw how a figure of selectivity lies over the units of each layer, one axes for each component.

    Args:
        reader: the lake.
        by: entropy in bits (low is selective), or top_token_share from 0 to 1 (high is selective).
        model: only units of this model.
        component: only units of this component.
        layer: only units of this layer.

    Returns:
        Axes on one scale: a dot at the median of each layer, on lines that hold the middle 50 and 90 % of its units.

    Raises:
        WarehouseError: no unit has the figure; units per token pair never have.
    """
    if by not in _SELECTIVITIES:
        raise WarehouseError(f"by must be {' or '.join(_SELECTIVITIES)}, not {by!r}")
    found = reader.sql(
        f"SELECT model, component, layer, count(*) AS n, quantile_cont({by}, [0.05, 0.25, 0.5, 0.75, 0.95]) AS spread "
        f"FROM units WHERE {by} IS NOT NULL AND {_PLACE} GROUP BY model, component, layer ORDER BY ALL",
        {"model": model, "component": component, "layer": layer},
    )
    if found.is_empty():
        raise WarehouseError(f"no unit here has {by}: only active units of datasets per token have it")
    panels = found.partition_by("model", "component", maintain_order=True)
    n_columns = min(3, len(panels))
    n_rows = -(-len(panels) // n_columns)
    figure = Figure((max(3.3 * n_columns, 5.4), 0.9 + 2.2 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True).ravel()
    for ax, panel in zip(axes, panels, strict=False):
        low, lower, median, upper, high = np.array(panel["spread"].to_list()).T
        layers = panel["layer"].to_numpy()
        size = 5.0 if len(layers) <= _MOST_LABELLED else 2.5
        ax.vlines(layers, low, high, color=_RANGE, linewidth=1.5, label="90 % of units")
        ax.vlines(layers, lower, upper, color=_BARS, linewidth=size, label="50 % of units")
        ax.plot(layers, median, "o", color=_TOP, markersize=size, label="median")
        ax.set_title(f"{panel['model'][0]}/{panel['component'][0]}\n{panel['n'].sum():,} units", fontsize=8, **_PLAIN)
        ax.grid(axis="y", alpha=0.3)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.margins(x=0.08)
    axes[0].set_ylim(bottom=0)
    for ax in axes[len(panels) :]:
        ax.remove()
    figure.supxlabel("layer (index from 0)", fontsize="medium")
    figure.supylabel(_SELECTIVITIES[by], fontsize="medium")
    handles, labels = axes[0].get_legend_handles_labels()
    title = f"{by} of units by component and layer"
    figure.legend(
        handles, labels, title=title, title_fontsize="large", loc="outside upper center", ncols=3, frameon=False
    )
    return figure


def draw_head(reader: LakeReader, unit_id: str, section: Section = "random") -> Figure:
    """Draw where a head, or a latent by token pair, looks: its mean activation by positions, and by distance.

    Args:
        reader: the lake.
        unit_id: a unit per token pair.
        section: the records to take; only the random sample is unbiased.

    Returns:
        Two axes: a heat map [n_query_positions, n_key_positions], grey where there is no pair, and the mean activation
        by the distance from query back to key.

    Raises:
        UnknownUnit: it is not in the lake.
        WarehouseError: it is per token, or has no activation in these records.
        QueryError: there is no such section.
    """
    unit = reader.unit(unit_id).row(0, named=True)
    name = unit["unit_id"]
    if _per(reader, unit) != "token_pair":
        raise WarehouseError(f"{name} has activations per token, not per token pair: 'warehouse plot unit' draws it")
    asked = {"unit_id": name, "section": section}
    pairs = reader.sql("FROM pair_map($unit_id, section := $section)", asked)
    if pairs.is_empty():
        raise WarehouseError(f"{name} has no activation in its {section} records: --section takes others")
    profile = reader.sql("FROM head_profile($unit_id, section := $section) ORDER BY distance", asked)
    queries, keys = pairs["query_position"].to_numpy(), pairs["key_position"].to_numpy()
    grid = np.full((int(queries.max()) + 1, int(keys.max()) + 1), np.nan)
    grid[queries, keys] = pairs["mean_activation"].to_numpy()

    figure = Figure((11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    scale, colours, note = _scale_of(grid)
    image = left.imshow(grid, cmap=colours, norm=scale, aspect="auto", interpolation="nearest")
    left.set_facecolor(_EMPTY)
    left.set_xlabel("key position (tokens from 0; grey: no pair)")
    left.set_ylabel("query position (tokens from 0)")
    figure.colorbar(image, ax=left, label=f"mean activation\n(the component's own units{note})")
    right.plot(profile["distance"], profile["mean_activation"], "o-", color=_BARS, markersize=3.5)
    right.set_xlabel("distance from query back to key (tokens)")
    right.set_ylabel("mean activation\n(the component's own units)")
    right.grid(alpha=0.3)
    for axis in (left.xaxis, left.yaxis, right.xaxis):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    n_records = {"top": unit["n_top"], "random": unit["n_random"], "quantile": unit["n_quantile"]}[section]
    figure.suptitle(f"{name}\nmean over {n_records:,} {section} records", **_PLAIN)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG or SVG, by the suffix; equal figures give equal bytes.

    Raises:
        WarehouseError: the suffix is another, or the file cannot be written.
    """
    form = path.suffix.lower()
    if form not in SUFFIXES:
        raise WarehouseError(f"cannot write {path}: its name must end in {' or '.join(SUFFIXES)}")
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "warehouse"}):
        figure.savefig(buffer, format=form[1:], dpi=150, metadata={"Date": None} if form == ".svg" else None)
    try:
        path.write_bytes(buffer.getvalue())
    except OSError as e:
        raise WarehouseError(f"cannot write {path}: {e.strerror}") from e


class _Grid:
    """Scores of one model by component and layer: NaN where no unit is active."""

    def __init__(self, built: pl.DataFrame, cells: pl.DataFrame) -> None:
        self.components = built["component"].unique().sort().to_list()
        self.layers = built["layer"].unique().sort().to_list()
        shape = len(self.components), len(self.layers)
        self._is_built, self._scores = np.zeros(shape, bool), np.full(shape, np.nan)
        for place in self._places(built):
            self._is_built[place] = True
        for place, score in zip(self._places(cells), cells["score"], strict=True):
            self._scores[place] = score

    def _places(self, frame: pl.DataFrame) -> Iterator[tuple[int, int]]:
        for component, layer in frame.select("component", "layer").iter_rows():
            yield self.components.index(component), self.layers.index(layer)

    def draw(self, ax: Axes, scale: Normalize) -> Any:
        image = ax.imshow(self._scores, cmap=_COLOURS, norm=scale, aspect="auto", interpolation="nearest")
        for y, x in np.argwhere(~self._is_built):
            ax.axvspan(x - 0.5, x + 0.5, 1 - (y + 1) / len(self.components), 1 - y / len(self.components), fc=_EMPTY)
        step = -(-len(self.layers) // 24)
        ax.set_xticks(range(0, len(self.layers), step), self.layers[::step])
        ax.set_yticks(range(len(self.components)), self.components, **_PLAIN)
        if len(self.layers) <= _MOST_LABELLED:
            for (y, x), score in np.ndenumerate(self._scores):
                if not np.isnan(score):
                    colour = "black" if scale(score) > 0.5 else "white"
                    ax.text(x, y, f"{score:.2g}", ha="center", va="center", color=colour, fontsize=8)
        return image


def _peak_rows(peaks: pl.DataFrame, n_buckets: int) -> list[tuple[str, pl.Series, Any]]:
    """Give label, maxima and colour of the top records, and of each quantile bucket from the strongest down."""
    buckets = sorted({*range(n_buckets), *peaks["quantile"].drop_nulls().to_list()}, reverse=True)
    rows = [("top", peaks.filter(pl.col("quantile").is_null())["max_activation"], _TOP)]
    for bucket in buckets:
        maxima = peaks.filter(pl.col("quantile") == bucket)["max_activation"]
        rows.append((f"quantile {bucket}", maxima, colormaps[_COLOURS](0.75 * bucket / max(buckets[0], 1))))
    return rows


def _scale_of(grid: Any) -> tuple[Normalize, str, str]:
    """Give scale, colours and a note on them: signed activations around 0, others by their root for the weak ones."""
    low, high = float(np.nanmin(grid)), float(np.nanmax(grid))
    if low < 0:
        bound = max(-low, high)
        return Normalize(-bound, bound), "PuOr", ""
    return PowerNorm(0.5, 0.0, high or 1.0), _COLOURS, "; colour by square root"


def _explain_nothing(reader: LakeReader, token: str, by: Strength) -> str:
    if not reader.top_units(token, 1, by=by).is_empty():
        return f"no unit of this model, component and layer is active on {token!r}, but others are"
    if not reader.top_units(token, 1).is_empty():
        return f"units are active on {token!r}, but none has what it is divided by: take max in place of {by}"
    near = reader.near_tokens(token)
    return f"no unit here is active on {token!r}" + (f"; like it are {', '.join(map(repr, near))}" if near else "")


def _per(reader: LakeReader, unit: dict[str, Any]) -> str:
    dataset = {name: unit[name] for name in ("model", "component")}
    query = "SELECT per FROM datasets WHERE model = $model AND component = $component"
    return str(reader.sql(query, dataset)["per"][0])


def _drawable(text: str) -> str:
    """Make any text safe to draw: what is unseen or not in the font becomes a sign or an escape."""
    font = get_font(findfont(FontProperties()))
    drawn = "".join(c if font.get_char_index(ord(c)) else f"\\u{ord(c):04x}" for c in printable(text))
    return drawn if len(drawn) <= _MOST_DRAWN else drawn[: _MOST_DRAWN - 1] + "…"
