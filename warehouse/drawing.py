"""What answers are drawn from: printable text, tables, bars, and text shaded by activation."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import polars as pl
from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from warehouse.records import FloatArray

_SIGNS = {"\n": "↵", "\t": "⇥", "\r": "␍", "\0": "␀"}
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_MAX_CELL = 200
_LONG_CELL = 40
_LEAST_PROSE = 24
_GAP = 3
"""Characters between two columns."""
_PROSE = {"notes", "error", "holds", "comment", "sql"}
_LEVELS = 10
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def printable(text: str) -> str:
    """Make any text safe for a terminal: controls, bidi marks and other unseen characters become signs or escapes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_SIGNS.get(c) or (_escape(c) if unicodedata.category(c) in _HIDDEN else c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def quote_token(token: str) -> str:
    """Put a token in quotes, so that the space before it is seen."""
    return f"'{printable(token)}'"


def render(frame: pl.DataFrame, title: str = "") -> Rows:
    """Draw a frame as a table for people: numbers to the right, tokens with a sign for what cannot be seen.

    A unit_id stands for the columns that it is made of.
    """
    if "unit_id" in frame.columns:
        frame = frame.drop("model", "component", "layer", "unit", strict=False)
    return Rows(tuple(_Column.of(series) for series in frame), title)


@dataclass(frozen=True, slots=True)
class _Column:
    """A column as it is shown.

    Attributes:
        name: its head.
        is_number: whether it stands to the right.
        is_prose: whether its cells may go on in a further line, as those of no other column.
        cells: its values.
        width: characters of the widest.
    """

    name: str
    is_number: bool
    is_prose: bool
    cells: tuple[Text, ...]
    width: int

    @classmethod
    def of(cls, series: pl.Series) -> _Column:
        cells = tuple(_cell(value, series.name) for value in series.to_list())
        width = max(map(cell_len, (series.name, *(cell.plain for cell in cells))))
        is_long = series.dtype == pl.String and series.name != "unit_id" and width > _LONG_CELL
        is_prose = is_long or series.dtype.is_nested() or series.name in _PROSE
        return cls(series.name, series.dtype.is_numeric(), is_prose, cells, width)

    @property
    def least(self) -> int:
        """The fewest characters in which it can be read."""
        return min(self.width, _LEAST_PROSE) if self.is_prose else self.width


@dataclass(frozen=True, slots=True)
class Rows:
    """A table that never cuts a number or a name short: what has no room is left out, from the right, and named below.

    Attributes:
        columns: in their order.
        title: stands above it.
    """

    columns: tuple[_Column, ...]
    title: str

    @property
    def width(self) -> int:
        """Characters of a line that holds every cell whole."""
        return sum(column.width + _GAP for column in self.columns)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = accumulate(column.least + _GAP for column in self.columns)
        n_shown = max(sum(width <= options.max_width for width in widths), 1)
        shown, left_out = self.columns[:n_shown], self.columns[n_shown:]
        table = Table(
            title=self.title or None, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
        )
        for column in shown:
            justify: Literal["left", "right"] = "right" if column.is_number else "left"
            may_fold = column.is_prose or n_shown == 1
            table.add_column(column.name, justify=justify, overflow="fold", no_wrap=not may_fold)
        for cells in zip(*(column.cells for column in shown), strict=True):
            table.add_row(*cells)
        yield table
        if left_out:
            yield Text(f" no room for: {', '.join(column.name for column in left_out)}", style="dim")


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
