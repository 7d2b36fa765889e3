"""Search over explanations: by words against a recount, by expression, by meaning, and with figures of the units."""

from __future__ import annotations

import io
import math
import re
import shutil
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import warehouse
from tests.indexes import failing_units, open_indexed
from tests.sql.lakes import XL, Content, make_siblings, write_lake
from warehouse import cli, embedding, explanation_search
from warehouse.catalogue import build_catalogue, read_sql
from warehouse.checks import run_checks
from warehouse.embedding import Embedder, MissingEmbedder
from warehouse.errors import QueryError, UnknownDataset
from warehouse.explain.answers import Answer, AnswerScore, write_answers
from warehouse.explain.embed import embed_explanations
from warehouse.lake import Lake
from warehouse.reader import LakeReader
from warehouse.records import ActivationRecord, NeuronRecord, UnitId

WORDS = [
    "royalty",
    "royalties",
    "kings",
    "the",
    "words",
    "related",
    "to",
    "creating",
    "created",
    "it's",
    "Été",
    "64",
    "-",
]
TEXTS = [
    "words related to royalty",
    "royalties, and the payment of royalties",
    "monarchs such as kings and queens",
    "the token ' king'",
    "Été: l'été",
    "!!! ...",
    "creating things; the act of creation; created objects",
    "numbers from 64 to 128",
]
Row = tuple[str, float]


def make_answers() -> list[Answer]:
    """Make 40 explanations of XL neurons, odd ones and equal ones among them, with scores from 0 to 0.9 or none."""
    texts = [*TEXTS, *(" ".join((WORDS * 7)[i : i + 2 + i % 9]) for i in range(0, 60, 2)), TEXTS[0], TEXTS[0]]
    return [
        Answer(
            UnitId.parse(f"{XL}/{2 + i % 2}/{i // 2}"),
            "a" if i % 3 else "b",
            text,
            explainer="gpt-4" if i % 2 else None,
            scores=(AnswerScore("ev_correlation", (i % 10) / 10),) if i % 4 else (),
        )
        for i, text in enumerate(texts)
    ]


def responding_to(token: str) -> NeuronRecord:
    record = ActivationRecord([" a", token], np.array([0, 4], np.float32))
    return NeuronRecord(most_positive_activation_records=[record])


@pytest.fixture(scope="module")
def answers() -> list[Answer]:
    return make_answers()


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, answers: list[Answer]) -> Lake:
    """A lake of published and other explanations, and of the activations of two of their units; do not write to it."""
    units = {UnitId.parse(f"{XL}/2/0"): responding_to(" queen"), UnitId.parse(f"{XL}/3/19"): responding_to(" king")}
    lake = write_lake(Lake(tmp_path_factory.mktemp("explained") / "lake"), Content(units, [], make_siblings()))
    write_answers(lake, answers)
    embed_explanations(lake, lambda done, total: None)
    return lake


@pytest.fixture(scope="module")
def reader(lake: Lake) -> Iterator[LakeReader]:
    with warehouse.open(lake.root) as reader:
        yield reader


@pytest.fixture
def own_lake(tmp_path: Path, lake: Lake) -> Lake:
    """A copy of the lake with its catalogue, that a test may change."""
    return Lake(shutil.copytree(lake.root, tmp_path / "lake"))


# the recount -------------------------------------------------------------------------------------------------------


def find_words(text: str) -> list[str]:
    """Take a text apart: letters and digits, without accents."""
    bare = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c)).lower()
    return "".join(c if c.isalpha() or c.isdigit() else " " for c in bare).split()


def has_vowel(text: str) -> bool:
    return any(c in "aeiouy" for c in text)


