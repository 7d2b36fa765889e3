"""Pictures: what their axes hold is what the SQL says, and what is written is a picture."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Rectangle, StepPatch
from typer.testing import CliRunner

import warehouse
from tests.sql.lakes import Content, write_lake
from warehouse.catalogue import build_catalogue
from warehouse.errors import UnknownUnit, WarehouseError
from warehouse.lake import Lake
from warehouse.mirror import FAMOUS_TOKEN
from warehouse.plot import Selectivity, Strength, draw_head, draw_selectivity, draw_token, draw_unit, save
from warehouse.plot_cli import plot_app
from warehouse.reader import LakeReader
from warehouse.records import ActivationRecord, NeuronRecord, Section, UnitId

NEURON = "gpt2-xl/mlp_post_act/0/0"
HEAD = "gpt2-small/attn_write_norm/0/0"
HOSTILE = " $\\frac{x$\x1b[31m\u202e\U000e0041語"


@pytest.fixture(scope="module")
def reader(built_lake: Lake) -> Iterator[LakeReader]:
    with warehouse.open(built_lake.root) as reader:
        yield reader


@pytest.fixture
def hostile_reader(tmp_path: Path) -> Iterator[LakeReader]:
    """Open a lake of one unit, active on a hostile token alone, without a random sample."""
    record = ActivationRecord([HOSTILE, " the"], np.array([2, 0], np.float32))
    unit = NeuronRecord(most_positive_activation_records=[record])
    lake = write_lake(Lake(str(tmp_path / "hostile")), Content({UnitId.parse(NEURON): unit}))
    build_catalogue(lake)
    with warehouse.open(lake.root) as reader:
        yield reader


def plots_of(figure: Figure) -> list[Axes]:
    """Give the axes that are not colour bars."""
    return [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]


def image_of(ax: Axes) -> np.ndarray:
    """Give what a heat map shows, NaN where it is empty."""
    drawn = ax.images[0].get_array()
    assert drawn is not None
    return np.ma.filled(drawn, np.nan)


@pytest.mark.parametrize("unit_id", [NEURON, HEAD])
def test_a_histogram_counts_the_random_sample_and_marks_every_other_record(reader: LakeReader, unit_id: str) -> None:
    upper, lower = plots_of(draw_unit(reader, unit_id))
    (steps,) = (patch for patch in upper.patches if isinstance(patch, StepPatch))
    counts, edges, _ = steps.get_data()
    values = np.concatenate(reader.records(unit_id, "random")["activations"].to_list())
    assert counts.sum() == len(values)
    assert (edges[0], edges[-1]) == (values.min(), values.max())
    assert counts[-1] == (values >= edges[-2]).sum()
    assert upper.get_yscale() == "log"
    marked = sorted(float(x) for line in lower.lines for x in np.asarray(line.get_xdata()))
    chosen = reader.records(unit_id)
    peaks = [peak for section, peak in chosen.select("section", "max_activation").iter_rows() if section != "random"]
    assert marked == pytest.approx(sorted(peaks))
    assert unit_id in upper.get_title()


@pytest.mark.parametrize("by", ["relative", "max"])
def test_each_cell_of_a_token_is_the_best_score_of_its_component_and_layer(reader: LakeReader, by: Strength) -> None:
    ranked = reader.top_units(FAMOUS_TOKEN, 10_000, by=by)
    figure = draw_token(reader, FAMOUS_TOKEN, by)
    found = {}
    for ax in plots_of(figure):
        components = [label.get_text() for label in ax.get_yticklabels()]
        layers = [int(label.get_text()) for label in ax.get_xticklabels()]
        for (y, x), score in np.ndenumerate(image_of(ax)):
            if not np.isnan(score):
                found[ax.get_title(loc="left"), components[y], layers[x]] = score
    expected: dict[tuple[str, str, int], float] = {}
    for *place, score in ranked.select("model", "component", "layer", "score").iter_rows():
        expected.setdefault((place[0], place[1], place[2]), score)
    assert found == pytest.approx(expected)
    assert by in figure.get_suptitle()


def test_filters_leave_out_the_other_cells_of_a_token(reader: LakeReader) -> None:
    (ax,) = plots_of(draw_token(reader, FAMOUS_TOKEN, "max", "gpt2-small", "mlp_post_act_ae_v4", 0))
    best = reader.top_units(FAMOUS_TOKEN, 1, "gpt2-small", "mlp_post_act_ae_v4", 0)["score"][0]
    assert image_of(ax) == pytest.approx(np.array([[best]]))


def test_only_the_layers_that_are_not_built_are_grey(tmp_path: Path) -> None:
    record = ActivationRecord([" the", " cat"], np.array([2, 0], np.float32))
    unit = NeuronRecord(most_positive_activation_records=[record])
    names = ("mlp_post_act/0/0", "mlp_post_act_ae_v4/0/0", "mlp_post_act_ae_v4/1/0")
    units = {UnitId.parse(f"gpt2-small/{name}"): unit for name in names}
    lake = write_lake(Lake(str(tmp_path / "lake")), Content(units))
    build_catalogue(lake)
    with warehouse.open(lake.root) as reader:
        (ax,) = plots_of(draw_token(reader, " the"))
    (grey,) = (patch for patch in ax.patches if isinstance(patch, Rectangle))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["mlp_post_act", "mlp_post_act_ae_v4"]
    assert (grey.get_x(), grey.get_width(), grey.get_y(), grey.get_height()) == (0.5, 1.0, 0.5, 0.5)
    assert np.isnan(image_of(ax)).tolist() == [[False, True], [False, False]]


@pytest.mark.parametrize("by", ["entropy", "top_token_share"])
def test_the_dots_of_selectivity_are_the_medians_of_layers(reader: LakeReader, by: Selectivity) -> None:
    found = {
        (ax.get_title().split("\n")[0], int(layer)): value
        for ax in plots_of(draw_selectivity(reader, by))
        for layer, value in np.asarray(ax.lines[0].get_xydata())
    }
    query = (
        f"SELECT concat_ws('/', model, component), layer, median({by}) FROM units WHERE {by} IS NOT NULL GROUP BY 1, 2"
    )
    assert found == pytest.approx({(key, layer): value for key, layer, value in reader.sql(query).iter_rows()})


@pytest.mark.parametrize("section", ["random", "top"])
def test_a_head_is_drawn_as_its_pair_map_and_its_profile(reader: LakeReader, section: Section) -> None:
    left, right = plots_of(draw_head(reader, HEAD, section))
    image = image_of(left)
    pairs = reader.sql("FROM pair_map($u, section := $s)", {"u": HEAD, "s": section})
    for query, key, mean in pairs.select("query_position", "key_position", "mean_activation").iter_rows():
        assert image[query, key] == mean
    assert np.isfinite(image).sum() == pairs.height
    profile = reader.sql("FROM head_profile($u, section := $s)", {"u": HEAD, "s": section})
    drawn = profile.select("distance", "mean_activation").to_numpy()
    assert np.array_equal(np.asarray(right.lines[0].get_xydata()), drawn)


def test_a_hostile_token_is_drawn_as_escapes_and_not_as_a_formula(
    hostile_reader: LakeReader, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    figure = draw_token(hostile_reader, HOSTILE, "max")
    assert "' $\\frac{x$\\u001b[31m\\u202e\\U000e0041\\u8a9e'" in figure.get_suptitle()
    for name in ("token.png", "token.svg"):
        save(figure, tmp_path / name)
        assert (tmp_path / name).stat().st_size
    assert not [str(warning.message) for warning in recwarn if "lyph" in str(warning.message)]


def test_nothing_to_draw_is_an_error_that_says_why(reader: LakeReader, hostile_reader: LakeReader) -> None:
    with pytest.raises(WarehouseError, match="random sample"):
        draw_unit(hostile_reader, NEURON)
    with pytest.raises(WarehouseError, match="like it are"):
        draw_token(reader, FAMOUS_TOKEN.strip().lower())
    with pytest.raises(WarehouseError, match="but others are"):
        draw_token(reader, FAMOUS_TOKEN, layer=40)
    with pytest.raises(WarehouseError, match="per token"):
        draw_selectivity(reader, component="attn_write_norm")
    with pytest.raises(WarehouseError, match="not per token pair"):
        draw_head(reader, NEURON)
    with pytest.raises(UnknownUnit, match="not built"):
        draw_head(reader, "gpt2-small/attn_write_norm/0/11")


@pytest.mark.parametrize(
    "arguments",
    [("unit", NEURON), ("token", FAMOUS_TOKEN), ("selectivity", "--model", "gpt2-small"), ("head", HEAD)],
    ids=lambda arguments: str(arguments[0]),
)
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_each_command_writes_the_picture_that_the_suffix_asks_for(
    built_lake: Lake, tmp_path: Path, arguments: tuple[str, ...], suffix: str
) -> None:
    file = tmp_path / f"drawn{suffix}"
    result = CliRunner().invoke(plot_app, [*arguments, "--lake", built_lake.root, "--out", str(file)])
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"{file} written\n")
    if suffix == ".png":
        assert imread(file).shape[2] == 4
    else:
        assert ElementTree.parse(file).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_without_out_the_file_is_named_for_what_it_shows(
    built_lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lake = Path(built_lake.root).resolve()
    CliRunner().invoke(plot_app, ["head", HEAD, "--lake", str(lake)], catch_exceptions=False)
    assert [file.name for file in tmp_path.iterdir()] == ["head-gpt2-small-attn_write_norm-0-0.png"]


def test_equal_figures_give_equal_bytes(reader: LakeReader, tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        save(draw_head(reader, HEAD), tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


@pytest.mark.parametrize(
    ("name", "reason"), [("a.gif", "must end in .png or .svg"), ("no/a.png", "there is no folder")]
)
def test_a_file_that_cannot_be_written_is_refused(built_lake: Lake, tmp_path: Path, name: str, reason: str) -> None:
    result = CliRunner().invoke(plot_app, ["unit", NEURON, "--lake", built_lake.root, "--out", str(tmp_path / name)])
    assert isinstance(result.exception, WarehouseError)
    assert reason in str(result.exception)


def test_without_matplotlib_the_extra_is_named(built_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "warehouse.plot")
    monkeypatch.delattr(warehouse, "plot")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = CliRunner().invoke(plot_app, ["unit", NEURON, "--lake", built_lake.root])
    assert isinstance(result.exception, WarehouseError)
    assert "activation-warehouse[plot]" in str(result.exception)
