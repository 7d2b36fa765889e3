"""A unit in the terminal: its records as text shaded by activation, and what is known of it beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from warehouse.output import printable, render
from warehouse.pairs import unflatten_pairs
from warehouse.reader import LakeReader
from warehouse.records import ActivationRecord, FloatArray

_LEVELS = 10
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_KEYS_SHOWN = 3
_QUERIES_SHOWN = 5


def draw_record(record: ActivationRecord, largest: float, is_pair: bool, has_colour: bool) -> Iterator[RenderableType]:
    """Draw one record: its text, and for token pairs the strongest keys of the strongest queries.

    Args:
        record: what to draw.
        largest: the activation that is shaded darkest.
        is_pair: whether activations belong to token pairs; a query is then shaded by its strongest key.
        has_colour: shade by colour; without, active tokens carry their level from 1 to 10.

    Yields:
        Lines.
    """
    if not is_pair:
        yield Padding(_shade(record.tokens, record.activations, largest, has_colour), (0, 0, 0, 2))
        return
    queries, keys = unflatten_pairs(len(record.tokens), len(record.activations))
    strongest = np.zeros(len(record.tokens), np.float32)
    np.maximum.at(strongest, queries, np.abs(record.activations))
    yield Padding(_shade(record.tokens, strongest, largest, has_colour), (0, 0, 0, 2))
    for query in np.argsort(-strongest, kind="stable")[:_QUERIES_SHOWN]:
        if strongest[query] == 0:
            break
        row = np.flatnonzero(queries == query)
        best = row[np.argsort(-np.abs(record.activations[row]), kind="stable")[:_KEYS_SHOWN]]
        line = Text(f"{_quote(record.tokens[query])} @{query}", style="bold")
        line.append(" attends to ", style="dim not bold")
        for place, value in enumerate(best):
            key = keys[value]
            line.append(", " if place else "", style="not bold")
            line.append(f"{_quote(record.tokens[key])} @{key} ", style="not bold")
            line.append(f"{record.activations[value]:.4g}", style="cyan not bold")
        yield Padding(line, (0, 0, 0, 4))


def has_colour(console: Console) -> bool:
    """Say whether a console shows background colours."""
    return console.color_system is not None and not console.no_color


def _shade(tokens: Sequence[str], activations: FloatArray, largest: float, is_coloured: bool) -> Text:
    text = Text()
    for token, activation in zip(tokens, activations, strict=True):
        level = min(int(_LEVELS * max(float(activation), 0.0) / largest), _LEVELS) if largest > 0 else 0
        if not level:
            text.append(printable(token))
        elif is_coloured:
            text.append(printable(token), style=_style(level))
        else:
            text.append(printable(token) + str(level).translate(_SUPERSCRIPTS))
    return text


def _style(level: int) -> str:
    # From a pale to a full green, with black text on every one: contrast stays above 7 to 1.
    share = level / _LEVELS
    red, green, blue = (round(low + (high - low) * share) for low, high in ((225, 40), (245, 200), (225, 90)))
    return f"black on rgb({red},{green},{blue})"


def _quote(token: str) -> str:
    return f"'{printable(token)}'"


def show_unit(reader: LakeReader, unit_id: str, k: int, console: Console) -> None:
    """Print one unit: what it is, its figures, its top tokens or pairs, and the first records of each section.

    Raises:
        UnknownUnit: it is not in the lake.
    """
    row = reader.unit(unit_id).row(0, named=True)
    record = reader.neuron_record(unit_id)
    dataset = reader.sql(
        "FROM datasets WHERE model = $model AND component = $component",
        {"model": row["model"], "component": row["component"]},
    ).row(0, named=True)
    is_pair = dataset["per"] == "token_pair"

    console.print(Text(str(row["unit_id"]), style="bold").append(f"   {dataset['kind']}", style="dim not bold"))
    for note in (dataset["notes"] or "").splitlines():
        console.print(Padding(Text(note, style="dim"), (0, 0, 0, 2)))
    console.print(_figures(row))
    if is_pair:
        pairs = reader.top_pairs(unit_id, k)
        columns = ("query_token", "key_token", "max_activation", "min_activation", "n", "n_active")
        console.print(render(pairs.select(columns), "top pairs"))
    else:
        tokens = reader.top_tokens(unit_id, k)
        console.print(render(tokens.select("token", "max_activation", "n", "n_active", "n_random"), "top tokens"))
    sections = [
        ("top records", record.most_positive_activation_records),
        ("random sample", record.random_sample),
        *(
            (f"random sample, quantile {bucket}", records)
            for bucket, records in enumerate(record.random_sample_by_quantile or ())
        ),
    ]
    values = [r.activations for _, records in sections for r in records if len(r.activations)]
    largest = float(max((np.abs(v).max() if is_pair else v.max() for v in values), default=0.0))
    for title, records in sections:
        console.print(Text(f"\n{title}", style="bold").append(f"  {min(k, len(records))} of {len(records)}", "dim"))
        for rank, shown in enumerate(records[:k]):
            peak = f"{shown.activations.max():.4g}" if len(shown.activations) else "empty"
            console.print(Text(f"{rank}  max {peak}", style="dim"))
            for line in draw_record(shown, largest, is_pair, has_colour(console)):
                console.print(line)


def _figures(row: dict[str, Any]) -> Text:
    names = ("max_activation", "active_fraction", "mean", "variance", "skewness", "kurtosis")
    known = [f"{name} {row[name]:.4g}" for name in names if row[name] is not None]
    counts = f"records: {row['n_top']} top, {row['n_random']} random, {row['n_quantile']} by quantile"
    return Text("\n".join(["  ".join(known) or "no moments", counts]))