def stem(word: str) -> str:
    """Take the inflection off a word, step by step."""
    if len(word) < 3 or not (word.isascii() and word.isalpha() and word.islower()):
        return word
    if word.endswith(("sses", "ies")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    cut = None
    if word.endswith("eed"):
        before = word[:-3]
        if any(a in "aeiouy" and b not in "aeiouy" for a, b in zip(before, before[1:], strict=False)):
            word = word[:-1]
    elif word.endswith("ed") and has_vowel(word[:-2]):
        cut = word[:-2]
    elif word.endswith("ing") and has_vowel(word[:-3]):
        cut = word[:-3]
    if cut is not None:
        shape = "".join("v" if c in "aeiouy" else "c" for c in cut)
        if cut.endswith(("at", "bl", "iz")):
            cut += "e"
        elif len(cut) > 1 and cut[-1] == cut[-2] and cut[-1] in "bdfgmnprt":
            cut = cut[:-1]
        elif re.fullmatch("c+vc", shape) and cut[-1] not in "wx":
            cut += "e"
        word = cut
    if len(word) > 2 and word.endswith("y") and word[-2] not in "aeiou":
        word = word[:-1] + "i"
    return word


def rank_by_words(texts: Sequence[str], question: str) -> dict[int, float]:
    """Score texts by BM25, as the textbook has it; those that share no term are left out."""
    terms = [Counter(map(stem, find_words(text))) for text in texts]
    mean = sum(map(Counter.total, terms)) / len(texts)
    scores: dict[int, float] = {}
    for term in set(map(stem, find_words(question))):
        n = sum(term in found for found in terms)
        weight = math.log(1 + (len(texts) - n + 0.5) / (n + 0.5))
        for i, found in enumerate(terms):
            if found[term]:
                share = found[term] * 2.2 / (found[term] + 1.2 * (1 - 0.75 + 0.75 * found.total() / mean))
                scores[i] = scores.get(i, 0.0) + weight * share
    return scores


def explained(reader: LakeReader) -> list[dict[str, Any]]:
    return reader.sql("FROM explanations ORDER BY model, component, layer, unit, dataset, rank").rows(named=True)


def key_of(row: dict[str, Any], rank: str = "rank") -> tuple[str, str, int]:
    return row["unit_id"], row["dataset"], row[rank]


# by words ----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.from_regex(r"[a-z]{0,6}(e|a|t|l|b|iz|nn|gg|ss|y|i)?(s|es|ies|eed|ed|ing|y)?", fullmatch=True)))
def test_a_stem_is_what_stays_after_each_step(words: list[str]) -> None:
    macros = read_sql("macros")
    with duckdb.connect() as connection:
        connection.execute(macros["word_stem"])
        found = connection.execute(
            "SELECT list_transform(CAST($words AS VARCHAR[]), lambda word: word_stem(word))", {"words": words}
        ).fetchall()
    assert found == [([stem(word) for word in words],)]


@pytest.mark.parametrize(
    "words",
    [
        ("royalty", "royalties"), ("create", "creates", "created", "creating"), ("hop", "hops", "hopped", "hopping"),
        ("hope", "hoped", "hoping"), ("class", "classes"), ("agree", "agreed"), ("king", "kings"), ("size", "sized"),
    ],
)  # fmt: skip
def test_inflections_of_a_word_share_a_stem(words: tuple[str, ...]) -> None:
    with duckdb.connect() as connection:
        connection.execute(read_sql("macros")["word_stem"])
        stems = connection.execute("SELECT DISTINCT word_stem(unnest($words))", {"words": list(words)}).fetchall()
    assert len(stems) == 1


@settings(max_examples=40, deadline=None)
@given(question=st.lists(st.sampled_from([*WORDS, "QUEENS", "nowhere", "l'ete", "é", ""]), max_size=5).map(" ".join))
def test_the_order_and_the_relevance_are_those_of_a_recount(reader: LakeReader, question: str) -> None:
    rows = explained(reader)
    expected = rank_by_words([row["explanation"] for row in rows], question)
    order = sorted(
        expected, key=lambda i: (-round(expected[i], 9), rows[i]["score"] is None, -(rows[i]["score"] or 0), i)
    )
    found = reader.search_explanations(question, k=1000).rows(named=True)
    assert [key_of(row, "explanation_rank") for row in found] == [key_of(rows[i]) for i in order]
    assert [row["relevance"] for row in found] == pytest.approx([expected[i] for i in order])
    assert [row["rank"] for row in found] == list(range(len(found)))


def test_a_row_says_what_the_view_says(reader: LakeReader) -> None:
    (row,) = reader.search_explanations("monarchs").rows(named=True)
    (viewed,) = reader.sql("FROM explanations WHERE contains(explanation, 'monarchs')").rows(named=True)
    shared = row.keys() & viewed.keys() - {"rank"}
    assert {"unit_id", "layer", "explanation", "explainer", "score", "score_kind", "origin", "created_at"} < shared
    assert {name: row[name] for name in shared} == {name: viewed[name] for name in shared}


@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        ({"layer": 3}, lambda row: row["layer"] == 3),
        ({"model": "gpt2-small"}, lambda row: False),
        ({"component": "mlp_post_act"}, lambda row: True),
        ({"min_score": 0.5}, lambda row: (row["score"] or 0) >= 0.5),
        ({"origin": "b"}, lambda row: row["origin"] == "b"),
        ({"explainer": "gpt-4"}, lambda row: row["explainer"] == "gpt-4"),
        ({"score_kind": "f1"}, lambda row: False),
    ],
)
@pytest.mark.parametrize("how", ["words", "regex", "meaning"])
def test_filters_leave_rows_out_and_change_nothing_else(
    reader: LakeReader, how: Any, filters: dict[str, Any], passes: Any
) -> None:
    everything = reader.search_explanations("royalties", how, k=1000).drop("rank")
    expected = [row for row in everything.rows(named=True) if passes(row)]
    found = reader.search_explanations("royalties", how, k=1000, **filters).drop("rank")
    assert everything.height and found.rows(named=True) == expected
    assert reader.search_explanations("royalties", how, 2, **filters).height == min(2, len(expected))


