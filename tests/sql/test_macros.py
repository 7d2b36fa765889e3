"""The rankings against plain Python over the same records."""

from __future__ import annotations

from typing import get_args

import pytest

from tests.sql.lakes import HEADS, LATENTS, NEURONS, PAIR_LATENTS, VOCABULARY, XL, Content, Figures, largest_top
from warehouse.errors import QueryError
from warehouse.reader import LakeReader, PairOrder, TokenOrder
from warehouse.records import UnitId

FIGURES = ("n", "n_active", "max_activation", "sum_activation", "n_random", "sum_random", "sum_positive")
PER_TOKEN = (NEURONS, XL, LATENTS)


def score(content: Content, name: UnitId, on: tuple[str, ...], by: str) -> float | None:
    figures = content.figures[name]
    f = figures[on]
    largest = largest_top(content.units[name]) or 0.0
    match by:
        case "max":
            return f.max_activation
        case "abs":
            return max(f.max_activation, -f.min_activation)
        case "mean":
            return f.sum_random / f.n_random if f.n_random else None
        case "relative":
            return f.sum_activation / f.n / largest if largest > 0 else None
        case "share":
            return f.sum_positive / sum(other.sum_positive for other in figures.values())
    raise AssertionError(by)


def rank_units(
    content: Content, per: str, by: str, query: str | None, key: str | None = None
) -> list[tuple[float, UnitId, tuple[str, ...], Figures]]:
    """Rank units by a scan over everything, each with its best token or pair."""
    best = []
    for name, figures in content.figures.items():
        if (f"{name.model}/{name.component}" in PER_TOKEN) != (per == "token"):
            continue
        scored = [
            (value, name, on, f)
            for on, f in figures.items()
            if query in (None, on[0]) and (key is None or on[1] == key)
            if (value := score(content, name, on, by)) is not None
        ]
        best += sorted(scored, key=lambda row: (-row[0], row[2]))[:1]
    return sorted(best, key=lambda row: (-row[0], row[1].model, row[1].component, row[1].layer, row[1].unit))


@pytest.mark.parametrize("by", get_args(TokenOrder))
@pytest.mark.parametrize("token", VOCABULARY)
def test_top_units_ranks_as_a_scan_of_all_records_does(
    reader: LakeReader, content: Content, token: str, by: TokenOrder
) -> None:
    found = reader.top_units(token, k=100, by=by)
    expected = rank_units(content, "token", by, token)
    assert expected
    assert found["unit_id"].to_list() == [str(name) for _, name, _, _ in expected]
    assert found["score"].to_list() == [value for value, _, _, _ in expected]
    assert found["rank"].to_list() == list(range(len(expected)))
    assert found.select(FIGURES).rows() == [tuple(getattr(f, name) for name in FIGURES) for *_, f in expected]


@pytest.mark.parametrize("by", get_args(PairOrder))
@pytest.mark.parametrize(("query", "key"), [(None, None), (" the", None), (None, "::"), (" cat", " The"), ("\n", '"')])
def test_top_units_by_pair_ranks_as_a_scan_of_all_pairs_does(
    reader: LakeReader, content: Content, query: str | None, key: str | None, by: PairOrder
) -> None:
    found = reader.top_units_by_pair(query, key, k=100, by=by)
    expected = rank_units(content, "token_pair", by, query, key)
    assert found.select("unit_id", "score", "query_token", "key_token").rows() == [
        (str(name), value, *on) for value, name, on, _ in expected
    ]
    names = (*FIGURES, "min_activation")
    assert found.select(names).rows() == [tuple(getattr(f, name) for name in names) for *_, f in expected]


def test_the_pair_cases_include_ones_with_units_and_ones_of_every_dataset(content: Content) -> None:
    ranked = rank_units(content, "token_pair", "max", None)
    assert {f"{name.model}/{name.component}" for _, name, _, _ in ranked} == {HEADS, PAIR_LATENTS}
    assert len(rank_units(content, "token_pair", "max", " the")) > 1


def test_equal_scores_stand_in_the_order_of_the_units_names(reader: LakeReader) -> None:
    twins = [f"{NEURONS}/0/3", f"{NEURONS}/1/9"]
    ranked = [u for u in reader.top_units(" the", k=100)["unit_id"].to_list() if u in twins]
    assert ranked == twins


