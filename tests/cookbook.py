"""The cookbook page: `python -m tests.cookbook` makes the demo, and writes its answers into docs/cookbook.md anew."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from rich.console import Console

import warehouse
from warehouse.output import render
from warehouse.reader import LakeReader

PAGE = Path(__file__).parent.parent / "docs" / "cookbook.md"
_WIDTH = 200
_EXAMPLE = re.compile(r"^```(sql|python|sh)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
_QUESTION = re.compile(r"^### (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Example:
    """A program of the page, and what the page says that it prints.

    Attributes:
        question: the heading above it.
        language: sql, python or sh.
        program: its text.
        printed: the text block behind it; None where there is none.
    """

    question: str
    language: str
    program: str
    printed: str | None


def read_examples(page: str) -> Iterator[Example]:
    """Give the examples of the page's text, in order."""
    for found in _EXAMPLE.finditer(page):
        language, program, printed = found.groups()
        yield Example(_QUESTION.findall(page, 0, found.start())[-1], language, program, printed)


def run_example(example: Example, lake: LakeReader, folder: Path) -> str:
    """Run one example on the demo's lake.

    Args:
        example: what to run.
        lake: the demo's lake, open.
        folder: the folder that holds `demo`, in which programs run.

    Returns:
        What it prints, as it stands on the page.

    Raises:
        WarehouseError: the SQL is wrong.
        CalledProcessError: the program failed.
    """
    if example.language == "sql":
        console = Console(file=StringIO(), width=_WIDTH, color_system=None)
        with console.capture() as capture:
            console.print(render(lake.sql(example.program)))
        return _tidy(capture.get())
    program = example.program
    if example.language == "sh":
        python = Path(sys.executable).as_posix()
        shell = f'set -e\nwarehouse() {{ "{python}" -m warehouse "$@"; }}\npython() {{ "{python}" "$@"; }}\n'
        command = ["sh", "-c", shell + program]
    else:
        command = [sys.executable, "-c", program]
    environment = os.environ | {"WAREHOUSE_LAKE": "demo/lake"}
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return _tidy(done.stdout)


def write_answers(page: str, lake: LakeReader, folder: Path) -> str:
    """Give the page's text with every answer as it is now."""
    answers = [run_example(example, lake, folder) for example in read_examples(page)]
    coming = iter(answers)
    return _EXAMPLE.sub(lambda m: f"```{m[1]}\n{m[2]}```\n\n```text\n{next(coming)}```\n", page)


def _tidy(printed: str) -> str:
    """Take away what Markdown would show badly: an empty margin, spaces at line ends, empty lines at both ends."""
    lines = "\n".join(line.rstrip() for line in printed.splitlines())
    return textwrap.dedent(lines).strip("\n") + "\n"


def main() -> None:
    """Write the page anew."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        subprocess.run([sys.executable, "-m", "warehouse", "demo"], cwd=folder, stdout=subprocess.DEVNULL, check=True)
        with warehouse.open(folder / "demo/lake") as lake:
            PAGE.write_text(write_answers(PAGE.read_text("utf-8"), lake, folder), "utf-8")


if __name__ == "__main__":
    main()
