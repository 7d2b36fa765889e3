"""The commands that ask questions across units: they print what the reader's methods answer, or say why not."""

from __future__ import annotations

import json
from typing import Any

import pytest

import warehouse
from tests.builds import Run
from warehouse.lake import Lake
from warehouse.mirror import FAMOUS_TOKEN

HEAD = "gpt2-small/attn_write_norm/0/0"
PLANTED_KEY = " France"


def answer(run: Run, *arguments: str) -> list[dict[str, Any]]:
    """Give the rows of an answer as JSON."""
    code, out, err = run(*arguments, "--format", "json")
    assert code == 0, err
    rows: list[dict[str, Any]] = json.loads(out)
    return rows


def test_top_of_several_tokens_takes_them_together(run: Run, built_lake: Lake) -> None:
    rows = answer(run, "top", FAMOUS_TOKEN, " the", "-k", "5")
    with warehouse.open(built_lake.root) as reader:
        expected = reader.top_units_of_tokens([FAMOUS_TOKEN, " the"], 5)
    assert [row["unit_id"] for row in rows] == expected["unit_id"].to_list()
    (strongest,) = answer(run, "top", FAMOUS_TOKEN, " the", "-k", "1", "--by", "tokens")
    assert strongest["n_tokens"] == 2


def test_top_but_not_leaves_out_what_the_other_token_moves(run: Run) -> None:
    strong = {row["unit_id"]: row["max_activation"] for row in answer(run, "top", FAMOUS_TOKEN, "-k", "500")}
    other = {row["unit_id"]: row["max_activation"] for row in answer(run, "top", " the", "-k", "500")}
    kept = {row["unit_id"] for row in answer(run, "top", FAMOUS_TOKEN, "--but-not", " the", "-k", "500")}
    assert kept == {unit_id for unit_id, most in strong.items() if other.get(unit_id, 0) <= most / 10}
    assert 0 < len(kept) < len(strong)


@pytest.mark.parametrize(
    ("arguments", "query", "key"),
    [
        (["--key", PLANTED_KEY], None, PLANTED_KEY),
        (["--query", FAMOUS_TOKEN], FAMOUS_TOKEN, None),
        ([FAMOUS_TOKEN, "--key", PLANTED_KEY], FAMOUS_TOKEN, PLANTED_KEY),
        (["--query", FAMOUS_TOKEN, "--key", PLANTED_KEY], FAMOUS_TOKEN, PLANTED_KEY),
    ],
)
def test_top_ranks_by_a_pair_or_one_side_of_it(
    run: Run, arguments: list[str], query: str | None, key: str | None
) -> None:
    rows = answer(run, "top", *arguments)
    assert rows
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert query is None or {row["query_token"] for row in rows} == {query}
    assert key is None or {row["key_token"] for row in rows} == {key}


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ([], "give a token"),
        ([FAMOUS_TOKEN, " the", "--key", " a"], "one query token"),
        ([FAMOUS_TOKEN, "--query", " a", "--key", " b"], "one query token"),
        ([FAMOUS_TOKEN, "--key", " a", "--but-not", " b"], "no --but-not"),
        ([FAMOUS_TOKEN, " the", "--but-not", " b"], "goes with one TOKEN"),
        ([FAMOUS_TOKEN, "--but-not", " b", "--by", "mean"], "ranks by max"),
    ],
)
def test_top_refuses_what_is_no_ranking_or_two(run: Run, arguments: list[str], hint: str) -> None:
    code, out, err = run("top", *arguments)
    assert (code, out) == (2, "")
    assert hint in " ".join(err.replace("│", " ").split())


def test_match_gives_each_unit_its_most_similar_of_the_other_component(run: Run, built_lake: Lake) -> None:
    rows = answer(run, "match", "mlp_post_act_ae_v1", "mlp_post_act_ae_v4", "--layer-a", "0", "--layer-b", "1")
    assert rows
    assert {row["unit_id"].rpartition("/")[0] for row in rows} == {"gpt2-small/mlp_post_act_ae_v1/0"}
    assert {row["match_unit_id"].rpartition("/")[0] for row in rows} == {"gpt2-small/mlp_post_act_ae_v4/1"}
    with warehouse.open(built_lake.root) as reader:
        for row in rows[:2]:
            (nearest,) = reader.similar_units(row["unit_id"], 1, "gpt2-small", "mlp_post_act_ae_v4", 1).to_dicts()
            assert nearest["score"] == pytest.approx(row["score"])


def test_coactive_ranks_what_fires_at_the_same_positions(run: Run, built_lake: Lake) -> None:
    with warehouse.open(built_lake.root) as reader:
        (unit_id,) = reader.top_units(FAMOUS_TOKEN, 1, "gpt2-xl")["unit_id"]
        expected = reader.coactive_units(unit_id, 5, by="share")
    rows = answer(run, "coactive", unit_id, "-k", "5", "--by", "share")
    assert rows
    assert [row["unit_id"] for row in rows] == expected["unit_id"].to_list()


def test_head_counts_each_distance_of_its_pairs(run: Run) -> None:
    rows = answer(run, "head", HEAD)
    assert [row["distance"] for row in rows] == list(range(len(rows)))
    assert sum(row["share"] for row in rows) == pytest.approx(1)


