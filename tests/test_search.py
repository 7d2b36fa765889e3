"""The methods of a reader that ask across units: each is its macro, with every argument in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import warehouse
from warehouse.errors import QueryError, UnknownUnit
from warehouse.lake import Lake
from warehouse.mirror import FAMOUS_TOKEN
from warehouse.reader import LakeReader

UNIT = "gpt2-small/mlp_post_act_ae_v4/0/0"
NEURON = "gpt2-xl/mlp_post_act/0/0"
HEAD = "gpt2-small/attn_write_norm/0/0"
WHERE = {"model": "gpt2-small", "component": "mlp_post_act_ae_v4", "layer": 0}
HERE = "model := 'gpt2-small', component := 'mlp_post_act_ae_v4', layer := 0"
Ask = Callable[[LakeReader], pl.DataFrame]


@pytest.fixture(scope="module")
def reader(built_lake: Lake) -> Iterator[LakeReader]:
    with warehouse.open(built_lake.root) as reader:
        yield reader


@pytest.mark.parametrize(
    ("ask", "query"),
    [
        (lambda r: r.find_tokens("^ [A-Z]", "regex"), "find_tokens('^ [A-Z]', how := 'regex')"),
        (
            lambda r: r.top_units_of_tokens([FAMOUS_TOKEN, " the"], 5, **WHERE, by="tokens"),
            f"top_units_of_tokens(['{FAMOUS_TOKEN}', ' the'], k := 5, {HERE}, \"by\" := 'tokens')",
        ),
        (
            lambda r: r.top_units_but_not(FAMOUS_TOKEN, "nowhere", 5, **WHERE),
            f"top_units_but_not('{FAMOUS_TOKEN}', 'nowhere', k := 5, {HERE})",
        ),
        (
            lambda r: r.contexts("[Pp]aris", "regex", 5, **WHERE),
            f"contexts('[Pp]aris', how := 'regex', k := 5, {HERE})",
        ),
        (
            lambda r: r.similar_units(NEURON, 5, "gpt2-small", None, 0),
            f"similar_units('{NEURON}', k := 5, model := 'gpt2-small', layer := 0)",
        ),
        (
            lambda r: r.coactive_units(UNIT, 5, model="gpt2-small", by="share"),
            f"coactive_units('{UNIT}', k := 5, model := 'gpt2-small', \"by\" := 'share')",
        ),
        (
            lambda r: r.match_units("mlp_post_act_ae_v1", "mlp_post_act_ae_v4", "gpt2-small", 0),
            "match_units('mlp_post_act_ae_v1', 'mlp_post_act_ae_v4', model := 'gpt2-small', layer := 0)",
        ),
        (
            lambda r: r.match_units(
                "mlp_post_act", "mlp_post_act", model_a="gpt2-small", model_b="gpt2-xl", layer_a=0, layer_b=1
            ),
            "match_units('mlp_post_act', 'mlp_post_act', model_a := 'gpt2-small', model_b := 'gpt2-xl', "
            "layer_a := 0, layer_b := 1)",
        ),
        (
            lambda r: r.units_with_shared_texts(UNIT, 5, model="gpt2-small"),
            f"units_with_shared_texts('{UNIT}', k := 5, model := 'gpt2-small')",
        ),
        (
            lambda r: r.top_units_by_context(FAMOUS_TOKEN, "phrase", 5, **WHERE, by="texts"),
            f"top_units_by_context('{FAMOUS_TOKEN}', k := 5, {HERE}, \"by\" := 'texts')",
        ),
        (lambda r: r.head_patterns("gpt2-small", layer=0), "head_patterns(model := 'gpt2-small', layer := 0)"),
        (lambda r: r.head_profile(HEAD), f"head_profile('{HEAD}')"),
    ],
    ids=lambda value: value.partition("(")[0] if isinstance(value, str) else "",
)
def test_a_method_gives_what_its_macro_gives(reader: LakeReader, ask: Ask, query: str) -> None:
    found, expected = ask(reader), reader.sql(f"FROM {query}")
    assert not expected.is_empty()
    assert_frame_equal(found, expected)


def test_a_wrong_argument_is_an_error_that_says_what_there_is(reader: LakeReader) -> None:
    with pytest.raises(QueryError, match="phrase, substring or regex"):
        reader.contexts("x", "fuzzy")  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="exact, prefix, regex or loose"):
        reader.find_tokens("x", "fuzzy")  # type: ignore[arg-type]
    with pytest.raises(UnknownUnit):
        reader.similar_units("gpt2-small")


def test_an_empty_lake_has_no_answers_and_no_errors(tmp_path_factory: pytest.TempPathFactory) -> None:
    lake = Lake(tmp_path_factory.mktemp("empty") / "lake")
    lake.create()
    (lake.home / "files").mkdir()
    with warehouse.open(lake.root) as reader:
        frames = [
            reader.top_units(FAMOUS_TOKEN),
            reader.contexts(FAMOUS_TOKEN),
            reader.top_units_of_tokens([FAMOUS_TOKEN]),
            reader.match_units("mlp_post_act", "mlp_post_act_ae_v1"),
            reader.sql("FROM units"),
            reader.sql("FROM vocabulary"),
        ]
        with pytest.raises(UnknownUnit, match="the lake has nothing of gpt2-small/mlp_post_act_ae_v4"):
            reader.similar_units(UNIT)
    assert all(frame.is_empty() for frame in frames)
