"""Making exports, and reading their files with nothing of ours."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from warehouse.explain.export import ExportSummary, export_units
from warehouse.explain.formats import FormatName, FormatOptions
from warehouse.reader import LakeReader

AS_IT_IS = FormatOptions()


def write(
    reader: LakeReader, form: FormatName, out: Path, where: str = "true", options: FormatOptions = AS_IT_IS
) -> ExportSummary:
    return export_units(reader, where, form, options, out, lambda n_done, n_units: None)


def files(folder: Path) -> dict[str, bytes]:
    """Give every file of an export but its notes to itself."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if not name.startswith(".export/")}


def read_lines(path: Path) -> list[dict[str, Any]]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in text.decode().split("\n")[:-1]]