def test_similar_by_texts_counts_the_top_texts_that_units_share(run: Run, built_lake: Lake) -> None:
    with warehouse.open(built_lake.root) as reader:
        expected = reader.sql(
            "WITH texts AS (SELECT DISTINCT unit_id, section, tokens FROM records AS r "
            "INNER JOIN datasets AS d USING (model, component) WHERE d.per = 'token') "
            "SELECT a.unit_id AS asked, b.unit_id, count(DISTINCT a.tokens) AS n FROM texts AS a "
            "INNER JOIN texts AS b ON a.tokens = b.tokens AND a.unit_id <> b.unit_id "
            "WHERE a.section = 'top' AND b.section = 'top' GROUP BY ALL ORDER BY n DESC, asked, b.unit_id LIMIT 1"
        ).row(0)
    rows = answer(run, "similar", expected[0], "--by", "texts", "-k", "500")
    assert (expected[1], expected[2]) in {(row["unit_id"], row["n_shared_texts"]) for row in rows}
    assert max(row["n_shared_texts"] for row in rows) == expected[2]


def test_contexts_rank_units_by_the_number_of_texts(run: Run, built_lake: Lake) -> None:
    rows = answer(run, "contexts", FAMOUS_TOKEN, "--units", "texts", "-k", "500")
    with warehouse.open(built_lake.root) as reader:
        places = reader.contexts(FAMOUS_TOKEN, k=100_000)
    assert rows[0]["score"] == rows[0]["n_texts"] == max(row["n_texts"] for row in rows)
    assert {row["unit_id"] for row in rows} == set(places["unit_id"])


@pytest.mark.parametrize(("unit_id", "column"), [("gpt2-xl/mlp_post_act/0/0", "token"), (HEAD, "key_token")])
def test_profile_ranks_the_tokens_of_a_neuron_and_the_pairs_of_a_head(run: Run, unit_id: str, column: str) -> None:
    rows = answer(run, "profile", unit_id, "-k", "7")
    assert [row["rank"] for row in rows] == list(range(7))
    assert rows[0][column]


def test_heads_rank_by_the_pattern_that_is_asked_for(run: Run, built_lake: Lake) -> None:
    rows = answer(run, "heads", "--by", "same_token", "--component", "attn_write_norm", "-k", "100")
    parts = [row["same_token"] for row in rows if row["same_token"] is not None]
    assert parts == sorted(parts, reverse=True)
    with warehouse.open(built_lake.root) as reader:
        assert {row["unit_id"] for row in rows} == set(reader.head_patterns(component="attn_write_norm")["unit_id"])


def test_kinds_count_the_units_that_they_list(run: Run) -> None:
    for kind in ("dead", "near_dead", "one_token", "duplicate"):
        counted = {
            (row["model"], row["component"], row["layer"]): row[kind] for row in answer(run, "kinds") if row[kind]
        }
        code, out, err = run("kinds", kind, "--format", "json")
        if not counted:
            assert (code, out) == (1, "") and f"is {kind}" in err
            continue
        listed = {(row["model"], row["component"], row["layer"], row["unit"]) for row in json.loads(out)}
        assert {place: sum(each[:3] == place for each in listed) for place in counted} == counted


@pytest.mark.parametrize(
    ("pattern", "how"),
    [
        (FAMOUS_TOKEN.strip().upper(), "loose"),
        (FAMOUS_TOKEN, "exact"),
        (FAMOUS_TOKEN[:4], "prefix"),
        (f"^ ?{FAMOUS_TOKEN.strip()}$", "regex"),
    ],
)
def test_tokens_finds_a_token_in_every_way_of_asking(run: Run, pattern: str, how: str) -> None:
    assert FAMOUS_TOKEN in {row["token"] for row in answer(run, "tokens", pattern, "--how", how)}


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["top", FAMOUS_TOKEN, "--but-not", FAMOUS_TOKEN], f"every unit that is active on '{FAMOUS_TOKEN}' is so on"),
        (["top", "--key", "no such token"], "no such token"),
        (["top", FAMOUS_TOKEN, " the", "--layer", "7"], "nothing of --layer 7 was built yet"),
        (["top", FAMOUS_TOKEN, FAMOUS_TOKEN + "s"], f"like '{FAMOUS_TOKEN}s' are '{FAMOUS_TOKEN}'"),
        (["top", FAMOUS_TOKEN, "--but-not", FAMOUS_TOKEN + "s"], f"like '{FAMOUS_TOKEN}s' are '{FAMOUS_TOKEN}'"),
        (["top", FAMOUS_TOKEN, " the", "--by", "mean"], "by must be max, share or tokens"),
        (["contexts", "capital of Frnce"], f"like ' Frnce' are '{PLANTED_KEY}'"),
        (["match", "mlp_post_act", "mlp_post_actt"], "did you mean mlp_post_act"),
        (
            ["match", "mlp_post_act", "mlp_post_act_ae_v1", "--layer-b", "7"],
            "mlp_post_act_ae_v1, --layer 7 was built yet",
        ),
        (["coactive", "gpt2-xl/mlp_post_act/7/2"], "was not built yet"),
        (["coactive", "gpt2-xl/mlp_post_act/0/0", "--by", "loudness"], "count or share"),
        (["head", "gpt2-xl/mlp_post_act/0/0"], "is per token"),
        (["head", "gpt2-small/attn_write_norm/7/0"], "was not built yet"),
        (["heads", "--component", "mlp_post_act"], "is per token pair"),
        (["kinds", "--layer", "7"], "nothing of --layer 7 was built yet"),
        (["profile", "gpt2-xl/mlp_post_act/7/2"], "was not built yet"),
        (["tokens", "Farnce"], f"'{PLANTED_KEY}'"),
        (["tokens", "(", "--how", "regex"], "missing )"),
    ],
)
def test_an_empty_answer_is_one_line_that_says_what_there_is(run: Run, arguments: list[str], hint: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert hint in err