def test_k_cuts_the_same_ranking(reader: LakeReader) -> None:
    assert reader.top_units(" the", k=3).equals(reader.top_units(" the", k=100).head(3))
    assert reader.top_units(" the", k=0).is_empty()


def test_filters_leave_the_ranking_of_what_they_keep(reader: LakeReader) -> None:
    everything = reader.top_units(" the", k=100, by="share").drop("rank")
    kept = reader.top_units(" the", k=100, by="share", model="gpt2-small", component="mlp_post_act", layer=1)
    assert kept.drop("rank").equals(everything.filter(model="gpt2-small", component="mlp_post_act", layer=1))
    assert 0 < kept.height < everything.height


def test_a_unit_without_the_token_in_its_random_sample_has_no_mean(reader: LakeReader) -> None:
    dead = f"{LATENTS}/0/1"
    assert dead in reader.top_units(" the", k=100)["unit_id"]
    assert dead not in reader.top_units(" the", k=100, by="mean")["unit_id"]


@pytest.mark.parametrize("token", [" the", "a token of no unit"])
@pytest.mark.parametrize("by", ["maximum", "", "MAX", None])
def test_another_order_is_an_error_even_where_nothing_is_found(reader: LakeReader, token: str, by: str | None) -> None:
    with pytest.raises(QueryError, match="by must be max, mean, relative or share"):
        reader.top_units(token, by=by)  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="by must be max, mean, relative or abs"):
        reader.top_units_by_pair(token, by=by)  # type: ignore[arg-type]


def test_top_tokens_ranks_a_units_tokens_by_their_strongest_activation(reader: LakeReader, content: Content) -> None:
    for name in content.units:
        if f"{name.model}/{name.component}" in PER_TOKEN:
            figures = content.figures[name]
            expected = sorted(figures, key=lambda on: (-figures[on].max_activation, on))
            found = reader.top_tokens(name, k=100)
            assert found["token"].to_list() == [token for (token,) in expected]
            assert found["rank"].to_list() == list(range(len(expected)))
            assert found.select(FIGURES).rows() == [
                tuple(getattr(figures[on], figure) for figure in FIGURES) for on in expected
            ]


def test_top_pairs_ranks_a_units_pairs_by_their_largest_absolute_activation(
    reader: LakeReader, content: Content
) -> None:
    for name in content.units:
        if f"{name.model}/{name.component}" not in PER_TOKEN:
            figures = content.figures[name]
            found = reader.top_pairs(name, k=10_000)
            strengths = [max(r["max_activation"], -r["min_activation"]) for r in found.iter_rows(named=True)]
            assert strengths == sorted(strengths, reverse=True)
            assert set(found.select("query_token", "key_token").rows()) == set(figures)
            assert found.height == len(figures)


@pytest.mark.parametrize("macro", ["top_tokens", "top_pairs", "unit_records"])
@pytest.mark.parametrize(
    "unit_id", ["", "5/131", "gpt2-small/mlp_post_act/5", "gpt2-small/mlp_post_act/x/1", "a/b/1/2/3"]
)
def test_a_text_that_is_no_unit_id_is_an_error(reader: LakeReader, macro: str, unit_id: str) -> None:
    with pytest.raises(QueryError, match="unit_id must be model/component/layer/unit"):
        reader.sql(f"FROM {macro}($1)", [unit_id])


def test_a_section_that_does_not_exist_is_an_error(reader: LakeReader) -> None:
    with pytest.raises(QueryError, match="section must be top, random or quantile"):
        reader.records(f"{NEURONS}/0/0", section="best")  # type: ignore[arg-type]


def test_near_tokens_offers_other_case_and_spaces_first_then_longer_words(reader: LakeReader) -> None:
    assert set(reader.near_tokens("THE", k=3)) == {" the", "the", " The"}
    assert reader.near_tokens("the", k=4)[-1] == " theory"
    assert reader.near_tokens(" ca") == [" cat"]
    assert reader.near_tokens("zzz") == []


def test_near_tokens_offers_what_a_misspelt_token_may_have_meant(reader: LakeReader) -> None:
    assert reader.near_tokens(" cta") == [" cat"]
    assert reader.near_tokens("theroy") == [" theory"]
    assert reader.near_tokens("thearix") == []
    assert reader.near_tokens("x" * 1_000_000) == []
