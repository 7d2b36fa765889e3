"""Compiling ahead reaches all that a build of any dataset compiles."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
from warehouse import statistics, warmup
from warehouse.decode import archive, json, opcodes, scan
warmup.warm_up()
called_from_python = {
    "scan": scan.load_scanner(),
    **{name: getattr(statistics, name) for name in (
        "count_numbers", "renumber", "summarise_records", "summarise_units", "_count_tokens", "_count_pairs"
    )},
    "opcodes": opcodes._walk,
    "archive": archive._walk,
    "json": json._measure,
}
for name, function in called_from_python.items():
    if not function.signatures:
        print(name)
"""


def test_warming_up_compiles_what_builds_of_any_dataset_call() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