def test_a_regular_expression_finds_what_it_matches_by_score(reader: LakeReader) -> None:
    found = reader.search_explanations(r"\bking'|[0-9]{3}", "regex").rows(named=True)
    assert {row["explanation"] for row in found} == {TEXTS[3], TEXTS[7]}
    assert [row["score"] for row in found] == sorted((row["score"] for row in found), reverse=True)


@pytest.mark.parametrize(
    ("how", "text", "where", "reason"),
    [
        ("regex", "k(", None, "missing \\)"),
        ("bm25", "cats", None, "how must be words or regex"),
        ("words", "royalty", "nope = 1", "nope"),
        ("words", "royalty", "score > 0); DROP TABLE explanation_texts; --", "closes a bracket that it has not opened"),
        ("words", "royalty", "", "^the condition '': it is empty: give one as "),
        ("words", "royalty", "true) ORDER BY (score", r"closes a bracket that it has not opened"),
        ("words", "royalty", "unit_id IN (FROM read_csv('/etc/passwd'))", "disabled|permission|not allowed|Permission"),
    ],
)
def test_a_wrong_question_says_what_is_wrong(reader: LakeReader, how: Any, text: str, where: str, reason: str) -> None:
    with pytest.raises(QueryError, match=reason):
        reader.search_explanations(text, how, where=where)


def test_a_model_that_no_dataset_has_is_named(reader: LakeReader) -> None:
    with pytest.raises(UnknownDataset, match="no model 'gpt3'"):
        reader.search_explanations("royalty", model="gpt3")


# with figures of the units -----------------------------------------------------------------------------------------


def test_explanations_about_royalty_of_units_that_fire_on_another_token(reader: LakeReader) -> None:
    about = reader.sql(
        """
        SELECT s.unit_id, s.score, u.top_token
        FROM search_explanations('royalty', k := NULL, min_score := 0.1) AS s
        INNER JOIN units AS u USING (unit_id)
        WHERE u.top_token <> ' king'
        ORDER BY s.rank
        """
    )
    everywhere = reader.search_explanations("royalty", k=1000)["unit_id"].to_list()
    assert {f"{XL}/2/0", f"{XL}/3/19"} < set(everywhere)
    assert about.is_empty()  # that of layer 2 has no score
    found = reader.search_explanations("royalty", where="top_token <> ' king' -- and no other")
    assert found["unit_id"].to_list() == [f"{XL}/2/0"]
    assert found["rank"].to_list() == [0]
    scored = reader.search_explanations("royalty", where="top_token = ' king' AND score > 0.5")
    assert scored.select("unit_id", "score").rows() == [(f"{XL}/3/19", 0.9)]


# by meaning --------------------------------------------------------------------------------------------------------


def test_embeddings_are_those_of_the_models_own_library() -> None:
    found = Embedder().embed(["royalty", "words related to kings and queens", " royalty\n" * 3, "x " * 1000])
    assert found.dtype == np.float32 and found.shape == (4, embedding.SIZE)
    assert np.linalg.norm(found, axis=1) == pytest.approx([1] * 4, abs=1e-6)
    assert found[0, :4] == pytest.approx([-0.0065638, 0.0653954, 0.0378924, -0.0180459], abs=1e-5)
    assert found[1, :4] == pytest.approx([0.0442368, -0.0174711, -0.0168758, -0.0085269], abs=1e-5)
    assert Embedder().embed([]).shape == (0, embedding.SIZE)


