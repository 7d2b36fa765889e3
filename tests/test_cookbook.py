"""The cookbook's answers are those of the demo's lake; `python -m tests.cookbook` writes them anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

import warehouse
from tests.cookbook import PAGE, Example, read_examples, run_example, write_answers
from warehouse.reader import LakeReader

EXAMPLES = list(read_examples(PAGE.read_text("utf-8")))


@pytest.fixture(scope="module")
def demo_reader(demo: tuple[Path, str]) -> Iterator[LakeReader]:
    """The demo's lake, open."""
    folder, _ = demo
    with warehouse.open(folder / "demo/lake") as lake:
        yield lake


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.question)
def test_the_answer_on_the_page_is_the_lakes(example: Example, demo: tuple[Path, str], demo_reader: LakeReader) -> None:
    folder, _ = demo
    assert run_example(example, demo_reader, folder) == example.printed, "python -m tests.cookbook writes the page anew"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.question)
def test_an_answer_has_rows_and_is_not_cut_at_its_edge(example: Example) -> None:
    assert example.printed is not None
    lines = example.printed.splitlines()
    assert len(lines) > (2 if example.language == "sql" else 0)
    assert max(map(len, lines)) < 200


def test_there_are_many_questions_and_none_twice() -> None:
    questions = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("### ")]
    assert len(set(questions)) == len(questions) == len(EXAMPLES) >= 25
    assert all(question.endswith("?") for question in questions)


def test_every_macro_of_a_question_is_in_the_cookbook(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    page = PAGE.read_text("utf-8")
    with duckdb.connect(str(folder / "demo/lake/warehouse.duckdb"), read_only=True) as connection:
        macros = connection.sql(
            "SELECT function_name FROM duckdb_functions() WHERE NOT internal AND function_type = 'table_macro'"
        ).fetchall()
    # Others are made of these.
    made_of = {"pair_scores", "context_matches", "context_hits", "component_profiles", "unit_profile", "unit_pairs"}
    made_of |= {"splits", "search_explanations", "nearest_explanations"}  # asked in docs/explain.md
    made_of |= {"top_units_by_side"}
    alike = {"near_tokens", "top_units_by_query", "pair_map"}  # a neighbour's question, or a picture's figures
    assert {name for (name,) in macros if f"{name}(" not in page} == made_of | alike


def test_a_page_that_says_otherwise_is_mended(demo: tuple[Path, str], demo_reader: LakeReader) -> None:
    folder, _ = demo
    asked = "### One?\n\n```sql\nSELECT 1 AS one\n```\n"
    mended = f"{asked}\n```text\none\n───\n  1\n```\n\nProse.\n"
    assert write_answers(f"{asked}\n```text\nwrong\n```\n\nProse.\n", demo_reader, folder) == mended
    assert write_answers(f"{asked}\nProse.\n", demo_reader, folder) == mended
    assert write_answers(mended, demo_reader, folder) == mended
