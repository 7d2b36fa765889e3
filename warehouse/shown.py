"""Answers to look at, in a terminal or a notebook: a unit with its records, places in texts, units that are alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
import polars as pl
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from warehouse.drawing import draw_bar, printable, quote_token, render, shade
from warehouse.pairs import unflatten_pairs
from warehouse.records import ActivationRecord, NeuronRecord

_KEYS_SHOWN = 3
_QUERIES_SHOWN = 5
_ONE_LINE_WIDTH = 120
"""Columns that the tokens two units share need beside the rest; a narrower table has them on a line of their own."""
_NOTEBOOK_WIDTH = 120
_NOTEBOOK_FORMAT = '<pre style="font-family: monospace; line-height: 1.4; overflow-x: auto">{code}</pre>'


@dataclass(frozen=True, repr=False)
class Shown:
    """An answer to look at: drawn in a notebook and by rich, and the frame that it is drawn from.

    Attributes:
        frame: the rows, for whatever comes next.
        drawing: the same for people.
    """

    frame: pl.DataFrame
    drawing: RenderableType

    def __rich__(self) -> RenderableType:
        return self.drawing

    def __repr__(self) -> str:
        console = Console(file=StringIO(), width=_NOTEBOOK_WIDTH, color_system=None, force_jupyter=False)
        with console.capture() as capture:
            console.print(self.drawing)
        return capture.get().rstrip("\n")

    def _repr_html_(self) -> str:
        """Give the drawing as HTML, in which no token can be a tag: rich escapes every text."""
        console = Console(
            file=StringIO(),
            width=_NOTEBOOK_WIDTH,
            color_system="truecolor",
            force_terminal=True,
            force_jupyter=False,
            no_color=False,
            record=True,
        )
        console.print(self.drawing)
        return console.export_html(inline_styles=True, code_format=_NOTEBOOK_FORMAT)


@dataclass(frozen=True)
class UnitDrawing:
    """One unit: what it is, its figures, its top tokens or pairs, and the first records of each section.

    Attributes:
        unit: its row of units.
        dataset: the row of its dataset.
        tops: its top tokens, or pairs.
        record: its records.
        k: records of each section.
    """

    unit: Mapping[str, Any]
    dataset: Mapping[str, Any]
    tops: pl.DataFrame
    record: NeuronRecord
    k: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        is_pair = self.dataset["per"] == "token_pair"
        yield Text(str(self.unit["unit_id"]), style="bold").append(f"   {self.dataset['kind']}", style="dim not bold")
        for note in (self.dataset["notes"] or "").splitlines():
            yield Padding(Text(printable(note), style="dim"), (0, 0, 0, 2))
        yield _figures(self.unit)
        if is_pair:
            columns = ("query_token", "key_token", "max_activation", "min_activation", "n", "n_active")
            yield render(self.tops.select(columns), "top pairs")
        else:
            yield render(self.tops.select("token", "max_activation", "n", "n_active", "n_random"), "top tokens")
        sections = _sections(self.record)
        values = [r.activations for _, records in sections for r in records if len(r.activations)]
        largest = float(max((np.abs(v).max() if is_pair else v.max() for v in values), default=0.0))
        for title, records in sections:
            shown = records[: self.k]
            yield Text(f"\n{title}", style="bold").append(f"  {len(shown)} of {len(records)}", "dim")
            for rank, record in enumerate(shown):
                peak = f"{record.activations.max():.4g}" if len(record.activations) else "empty"
                yield Text(f"{rank}  max {peak}", style="dim")
                yield from draw_record(record, largest, is_pair, console)


def _sections(record: NeuronRecord) -> list[tuple[str, list[ActivationRecord]]]:
    buckets = record.random_sample_by_quantile or ()
    return [
        ("top records", record.most_positive_activation_records),
        ("random sample", record.random_sample),
        *((f"random sample, quantile {bucket}", records) for bucket, records in enumerate(buckets)),
    ]


def _figures(row: Mapping[str, Any]) -> Text:
    names = ("max_activation", "active_fraction", "mean", "variance", "skewness", "kurtosis")
    known = [f"{name} {row[name]:.4g}" for name in names if row[name] is not None]
    counts = f"records: {row['n_top']} top, {row['n_random']} random, {row['n_quantile']} by quantile"
    return Text("\n".join(["  ".join(known) or "no moments", counts]))


def draw_record(record: ActivationRecord, largest: float, is_pair: bool, console: Console) -> Iterator[RenderableType]:
    """Draw one record: its text, and for token pairs the strongest keys of the strongest queries.

    Args:
        record: what to draw.
        largest: the activation that is shaded darkest.
        is_pair: whether activations belong to token pairs; a query is then shaded by its strongest key.
        console: where it is shown.

    Yields:
        Lines.
    """
    if not is_pair:
        yield Padding(shade(record.tokens, record.activations, largest, console), (0, 0, 0, 2))
        return
    queries, keys = unflatten_pairs(len(record.tokens), len(record.activations))
    strongest = np.zeros(len(record.tokens), np.float32)
    np.maximum.at(strongest, queries, np.abs(record.activations))
    yield Padding(shade(record.tokens, strongest, largest, console), (0, 0, 0, 2))
    for query in np.argsort(-strongest, kind="stable")[:_QUERIES_SHOWN]:
        if strongest[query] == 0:
            break
        row = np.flatnonzero(queries == query)
        best = row[np.argsort(-np.abs(record.activations[row]), kind="stable")[:_KEYS_SHOWN]]
        line = Text(f"{quote_token(record.tokens[query])} @{query}", style="bold")
        line.append(" attends to ", style="dim not bold")
        for place, value in enumerate(best):
            key = keys[value]
            line.append(", " if place else "", style="not bold")
            line.append(f"{quote_token(record.tokens[key])} @{key} ", style="not bold")
            line.append(f"{record.activations[value]:.4g}", style="cyan not bold")
        yield Padding(line, (0, 0, 0, 4))


@dataclass(frozen=True)
class ContextsDrawing:
    """Places in texts where units fire inside a match, each shaded by its unit's own strongest activation.

    Attributes:
        rows: of the macro context_excerpts.
    """

    rows: pl.DataFrame

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.rows.is_empty():
            yield Text("No unit is active inside such a match.", style="dim")
        for row in self.rows.iter_rows(named=True):
            largest = max(row["max_activation"] or 0.0, row["activation"])
            line = Text(f"{row['rank']:>3}  ", style="dim").append(row["unit_id"], style="bold not dim")
            line.append(f"  {row['activation']:.4g}", style="cyan not dim")
            if row["max_activation"] is not None:
                line.append(f"  {draw_bar(row['activation'] / largest).rstrip()}", style="green not dim")
                line.append(f" {row['activation'] / largest:.0%} of its max")
            place = row["section"] if row["quantile"] is None else f"quantile {row['quantile']}"
            yield line.append(f"  {place} record {row['record_rank']}")
            yield Padding(_draw_excerpt(row, largest, console), (0, 0, 0, 5), expand=False)


def _draw_excerpt(row: Mapping[str, Any], largest: float, console: Console) -> Text:
    start = row["excerpt_position"]
    marked = range(row["first_position"] - start, row["last_position"] - start + 1)
    cut = "" if start == 0 else "…" if row["tokens"][0].startswith(" ") else "… "
    text = Text(cut).append_text(shade(row["tokens"], row["activations"], largest, console, marked))
    return text.append(" …" if start + len(row["tokens"]) < row["n_tokens"] else "")


@dataclass(frozen=True)
class SimilarDrawing:
    """Units that are like one, each with the strength of the likeness and the tokens that make it.

    Attributes:
        rows: of the macro similar_units.
    """

    rows: pl.DataFrame

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.rows.is_empty():
            yield Text("No unit shares one of its strongest tokens.", style="dim")
            return
        is_wide = options.max_width >= _ONE_LINE_WIDTH
        table = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("rank", justify="right", no_wrap=True)
        table.add_column("unit_id" if is_wide else "unit_id and shared tokens", overflow="fold")
        table.add_column("score", justify="right", no_wrap=True)
        table.add_column("", style="green", no_wrap=True)
        if is_wide:
            table.add_column("shared tokens, strongest first", overflow="fold")
        for row in self.rows.iter_rows(named=True):
            tokens = Text(" ".join(map(quote_token, row["shared_tokens"])))
            n_others = row["n_shared_tokens"] - len(row["shared_tokens"])
            tokens.append(f" and {n_others} more" if n_others > 0 else "", style="dim")
            unit = Text(row["unit_id"], style="bold")
            named = [unit] if is_wide else [Text.assemble(unit, "\n", tokens)]
            bar = draw_bar(row["score"])
            table.add_row(str(row["rank"]), *named, f"{row['score']:.3f}", bar, *([tokens] if is_wide else []))
        yield table
