"""Answers: batches that are whole, are written once, and become explanations."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

import warehouse
from tests.indexes import failing_units
from warehouse.catalogue import build_catalogue, is_current
from warehouse.checks import run_checks
from warehouse.errors import LakeError
from warehouse.explain.answers import (
    LONGEST_TEXT,
    Answer,
    AnswerScore,
    AnswerStatus,
    answer_key,
    read_keys,
    write_answers,
)
from warehouse.lake import Lake
from warehouse.records import UnitId

UNIT = UnitId("gpt2-small", "mlp_post_act", 5, 131)
OTHER = UnitId("gpt2-small", "mlp_post_act", 5, 132)
NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)
CATS = Answer(
    UNIT,
    "run-a",
    " cats",
    "a-model",
    scores=(AnswerScore("ev_correlation", 0.75, 0.5, 1.0, 10), AnswerScore("rsquared", None), AnswerScore("f1", 0.5)),
    created_at=NOON,
    prompt_tokens=100,
    completion_tokens=7,
    cost=0.25,
    run_id="a",
)


def make_lake(folder: Path, *batches: list[Answer]) -> Lake:
    lake = Lake(folder / "lake")
    lake.create()
    for batch in batches:
        write_answers(lake, batch)
    build_catalogue(lake)
    return lake


def ask(lake: Lake, query: str) -> pl.DataFrame:
    with warehouse.open(lake.root) as reader:
        return reader.sql(query)


def test_good_answers_are_explanations_with_their_scores_and_failures_are_answers_only(tmp_path: Path) -> None:
    refused = Answer(OTHER, "run-a", status="refused", error="the model refused", prompt_tokens=90, run_id="a")
    lake = make_lake(tmp_path, [CATS, refused, replace(CATS, explanation=" dogs", scores=())])
    assert ask(
        lake,
        "SELECT unit_id, rank, explanation, explainer, score, score_kind, origin, created_at, score_low, score_high, "
        "n_scored FROM explanations ORDER BY rank",
    ).rows() == [
        (str(UNIT), 0, " cats", "a-model", 0.75, "ev_correlation", "run-a", NOON, 0.5, 1.0, 10),
        (str(UNIT), 1, " dogs", "a-model", None, None, "run-a", NOON, None, None, None),
    ]
    scores = ask(
        lake,
        "SELECT s.score_kind, s.score, s.n_scored, e.explanation FROM explanation_scores AS s "
        "INNER JOIN explanations AS e USING (dataset, unit_id, rank) ORDER BY ALL",
    )
    assert scores.rows() == [("ev_correlation", 0.75, 10, " cats"), ("f1", 0.5, None, " cats")]
    answers = "SELECT unit_id, status, error, explanation, prompt_tokens, cost, run_id FROM answers ORDER BY ALL"
    assert ask(lake, answers).rows() == [
        (str(UNIT), "ok", None, " cats", 100, 0.25, "a"),
        (str(UNIT), "ok", None, " dogs", 100, 0.25, "a"),
        (str(OTHER), "refused", "the model refused", None, 90, None, "a"),
    ]
    assert not [check for check in run_checks(lake) if check.n_failing]


def test_what_runs_say_again_is_one_explanation_the_newest_with_the_newest_score_of_each_kind(tmp_path: Path) -> None:
    later = replace(
        CATS, scores=(AnswerScore("f1", 0.25), AnswerScore("r2", 0.5)), created_at=NOON + timedelta(hours=1)
    )
    unscored = replace(CATS, scores=(), created_at=NOON + timedelta(hours=2), run_id="b")
    imported = replace(CATS, run_id=None, created_at=None)
    lake = make_lake(tmp_path, [CATS, replace(CATS, explanation=" dogs", explainer=None, scores=())], [later])
    newest = write_answers(lake, [unscored])
    write_answers(lake, [imported, replace(imported, scores=())])
    columns = "explanation, score_kind, score, created_at, dataset"
    for created_at in (unscored.created_at, later.created_at):
        build_catalogue(lake)
        found = ask(lake, f"SELECT {columns} FROM explanations WHERE explanation = ' cats' ORDER BY ALL")
        assert found.drop("dataset").rows() == [
            (" cats", "ev_correlation", 0.75, None),
            (" cats", "f1", 0.25, created_at),
            (" cats", None, None, None),
        ]
        assert ask(lake, f"SELECT {columns} FROM search_explanations('cats') ORDER BY ALL").equals(found)
        scores = ask(lake, f"SELECT score_kind, score FROM explanation_scores WHERE dataset = '{found['dataset'][1]}'")
        assert sorted(scores.rows()) == [("ev_correlation", 0.75), ("f1", 0.25), ("r2", 0.5)]
        for check in ("explanation_terms_agree", "explanation_scores_agree", "explanation_ranks_without_gaps"):
            assert failing_units(lake, check) == []
        Path(lake.root, "answers", f"{newest}.parquet").unlink(missing_ok=True)


def test_the_same_answers_are_one_batch_and_other_origins_stay_beside_them(tmp_path: Path) -> None:
    other = replace(CATS, origin="run-b", explanation=" felines")
    lake = make_lake(tmp_path, [CATS], [CATS], [other])
    assert ask(lake, "SELECT origin, explanation, rank FROM explanations ORDER BY ALL").rows() == [
        ("run-a", " cats", 0),
        ("run-b", " felines", 0),
    ]
    assert read_keys(lake).tolist() == sorted([answer_key(CATS), answer_key(other)])


def test_a_batch_that_is_new_or_written_again_makes_the_catalogue_outdated(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, [CATS])
    assert is_current(lake)
    write_answers(lake, [replace(CATS, unit_id=OTHER)], "run-a-000001")
    assert not is_current(lake)
    build_catalogue(lake)
    assert is_current(lake)
    write_answers(lake, [CATS, replace(CATS, unit_id=OTHER)], "run-a-000001")
    assert not is_current(lake)


def test_what_no_table_can_hold_reads_as_unknown(tmp_path: Path) -> None:
    scores = (AnswerScore("a", math.nan, -math.inf, math.inf), AnswerScore("b", 0.5))
    lake = make_lake(tmp_path, [Answer(UNIT, "x\ud800", "a \udfff b", scores=scores)])
    found = ask(lake, "SELECT origin, explanation, score, score_low, score_high FROM explanations")
    assert found.rows() == [("x\ufffd", "a \ufffd b", None, None, None)]
    assert ask(lake, "SELECT score_kind, score FROM explanation_scores").rows() == [("b", 0.5)]


BAD: list[tuple[Answer, str]] = [
    (replace(CATS, explanation=None), "status is ok, and its explanation missing"),
    (Answer(UNIT, "x", "cats", status="failed"), "status is failed, and its explanation there"),
    (replace(CATS, explanation=" \n"), "an explanation of 2 characters"),
    (replace(CATS, explanation="x" * (LONGEST_TEXT + 1)), "an explanation of 65,537 characters"),
    (replace(CATS, origin=""), "origin, explainer, run and kinds of score have 1 to 200"),
    (replace(CATS, scores=(AnswerScore("a", 1), AnswerScore("a", 2))), "2 scores of 1 kinds"),
    (replace(CATS, created_at=datetime(2026, 1, 1)), "created_at has no time zone"),
]


@pytest.mark.parametrize(("answer", "fault"), BAD)
def test_an_answer_that_contradicts_itself_is_refused_and_nothing_is_written(
    tmp_path: Path, answer: Answer, fault: str
) -> None:
    lake = Lake(tmp_path / "lake")
    lake.create()
    with pytest.raises(LakeError, match=fault):
        write_answers(lake, [CATS, answer])
    assert lake.batches("answers") == {}


@pytest.mark.parametrize("name", ["", "../answers", "a/b", ".hidden", "a b", "x" * 200])
def test_a_batch_is_named_so_that_it_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    lake = Lake(tmp_path / "lake")
    lake.create()
    with pytest.raises(LakeError, match="is no name of a batch"):
        write_answers(lake, [CATS], name)
    assert [path.name for path in (tmp_path / "lake").iterdir()] == [".tmp"]


def test_answers_of_every_status_can_be_kept(tmp_path: Path) -> None:
    statuses: list[AnswerStatus] = ["failed", "refused", "unfit", "over_budget"]
    lake = make_lake(tmp_path, [Answer(UNIT, "x", status=status, error="so") for status in statuses])
    assert ask(lake, "SELECT status, rank FROM answers").rows() == [(status, None) for status in statuses]
    assert ask(lake, "FROM explanations").is_empty()