def test_meaning_finds_what_shares_no_word_and_orders_all_by_the_cosine(reader: LakeReader) -> None:
    found = reader.search_explanations("the ruling family", "meaning", k=1000)
    assert TEXTS[2] in found["explanation"].head(4)
    texts = found["explanation"].to_list()
    vectors = Embedder().embed(["the ruling family", *texts])
    assert found["relevance"].to_list() == pytest.approx((vectors[1:] @ vectors[0]).tolist(), abs=1e-5)
    assert found["relevance"].is_sorted(descending=True)
    assert len(texts) == reader.sql("FROM explanations").height


def test_an_embedding_of_the_lake_can_be_asked_for_its_like_in_sql(reader: LakeReader) -> None:
    like = reader.sql(
        """
        SELECT explanation FROM nearest_explanations(
          (SELECT any_value(embedding) FROM explanation_vectors
           WHERE explanation_hash = md5_number_lower('monarchs such as kings and queens')), k := 1)
        """
    )
    assert like.rows() == [(TEXTS[2],)]


def test_each_text_is_embedded_once_and_only_new_ones_later(own_lake: Lake, answers: list[Answer]) -> None:
    n_texts = len({answer.explanation for answer in answers} | {" cats", " dogs"})
    with open_indexed(own_lake) as connection:
        ((n_vectors,),) = connection.execute("SELECT count(*) FROM explanation_vectors").fetchall()
    assert n_vectors == n_texts
    assert embed_explanations(own_lake, lambda done, total: None) == 0
    write_answers(
        own_lake, [replace(answers[0], explanation="entirely new", origin="c"), replace(answers[0], origin="c")]
    )
    reports: list[tuple[int, int]] = []
    assert embed_explanations(own_lake, lambda done, total: reports.append((done, total))) == 1
    assert reports == [(1, 1)]
    assert len(own_lake.batches("embeddings")) == 2
    with warehouse.open(own_lake.root) as reader:
        assert reader.search_explanations("entirely new", "meaning", 1)["explanation"].to_list() == ["entirely new"]


def test_without_embeddings_or_the_extra_meaning_says_what_to_do(
    tmp_path: Path, answers: list[Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(tmp_path / "lake")
    lake.create()
    write_answers(lake, answers)
    with warehouse.open(lake.root) as reader:
        assert reader.search_explanations("monarchs").height == 1
        with pytest.raises(QueryError, match="make them with 'warehouse explain embed'"):
            reader.search_explanations("monarchs", "meaning")
    monkeypatch.setattr(embedding, "_PACKAGE", "no_such_package")
    with pytest.raises(MissingEmbedder, match=r"pip install 'activation-warehouse\[semantic\]'"):
        embed_explanations(lake, lambda done, total: None)


# kept up to date ---------------------------------------------------------------------------------------------------


def searchable(lake: Lake) -> list[tuple[object, ...]]:
    """Give all that search knows of each explanation, without numbers that depend on the order of builds."""
    with open_indexed(lake) as connection:
        return connection.execute(
            """
            SELECT
              t.model, t.component, t.layer, t.unit, t.dataset, t.rank, t.explanation, t.score, t.n_words,
              (SELECT list((v.term, v.n_explanations, r.n_in_text, r.n_words) ORDER BY v.term)
               FROM explanation_terms AS r INNER JOIN explanation_vocabulary AS v USING (term_number)
               WHERE r.explanation_number = t.explanation_number)
            FROM explanation_texts AS t
            ORDER BY ALL
            """
        ).fetchall()


def numbers(lake: Lake) -> dict[object, object]:
    with open_indexed(lake) as connection:
        rows = connection.execute("SELECT (dataset, unit, layer, rank), explanation_number FROM explanation_texts")
        return {str(key): number for key, number in rows.fetchall()}


def test_a_build_adds_and_drops_what_changed_and_the_rest_stays(
    own_lake: Lake, answers: list[Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanation_search, "MAX_RUNS", 3)
    before = numbers(own_lake)
    for i in range(3):
        write_answers(own_lake, [replace(answers[i], explanation=f"kings of batch {i}", origin="later")], f"later-{i}")
        build_catalogue(own_lake)
        assert before.items() <= numbers(own_lake).items()
    write_answers(own_lake, [replace(answers[1], explanation="told anew", origin="later")], "later-1")
    Path(own_lake.root, "answers", "later-0.parquet").unlink()
    build_catalogue(own_lake)
    assert before.items() <= numbers(own_lake).items()
    kept = searchable(own_lake)
    assert {row[6] for row in kept if str(row[4]).startswith("answers/later")} == {"told anew", "kings of batch 2"}
    assert not [check for check in run_checks(own_lake) if check.n_failing]
    own_lake.catalogue_path.unlink()
    build_catalogue(own_lake)
    assert searchable(own_lake) == kept


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM explanation_terms WHERE explanation_number = 3",
        "UPDATE explanation_terms SET n_in_text = 7 WHERE explanation_number = 3",
        "UPDATE explanation_texts SET score = 17 WHERE explanation_number = 3",
        "DELETE FROM explanation_texts WHERE explanation_number = 3",
    ],
)
def test_the_check_names_a_unit_that_is_searched_by_other_terms(tmp_path: Path, lake: Lake, damage: str) -> None:
    copy = tmp_path / "warehouse.duckdb"
    shutil.copyfile(lake.catalogue_path, copy)
    with duckdb.connect(str(copy)) as connection:
        ((unit,),) = connection.execute(
            "SELECT concat_ws('/', model, component, layer, unit) FROM explanation_texts WHERE explanation_number = 3"
        ).fetchall()
        connection.execute(damage)
        query = read_sql("checks")["explanation_terms_agree"].rstrip().removesuffix(";")
        failing = connection.execute(f"SELECT concat_ws('/', model, component, layer, unit) FROM ({query})").fetchall()
    assert failing == [(unit,)]
    assert failing_units(lake, "explanation_terms_agree") == []


# the command -------------------------------------------------------------------------------------------------------


def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["warehouse", *arguments])
    try:
        cli.main()
        code = 0
    except SystemExit as e:
        code = int(e.code or 0)
    out, err = capfd.readouterr()
    return code, out, err


