"""The README's promises, run as they stand, on the demo's lake."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
import typer.main

from warehouse import cli
from warehouse.datasets import builtin_datasets, parse_registration

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ASKED = (
    "top", "unit", "similar", "coactive", "profile", "match", "head", "heads", "kinds", "tokens", "contexts",
    "sql", "check", "export", "status",
)  # fmt: skip
"""The commands that need nothing but a lake."""


def blocks(page: Path, language: str) -> list[str]:
    """Give a page's code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> Iterator[list[str]]:
    """Give the arguments of every `warehouse` command of a page."""
    for block in blocks(page, "console"):
        for line in re.findall(r"^\$ (warehouse .*)$", block, re.MULTILINE):
            yield shlex.split(line, comments=True)[1:]


def test_the_demo_shows_coverage_one_token_over_all_components_and_one_unit(demo: tuple[Path, str]) -> None:
    _, printed = demo
    assert "made up" in printed.splitlines()[0]
    assert "warehouse build gpt2-xl/mlp_post_act" in printed
    for key in builtin_datasets():
        assert re.search(rf"^ {key.replace('/', ' +')} +\d+", printed, re.MULTILINE), key
    ranked = re.findall(r"^ +\d+ +gpt2-\S+?/(\S+?)/\d+/\d+", printed, re.MULTILINE)
    assert len(set(ranked)) >= 5
    assert "top records" in printed


def test_the_demo_again_does_nothing_twice(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    parts = sorted((folder / "demo/lake").glob("*/model=*/**/*.parquet"))
    before = [path.stat().st_mtime_ns for path in parts]
    subprocess.run([sys.executable, "-m", "warehouse", "demo"], cwd=folder, capture_output=True, check=True)
    assert [path.stat().st_mtime_ns for path in parts] == before


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_shown_is_one(page: Path) -> None:
    shown = list(commands(page))
    assert shown or page.name != "README.md"
    for arguments in shown:
        command: Any = typer.main.get_command(cli.app)
        while hasattr(command, "commands"):
            command = command.commands[arguments[0]]
            arguments = arguments[1:]
        command.make_context("warehouse", list(arguments))  # exits with 2 where an option is not known


def test_the_questions_that_are_shown_have_answers(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    environment = os.environ | {"WAREHOUSE_LAKE": "demo/lake"}
    asked = [c for c in commands(ROOT / "README.md") if c[0] in ASKED]
    assert len(asked) >= 7
    for arguments in asked:
        if "--lake" in arguments:
            continue
        done = subprocess.run(
            [sys.executable, "-m", "warehouse", *arguments],
            cwd=folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (arguments, done.stderr)
        assert done.stdout or done.stderr


def test_the_python_that_is_shown_runs(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    (program,) = blocks(ROOT / "README.md", "python")
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True)


def test_the_sql_that_is_shown_runs_in_plain_duckdb(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    (text,) = blocks(ROOT / "README.md", "sql")
    with duckdb.connect(str(folder / "demo/lake/warehouse.duckdb"), read_only=True) as connection:
        statements = [s for s in text.split(";") if s.strip()]
        assert len(statements) == 3
        for statement in statements:
            assert connection.sql(statement).fetchall(), statement


def test_the_readme_names_every_view_and_macro(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    text = (ROOT / "README.md").read_text("utf-8")
    with duckdb.connect(str(folder / "demo/lake/warehouse.duckdb"), read_only=True) as connection:
        views = connection.sql("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        macros = connection.sql(
            "SELECT function_name FROM duckdb_functions() WHERE NOT internal AND function_type = 'table_macro'"
        ).fetchall()
    parts_of_others = {"pair_scores", "catalogue", "parts", "component_profiles", "unit_profile", "unit_pairs"}
    parts_of_others |= {"top_units_by_side", "context_excerpts"}
    for (name,) in views + macros:
        assert re.search(rf"`{name}[`(]", text) or name in parts_of_others, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_has_a_gap_to_fill(page: Path) -> None:
    assert not re.search(r"@[A-Z]+@", page.read_text("utf-8"))


def test_the_registration_that_is_shown_is_one() -> None:
    (text,) = blocks(ROOT / "docs/register.md", "toml")
    (dataset,) = parse_registration(text, "docs/register.md")
    assert dataset.key == "my-model/mlp_post_act"
    shown = tomllib.loads(text)["dataset"][0]
    assert set(shown) == set(dataset.__struct_fields__)
