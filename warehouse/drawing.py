"""What answers are drawn from: printable text, tables, bars, and text shaded by activation."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import polars as pl
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from warehouse.records import FloatArray

_SIGNS = {"\n": "↵", "\t": "⇥", "\r": "␍", "\0": "␀"}
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_MAX_CELL = 200
_PROSE = {"notes", "error", "holds", "comment", "sql"}
_LEVELS = 10
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def printable(text: str) -> str:
    """Make any text safe for a terminal: controls, bidi marks and other unseen characters become signs or escapes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_SIGNS.get(c) or (f"\\u{ord(c):04x}" if unicodedata.category(c) in _HIDDEN else c) for c in text)


def quote_token(token: str) -> str:
    """Put a token in quotes, so that the space before it is seen."""
    return f"'{printable(token)}'"


def render(frame: pl.DataFrame, title: str = "") -> Table:
    """Draw a frame as a table for people: numbers to the right, tokens with a sign for what cannot be seen.

    A unit_id stands for the columns that it is made of.
    """
    if "unit_id" in frame.columns:
        frame = frame.drop("model", "component", "layer", "unit", strict=False)
    table = Table(title=title or None, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, kind in frame.schema.items():
        is_prose = kind.is_nested() or name in _PROSE
        table.add_column(name, justify="right" if kind.is_numeric() else "left", overflow="fold", no_wrap=not is_prose)
    for row in frame.iter_rows():
        table.add_row(*(_cell(value, name) for value, name in zip(row, frame.columns, strict=True)))
    return table


def draw_bar(share: float, width: int = 10) -> str:
    """Draw a number from 0 to 1 as a bar of eighths of a character, as wide as a full one."""
    eighths = round(8 * width * min(max(share, 0.0), 1.0))
    return (_EIGHTHS[8] * (eighths // 8) + _EIGHTHS[eighths % 8]).strip().ljust(width)


def has_colour(console: Console) -> bool:
    """Say whether a console shows background colours."""
    return has_styles(console) and not console.no_color


def has_styles(console: Console) -> bool:
    """Say whether a console shows bold and underlined text, as it does with NO_COLOR too, but not in a pipe."""
    return console.color_system is not None


def shade(
    tokens: Sequence[str],
    activations: FloatArray | Sequence[float],
    largest: float,
    console: Console,
    marked: range = range(0),
) -> Text:
    """Shade a text by activation.

    Args:
        tokens: the text.
        activations: one for each token.
        largest: the activation that is shaded darkest.
        console: where it is shown: without colour, active tokens carry their level from 1 to 10.
        marked: places of tokens that are a match: bold and underlined, in brackets where not even that is shown.
    """
    text = Text()
    for place, (token, activation) in enumerate(zip(tokens, activations, strict=True)):
        level = min(int(_LEVELS * max(float(activation), 0.0) / largest), _LEVELS) if largest > 0 else 0
        styles = ["bold underline"] if place in marked else []
        if level and has_colour(console):
            styles.append(_style(level))
        shown = printable(token)
        if marked and place == marked[0]:
            n_spaces = len(shown) - len(shown.lstrip(" "))  # before a word, and not a part of what was looked for
            text.append(shown[:n_spaces], style=" ".join(styles[1:]))
            text.append("" if has_styles(console) else "«")
            shown = shown[n_spaces:]
        text.append(shown, style=" ".join(styles))
        if level and not has_colour(console):
            text.append(str(level).translate(_SUPERSCRIPTS))
        if marked and place == marked[-1] and not has_styles(console):
            text.append("»")
    return text


def _style(level: int) -> str:
    # From a pale to a full green, with black text on every one: contrast stays above 7 to 1.
    share = level / _LEVELS
    red, green, blue = (round(low + (high - low) * share) for low, high in ((225, 40), (245, 200), (225, 90)))
    return f"black on rgb({red},{green},{blue})"


def _cell(value: object, name: str) -> Text:
    if value is None:
        return Text("-", style="dim")
    if isinstance(value, float):
        return Text(f"{value:,.4g}" if abs(value) < 1e6 else f"{value:.4g}")
    if isinstance(value, int) and not isinstance(value, bool):
        return Text(f"{value:,}" if name not in ("layer", "unit") else str(value))
    text = printable(value if isinstance(value, str) else str(value))
    if "token" in name and isinstance(value, str):
        text = f"'{text}'"
    return Text(text if len(text) <= _MAX_CELL else text[: _MAX_CELL - 1] + "…")