def test_the_command_prints_what_it_found(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WAREHOUSE_LAKE", lake.root)
    code, out, err = run(monkeypatch, capfd, "search", "queens")
    assert (code, err) == (0, "")
    assert re.search(rf"0\s+{XL}/2/1\s+0\.2\s+{TEXTS[2]}", out), out
    code, out, _ = run(monkeypatch, capfd, "search", "royalty", "--where", "top_token <> ' king'", "--format", "csv")
    assert pl.read_csv(io.StringIO(out))["unit_id"].to_list() == [f"{XL}/2/0"]
    code, out, _ = run(monkeypatch, capfd, "search", "the ruling family", "--how", "meaning", "-k", "3")
    assert code == 0 and TEXTS[2] in out


def test_the_command_says_why_there_is_nothing(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    at = ("--lake", lake.root)
    assert run(monkeypatch, capfd, "search", "nowhere", *at)[::2] == (
        1, "error: no explanation here has a word of 'nowhere': --how meaning looks for the like of it\n",
    )  # fmt: skip
    assert run(monkeypatch, capfd, "search", "royalty", "--min-score", "2", *at)[::2] == (
        1, "error: explanations match, but none that passes these filters\n",
    )  # fmt: skip
    empty = write_lake(Lake(tmp_path / "lake"), Content({UnitId.parse(f"{XL}/0/0"): responding_to(" king")}))
    code, _, err = run(monkeypatch, capfd, "search", "royalty", "--lake", empty.root)
    assert code == 1 and "the lake has no explanations" in err and err.count("\n") == 1


def test_an_import_is_searchable_at_once_and_says_what_it_did(
    own_lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "mine.csv"
    source.write_text(f"unit_id,explanation\n{XL}/4/4,penguins\n{XL}/99/4,penguins\n")
    code, _, err = run(monkeypatch, capfd, "explain", "import", str(source), "--origin", "me", "--lake", own_lake.root)
    assert code == 0
    assert f"{source}:3: {XL}/99/4 is out of range" in err
    assert err.endswith("1 explanations added, 0 known before, 1 rows refused, from 1 files\n")
    assert f"{XL}/4/4" in run(monkeypatch, capfd, "search", "penguin", "--lake", own_lake.root)[1]
    wrong = run(monkeypatch, capfd, "explain", "import", str(source), "--dataset", "gpt9/mlp", "--lake", own_lake.root)
    assert wrong[0] == 1 and "no dataset 'gpt9/mlp': known are gpt2-small/attn_write_norm" in wrong[2]
