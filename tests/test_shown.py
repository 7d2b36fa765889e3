"""Answers to look at: shaded text and bars, with and without colour, wide and narrow, and as HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import StringIO

import numpy as np
import polars as pl
import pytest
from rich.console import Console

import warehouse
from warehouse.drawing import draw_bar, render, shade
from warehouse.errors import UnknownDataset, UnknownUnit
from warehouse.lake import Lake
from warehouse.mirror import FAMOUS_TOKEN
from warehouse.reader import LakeReader
from warehouse.shown import ContextsDrawing, Shown, SimilarDrawing

LATENT = "gpt2-small/mlp_post_act_ae_v4/0/0"
HEAD = "gpt2-small/attn_write_norm/0/0"
_CONTROL = re.compile(r"\x1b\[[\d;]*m")


@pytest.fixture(scope="module")
def reader(built_lake: Lake) -> Iterator[LakeReader]:
    with warehouse.open(built_lake.root) as reader:
        yield reader


def terminal(*, width: int = 200, no_color: bool = False) -> Console:
    return Console(
        file=StringIO(), width=width, force_terminal=True, color_system="truecolor", no_color=no_color, _environ={}
    )


def pipe(width: int = 200) -> Console:
    return Console(file=StringIO(), width=width, color_system=None, _environ={})


def draw(shown: object, console: Console) -> str:
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


def one_context(tokens: list[str], activations: list[float], *, first: int, last: int) -> Shown:
    """Make the one row of a hit in the middle of a longer record."""
    row = {
        "rank": 0, "unit_id": "m/c/0/0", "activation": max(activations), "max_activation": 4.0, "section": "top",
        "quantile": None, "record_rank": 3, "first_position": 10 + first, "last_position": 10 + last,
        "position": 10 + first, "n_tokens": 64, "excerpt_position": 10, "tokens": tokens, "activations": activations,
    }  # fmt: skip
    frame = pl.DataFrame([row])
    return Shown(frame, ContextsDrawing(frame))


def test_a_match_stands_in_brackets_and_active_tokens_have_their_level_where_there_are_no_styles() -> None:
    shown = one_context([" a", " b", " c", " d"], [0.0, 4.0, 2.0, 1.0], first=1, last=2)
    assert "     … a «b¹⁰ c⁵» d² …\n" in draw(shown, pipe())
    assert "100% of its max  top record 3" in draw(shown, pipe())


def test_a_match_is_bold_and_underlined_without_colour_too() -> None:
    shown = one_context([" a", " b", " c"], [1.0, 4.0, 0.0], first=1, last=1)
    coloured, plain = draw(shown, terminal()), draw(shown, terminal(no_color=True))
    assert "\x1b[1;4mb\x1b[0m¹⁰" in plain
    assert not re.search(r"\x1b\[[\d;]*[34][0-8][;m]", plain)
    assert re.search(r"\x1b\[1;4;30;48;2;40;200;90mb\x1b", coloured)
    assert not {"«", "¹"} & set(coloured + _CONTROL.sub("", plain).replace("¹⁰", "").replace("²", ""))


def test_no_token_gets_a_shade_that_its_unit_does_not_earn() -> None:
    text = shade([" a", " b", " c", ""], np.array([-1, 0, 0.39, 4], np.float32), 4.0, pipe())
    assert text.plain == " a b c¹⁰"
    assert shade([" a"], [0.0], 0.0, pipe()).plain == " a"


@pytest.mark.parametrize(
    ("share", "bar"), [(-1, " " * 10), (0, " " * 10), (0.51, "█████▏    "), (1, "█" * 10), (9, "█" * 10)]
)
def test_a_bar_is_as_long_as_its_share_and_always_as_wide(share: float, bar: str) -> None:
    assert draw_bar(share) == bar


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("console", [pipe, terminal])
def test_every_drawing_fits_its_terminal(reader: LakeReader, width: int, console: type[Console]) -> None:
    for shown in (
        reader.show_contexts(FAMOUS_TOKEN, k=5),
        reader.show_similar(LATENT, k=5, model="gpt2-small"),
        reader.show(HEAD, k=1),
    ):
        printed = _CONTROL.sub("", draw(shown, console(width=width)))
        assert 0 < max(map(len, printed.splitlines())) <= width


@pytest.mark.parametrize("width", [80, 200])
def test_similar_units_name_the_tokens_they_share_and_how_many_more(width: int) -> None:
    rows = {
        "rank": 0, "unit_id": "gpt2-small/resid_delta_attn_ae_v4/11/10239", "score": 0.75, "n_shared_tokens": 9,
        "shared_tokens": [" Paris", "\n", "'", " it", "<b>"],
    }  # fmt: skip
    printed = draw(SimilarDrawing(pl.DataFrame([rows])), pipe(width))
    assert "gpt2-small/resid_delta_attn_ae_v4/11/10239" in printed
    assert "0.750   ███████▌" in printed
    assert "' Paris' '↵' ''' ' it' '<b>' and 4 more" in printed


def test_no_token_is_a_tag_or_a_control_in_a_notebook() -> None:
    tokens = ["<script>alert(1)</script>", "</pre>", "\x1b]0;owned\x07", "\u202e", '"&amp;', "[red]x[/red]"]
    html = one_context(tokens, [4.0] * len(tokens), first=1, last=1)._repr_html_()
    assert set(re.findall(r"</?(\w+)", html)) == {"pre", "span"}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert not {"\x1b", "\u202e", "\x07"} & set(html)
    assert "&amp;amp;" in html and "[red]x[/red]" in html


def test_a_notebook_shades_and_underlines(reader: LakeReader) -> None:
    html = reader.show_contexts(FAMOUS_TOKEN, k=2)._repr_html_()
    assert html.count("text-decoration: underline") == 2
    assert "background-color: #" in html
    assert "background-color: #" in reader.show(LATENT, k=2)._repr_html_()
    assert "█" in reader.show_similar(LATENT, k=2)._repr_html_()


def test_what_is_shown_has_its_frame_and_prints_as_text(reader: LakeReader) -> None:
    shown = reader.show_similar(LATENT, 3, "gpt2-small", None, 0)
    assert shown.frame.equals(reader.similar_units(LATENT, 3, "gpt2-small", None, 0))
    assert str(shown) == draw(shown, pipe(120)).rstrip("\n")
    contexts = reader.show_contexts("[Pp]aris", "regex", 4, "gpt2-small", "mlp_post_act_ae_v4", 0)
    plain = reader.contexts("[Pp]aris", "regex", 4, "gpt2-small", "mlp_post_act_ae_v4", 0)
    same = ["rank", "unit_id", "activation", "section", "quantile", "record_rank", "first_position", "last_position"]
    assert contexts.frame.select(same).equals(plain.select(same))
    assert reader.show(LATENT).frame.equals(reader.records(LATENT))


def test_an_answer_without_rows_says_so_in_a_notebook(reader: LakeReader) -> None:
    assert "No unit is active" in str(reader.show_contexts("no such text"))
    assert "No unit is active" in reader.show_contexts("no such text")._repr_html_()


UNKNOWN = "gpt2-small/mlp_post_act_ae_v4/7/5"


OF_A_UNIT = ["unit", "show", "show_similar", "records", "top_tokens", "top_pairs"]
OF_A_UNIT += ["similar_units", "coactive_units", "head_profile"]


@pytest.mark.parametrize("method", OF_A_UNIT)
def test_a_question_about_a_unit_that_is_not_there_says_what_is(reader: LakeReader, method: str) -> None:
    with pytest.raises(UnknownUnit, match="was not built yet: the lake has layer 1 units 0-6"):
        getattr(reader, method)(UNKNOWN)
    with pytest.raises(UnknownUnit, match="did you mean gpt2-small/mlp_post_act_ae_v4"):
        getattr(reader, method)("gpt2-small/mlp_pots_act_ae_v4/0/5")


@pytest.mark.parametrize("method", ["top_units", "contexts", "show_contexts", "top_units_by_pair"])
def test_a_misspelt_model_component_or_layer_names_what_there_is(reader: LakeReader, method: str) -> None:
    ask = getattr(reader, method)
    with pytest.raises(UnknownDataset, match="did you mean mlp_post_act_ae_v4"):
        ask(FAMOUS_TOKEN, component="mlp_pots_act_ae_v4")
    with pytest.raises(UnknownDataset, match="no model 'gpt2-sml': did you mean gpt2-small"):
        ask(FAMOUS_TOKEN, model="gpt2-sml")
    with pytest.raises(UnknownDataset, match="no component 'mlp_post_act_ae_v4' of gpt2-xl"):
        ask(FAMOUS_TOKEN, model="gpt2-xl", component="mlp_post_act_ae_v4")
    with pytest.raises(UnknownDataset, match="no layer 12: gpt2-small can have layers 0-11"):
        ask(FAMOUS_TOKEN, model="gpt2-small", layer=12)
    assert not isinstance(ask(FAMOUS_TOKEN, layer=7), Exception)


@pytest.mark.parametrize("columns", [20, 60, 100, 160, 240])
def test_a_table_names_the_columns_that_have_no_room_and_cuts_no_other_short(columns: int) -> None:
    frame = pl.DataFrame(
        {
            "rank": [0],
            "unit_id": ["gpt2-xl/mlp_post_act/0/816"],
            "explanation": ["words about a ship that is lost at sea, and about those who wait for it at home"],
            "score": [0.8638],
            "n_active": [123_456],
            "query_token": [" something"],
            "notes": ["that it was looked at once and found good"],
        }
    )
    console = Console(width=columns, file=StringIO(), record=True)
    console.print(render(frame))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= columns
    words = " ".join(text.split())
    for name, shown in [("score", "0.8638"), ("n_active", "123,456"), ("query_token", "' something'")]:
        named_below = name in words.partition("no room for:")[2]
        assert (shown in words) != named_below, (name, text)
    assert columns < 60 or "gpt2-xl/mlp_post_act/0/816" in words
    assert columns < 240 or "no room" not in words
