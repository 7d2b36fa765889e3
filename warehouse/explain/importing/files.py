"""Files of rows, read a row at a time: lines of JSON, lists in JSON, CSV; any of them may be packed with gzip."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

from warehouse.decode.describe import describe
from warehouse.decode.json import load_json
from warehouse.errors import MalformedFile, WarehouseError
from warehouse.explain.importing.options import Fields
from warehouse.records import LIMITS

Row: TypeAlias = tuple[str, Fields | str]
"""Where a row is, and what it holds, or why that cannot be read."""

LONGEST_LINE = LIMITS.file_bytes
"""Bytes of one line, or of a list in one JSON text."""
_HEAD = 65_536
"""Bytes by which a text of several lines is known."""
_LONGEST_HEADER = 300
"""Characters of a header that an error shows."""
_GZIP = b"\x1f\x8b"
_MARK = b"\xef\xbb\xbf"


class ImportFailure(WarehouseError):
    """Nothing could be imported; the message says why."""


@contextmanager
def open_packed(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, unpacked if it is packed with gzip.

    Raises:
        MalformedFile: it cannot be read, then or later within the block.
    """
    try:
        with path.open("rb") as stream:
            is_packed = stream.read(2) == _GZIP
            stream.seek(0)
            if not is_packed:
                yield stream
                return
            with gzip.open(stream) as unpacked:
                yield cast(BinaryIO, unpacked)
    except (OSError, EOFError, zlib.error) as e:
        raise MalformedFile(f"cannot be read to its end: {e}") from e


def read_start(path: Path) -> bytes:
    """Give the first line that is not empty, or the first bytes of one that is too long.

    Raises:
        MalformedFile: the file cannot be read.
    """
    with open_packed(path) as stream:
        for line in iter(lambda: stream.readline(LONGEST_LINE), b""):
            if stripped := line.removeprefix(_MARK).strip():
                return stripped
    return b""


def read_head(path: Path) -> bytes:
    """Give the first bytes of a file.

    Raises:
        MalformedFile: it cannot be read.
    """
    with open_packed(path) as stream:
        return stream.read(_HEAD)


def iterate_json(path: Path) -> Iterator[Row]:
    """Give the objects of a file: one a line, one in all, or a list of them.

    Raises:
        MalformedFile: the file cannot be read to its end; what comes before has been given.
    """
    start = read_start(path)
    if start.startswith(b"[") or (start.startswith(b"{") and not start.endswith(b"}")):
        yield from _iterate_whole(path)
        return
    for where, line in _iterate_lines(path):
        if isinstance(line, str):
            yield where, line
        elif line.strip():
            yield where, _load_object(line.strip())


def iterate_csv(path: Path, column: str) -> Iterator[Row]:
    """Give the rows of a CSV or TSV file with a header, by column; bytes that are no UTF-8 read as U+FFFD.

    Args:
        path: of the file.
        column: that the header must have; a file without it is in another form than it seems.

    Raises:
        MalformedFile: the file cannot be read to its end; what comes before has been given.
    """
    header: list[str] | None = None
    for where, row in _parse_csv(path):
        if isinstance(row, str):
            yield where, row
            if header is None:
                return
        elif header is None:
            header = row
            if column not in header:
                names = ", ".join(map(repr, header))[:_LONGEST_HEADER]
                yield (
                    where,
                    f"the columns are {names}, without {column!r}: write UTF-8, with commas or tabs between them",
                )
                return
        elif len(row) > len(header):
            yield where, f"{len(row)} columns, where the header has {len(header)}"
        else:
            yield where, {name: value for name, value in zip(header, row, strict=False) if value}


def _parse_csv(path: Path) -> Iterator[tuple[str, list[str] | str]]:
    """Give each row with its first line, or why there is none."""
    start = read_start(path)
    taken: list[str] = []
    faults: list[tuple[str, str]] = []

    def decode() -> Iterator[str]:
        for where, line in _iterate_lines(path):
            if isinstance(line, str):
                faults.append((where, line))
            else:
                taken.append(where)
                yield line.decode("utf-8", "replace")

    # Strict, as a quote that is not closed would otherwise take all that follows into its cell.
    rows = csv.reader(decode(), delimiter="\t" if b"\t" in start and b"," not in start else ",", strict=True)
    while True:
        taken.clear()
        try:
            row = next(rows, None)
        except csv.Error as e:
            last = f", up to line {taken[-1].rpartition(':')[2]}" if len(taken) > 1 else ""
            yield taken[0], f"broken CSV{last}: {e}"
            continue
        yield from faults
        faults.clear()
        if row is None:
            return
        if row:
            yield taken[0], row


def _iterate_whole(path: Path) -> Iterator[Row]:
    with open_packed(path) as stream:
        data = stream.read(LONGEST_LINE + 1)
    if len(data) > LONGEST_LINE:
        yield str(path), f"one JSON text of more than {LONGEST_LINE:,} bytes: write an object a line"
        return
    try:
        value = load_json(data, LIMITS)
    except MalformedFile as e:
        yield str(path), str(e)
        return
    for i, item in enumerate(value if isinstance(value, list) else [value]):
        yield f"{path}[{i}]", item if isinstance(item, dict) else f"{describe(item)}, not a JSON object"


def _load_object(line: bytes) -> Fields | str:
    try:
        value = load_json(line, LIMITS)
    except MalformedFile as e:
        return str(e)
    return value if isinstance(value, dict) else f"{describe(value)}, not a JSON object"


def _iterate_lines(path: Path) -> Iterator[tuple[str, bytes | str]]:
    """Give the lines of a file with their numbers from 1; of one that is too long, that it is."""
    with open_packed(path) as stream:
        number = 0
        while line := stream.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                while not line.endswith(b"\n") and (line := stream.readline(LONGEST_LINE)):
                    pass
                yield f"{path}:{number}", f"a line of more than {LONGEST_LINE:,} bytes"
                continue
            yield f"{path}:{number}", line.removeprefix(_MARK) if number == 1 else line
