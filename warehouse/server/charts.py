"""Charts as plain geometry: what goes where, in the units of an SVG's viewBox. The templates draw it.

A chart drawn on the server needs no script, works offline, prints, and stands beside a table of the same figures. The
libraries that draw in the browser are a megabyte, and the one with a grammar wants leave to evaluate strings as code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

ChartForm: TypeAlias = Literal["bars", "points", "line"]

_BINS = 48
_MOST_MARKS = 400
_NAMING = ("rank", "layer", "unit")
_MOST_BARS = 40
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 10.0, 8.0, 32.0
_BAR_HEIGHT = 18.0
_LABEL_WIDTH = 210.0
_LEAST_SPAN = 1e-290
_LEAST_PART = 1e-12
"""A span that is less, or less than this part of the values themselves, has no room for ticks between two floats."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A label on an axis and its place."""

    place: float
    label: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A bar (x, y, width, height) or a point (x, y), with what it says when pointed at."""

    x: float
    y: float
    width: float
    height: float
    text: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """Everything that a template needs to draw.

    Attributes:
        form: what its marks are.
        width: of the viewBox.
        height: of the viewBox.
        summary: what the picture shows, for those who do not see it.
        marks: bars or points; for a line its points in order.
        x_ticks: labels of the horizontal axis.
        y_ticks: labels of the vertical axis.
        x_label: name of the horizontal axis.
        y_label: name of the vertical axis.
    """

    form: ChartForm
    width: float
    height: float
    summary: str
    marks: list[Mark]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    x_label: str
    y_label: str

    @property
    def plot(self) -> tuple[float, float, float, float]:
        """Give left, top, right and bottom of the area inside the axes."""
        left = _LABEL_WIDTH if self.marks and self.marks[0].label else _LEFT
        return left, _TOP, self.width - _RIGHT, self.height - _BOTTOM

    @property
    def line(self) -> str:
        """Give the points as an SVG polyline has them."""
        return " ".join(f"{mark.x:.1f},{mark.y:.1f}" for mark in self.marks)


def draw_histogram(values: NDArray[np.float32], what: str) -> Chart | None:
    """Draw how activations are spread, with counts on a logarithmic scale: most are near zero.

    Args:
        values: activations (the component's own units).
        what: what each of them is on, in the plural.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    # As float64, since between the nearest of float32 there is no room for bins.
    counts, edges = np.histogram(values.astype(np.float64), _BINS)
    width, height = 340.0, 160.0
    heights = np.log10(counts + 1.0)
    highest = float(np.ceil(heights.max() + 1e-9))
    x = _Scale(float(edges[0]), float(edges[-1]), _LEFT, width - _RIGHT)
    y = _Scale(0.0, highest, height - _BOTTOM, _TOP)
    marks = [
        Mark(
            x.at(low),
            y.at(tall),
            x.at(high) - x.at(low) - 0.6,
            y.at(0) - y.at(tall),
            f"{n:,} in {low:.3g} … {high:.3g}",
        )
        for n, tall, low, high in zip(
            counts.tolist(), heights.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True
        )
        if n
    ]
    decades = range(int(highest) + 1)
    step = max(1, len(decades) // 4)
    y_ticks = [Tick(y.at(float(np.log10(10.0**k + 1))), _decade(k)) for k in decades[::step] if 10.0**k < 10**highest]
    share = float((values > 0).mean())
    summary = (
        f"Histogram of {len(values):,} activations from {edges[0]:.3g} to {edges[-1]:.3g}; "
        f"{share:.1%} of the {what} are positive."
    )
    return Chart("bars", width, height, summary, marks, x.ticks(5), y_ticks, "activation", f"{what} (log)")


def draw_profile(distances: Sequence[int], means: Sequence[float]) -> Chart | None:
    """Draw a head's mean activation by the distance from query back to key."""
    if not distances:
        return None
    width, height = 340.0, 160.0
    x = _Scale(0.0, float(max(*distances, 1)), _LEFT, width - _RIGHT)
    y = _Scale(min(0.0, *means), max(0.0, *means), height - _BOTTOM, _TOP)
    marks = [Mark(x.at(d), y.at(m), 0, 0, f"distance {d}: {m:.4g}") for d, m in zip(distances, means, strict=True)]
    strongest = distances[int(np.argmax(np.abs(means)))]
    summary = f"Mean activation by distance from query back to key, strongest at {strongest}."
    return Chart("line", width, height, summary, marks, x.ticks(5), y.ticks(3), "distance (tokens)", "mean activation")


def draw_frame(frame: pl.DataFrame, x_name: str | None = None, y_name: str | None = None) -> Chart | None:
    """Draw two columns of an answer: bars where the first is text, else a line where it rises, else points.

    Args:
        frame: the answer.
        x_name: column of the labels or the horizontal axis; by default the first that fits.
        y_name: numeric column; by default the first that is not `x_name`, and none that only names or numbers rows.

    Returns:
        None where there is nothing to draw.
    """
    numeric = [name for name, kind in frame.schema.items() if kind.is_numeric() and not kind.is_nested()]
    texts = [name for name, kind in frame.schema.items() if kind == pl.String or kind == pl.Categorical]
    y_name = (
        y_name if y_name in numeric else next((n for n in numeric if n not in (x_name, "rank", "layer", "unit")), None)
    )
    if y_name is None or frame.is_empty():
        return None
    if x_name not in (*texts, *numeric):
        x_name = next((n for n in (*texts, *numeric) if n != y_name), None)
    if x_name is None:
        return None
    kept = frame.select(pl.col(x_name).alias("x"), pl.col(y_name).cast(pl.Float64).alias("y"))
    kept = kept.filter(pl.col("x").is_not_null() & pl.col("y").is_finite())
    if kept.is_empty():
        return None
    return _draw_bars(kept, x_name, y_name) if x_name in texts else _draw_points(kept, x_name, y_name)


def _draw_bars(frame: pl.DataFrame, x_name: str, y_name: str) -> Chart:
    shown = frame.head(_MOST_BARS)
    labels, values = shown["x"].to_list(), shown["y"].to_list()
    width, height = 640.0, _TOP + _BOTTOM + _BAR_HEIGHT * len(values)
    x = _Scale(min(0.0, *values), max(0.0, *values), _LABEL_WIDTH, width - _RIGHT)
    marks = [
        Mark(
            min(x.at(0), x.at(value)),
            _TOP + place * _BAR_HEIGHT + 2,
            max(abs(x.at(value) - x.at(0)), 0.5),
            _BAR_HEIGHT - 4,
            f"{value:,.6g}",
            str(label),
        )
        for place, (label, value) in enumerate(zip(labels, values, strict=True))
    ]
    cut = f", the first {len(values)} of {frame.height}" if frame.height > len(values) else ""
    summary = f"Bars of {y_name} by {x_name}{cut}: from {min(values):.4g} to {max(values):.4g}."
    return Chart("bars", width, height, summary, marks, x.ticks(5), [], y_name, "")


def _draw_points(frame: pl.DataFrame, x_name: str, y_name: str) -> Chart:
    shown = frame.with_columns(pl.col("x").cast(pl.Float64)).filter(pl.col("x").is_finite()).head(_MOST_MARKS)
    xs, ys = shown["x"].to_list(), shown["y"].to_list()
    width, height = 640.0, 300.0
    x = _Scale(min(xs, default=0.0), max(xs, default=1.0), _LEFT, width - _RIGHT)
    y = _Scale(min(0.0, min(ys, default=0.0)), max(ys, default=1.0), height - _BOTTOM, _TOP)
    marks = [Mark(x.at(a), y.at(b), 0, 0, f"{x_name} {a:,.6g}, {y_name} {b:,.6g}") for a, b in zip(xs, ys, strict=True)]
    is_line = len(xs) > 2 and all(a < b for a, b in zip(xs, xs[1:], strict=False))
    summary = f"{y_name} against {x_name}, {len(xs)} points."
    return Chart("line" if is_line else "points", width, height, summary, marks, x.ticks(6), y.ticks(5), x_name, y_name)


@dataclass(frozen=True, slots=True)
class _Scale:
    """Values on a line from one place to another."""

    low: float
    high: float
    start: float
    end: float

    @property
    def span(self) -> float:
        """How far the values reach; 0 where that is more than a float holds, or too little to be divided by."""
        span = self.high - self.low
        least = max(_LEAST_SPAN, _LEAST_PART * max(abs(self.low), abs(self.high)))
        return span if least < span < np.inf else 0.0

    def at(self, value: float) -> float:
        part = (value - self.low) / self.span if self.span else 0.5
        return round(self.start + part * (self.end - self.start), 2)

    def ticks(self, n: int) -> list[Tick]:
        """Give about n round values that lie on the scale."""
        if not self.span:
            return [Tick(self.at(self.low), f"{self.low:.4g}")]
        rough = self.span / n
        magnitude = 10.0 ** np.floor(np.log10(rough))
        step = next(magnitude * m for m in (1, 2, 5, 10) if magnitude * m >= rough)
        first = np.ceil(self.low / step - 1e-9)
        values = [float(k * step) for k in np.arange(first, self.high / step + 1e-9)]
        return [Tick(self.at(value), f"{value or 0.0:.6g}") for value in values[:20]]


def _decade(k: int) -> str:
    return "1" + "0" * k if k < 4 else f"1e{k}"
