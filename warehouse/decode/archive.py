"""Zip archives as torch writes them: a reader for many small entries, which trusts nothing that the archive says.

A latent kept as small tensors has 220 storages, each a file: reading them through the standard library takes as long
as all the rest of the decoding. No file known is large enough to need the zip64 form; the zip64 records that torch
always adds to the directory's end repeat what stands in the plain one, and are passed over.

Source: PKWARE's APPNOTE.TXT, sections 4.3.7 (local header), 4.3.12 (central directory) and 4.3.16 (its end)
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from warehouse.decode.describe import quote
from warehouse.decode.machine import cached, inlined
from warehouse.errors import MalformedFile
from warehouse.records import Limits

_END = struct.Struct("<4s4H2LH")
_CENTRAL_MARK, _CENTRAL_SIZE = 0x02014B50, 46
_LOCAL_MARK, _LOCAL_SIZE = 0x04034B50, 30
_LONGEST_COMMENT = 0xFFFF
_IN_ZIP64 = 0xFFFFFFFF
_STORED, _DEFLATED = 0, 8
_LEADS_OUT = re.compile(r"^/|[\\:\0]|(?:^|/)\.\.(?:/|$)", re.MULTILINE)

# The columns of a walk over the directory: from _METHOD to _SIZE they are those of an Entry.
_COLUMNS = ("name_start", "name_end", "method", "crc", "start", "packed", "size", "header")
_METHOD, _CRC, _START, _PACKED, _SIZE, _HEADER = range(2, 8)

_PROBLEMS = (
    "",
    "is cut off",
    "has no mark of a directory entry",
    "is encrypted, or packed in another way than stored or deflated",
    "has sizes that cannot be right",
    "lies outside it",
    "is not where its directory says",
)
_CUT, _NO_MARK, _UNREADABLE, _WRONG_SIZES, _OUTSIDE, _ELSEWHERE = range(1, 7)


class Entry(NamedTuple):
    """Where one file of an archive lies.

    Attributes:
        method: stored or deflated.
        crc: CRC-32 of the unpacked bytes.
        start: where its bytes begin in the archive.
        packed: bytes in the archive.
        size: bytes unpacked.
    """

    method: int
    crc: int
    start: int
    packed: int
    size: int


def read_directory(data: bytes, limits: Limits) -> dict[str, Entry]:
    """Read which files an archive has, by name.

    Args:
        data: the archive.
        limits: bounds the unpacked bytes of all files together.

    Raises:
        MalformedFile: a broken archive; one that is encrypted or split; files that overlap, share a name, have a name
            that leads out of the archive, or together are too large.
    """
    start, end = _find_directory(data)
    rows = np.empty(((end - start) // _CENTRAL_SIZE, len(_COLUMNS)), np.int64)
    problem, n = _walk(np.frombuffer(data, np.uint8), start, end, rows)
    if problem:
        raise MalformedFile(f"a zip archive whose entry {n} {_PROBLEMS[problem]}")
    rows = rows[:n]
    _check_spans(rows, start)
    if rows[:, _SIZE].sum() > limits.file_bytes:
        raise MalformedFile(f"a zip archive that holds more than {limits.file_bytes} bytes")
    try:
        names = [data[name_start:name_end].decode("utf-8") for name_start, name_end in rows[:, :2].tolist()]
    except UnicodeDecodeError as e:
        raise MalformedFile(f"a zip archive with a name that is not UTF-8: {quote(e.object)}") from e
    if _LEADS_OUT.search("\n".join(names)):
        found = next((name for name in names if _LEADS_OUT.search(name)), "")
        raise MalformedFile(f"a zip archive with a name that leads out of it: {quote(found)}")
    entries = dict(zip(names, map(Entry._make, rows[:, _METHOD : _SIZE + 1].tolist()), strict=True))
    if len(entries) != n:
        raise MalformedFile("a zip archive with two files of one name")
    return entries


def read_entry(data: bytes, name: str, entry: Entry) -> bytes | memoryview:
    """Read one file of an archive; a stored one is not copied.

    Raises:
        MalformedFile: it cannot be unpacked, or its size or CRC-32 is not what the directory says.
    """
    content: bytes | memoryview = memoryview(data)[entry.start : entry.start + entry.packed]
    if entry.method == _DEFLATED:
        inflater = zlib.decompressobj(wbits=-15)
        try:
            content = inflater.decompress(content, entry.size + 1)
        except zlib.error as e:
            raise MalformedFile(f"a zip archive whose {quote(name)} cannot be unpacked: {e}") from e
    if len(content) != entry.size:
        raise MalformedFile(f"a zip archive whose {quote(name)} does not have the {entry.size} bytes it says")
    if zlib.crc32(content) != entry.crc:
        raise MalformedFile(f"a zip archive whose {quote(name)} has a wrong CRC-32")
    return content


def _find_directory(data: bytes) -> tuple[int, int]:
    """Give where the central directory begins and ends."""
    at = data.rfind(b"PK\x05\x06", max(0, len(data) - _END.size - _LONGEST_COMMENT))
    if at < 0 or at + _END.size > len(data):
        raise MalformedFile("a zip archive without its end: it is truncated")
    _, disk, start_disk, _, _, size, start, n_comment = _END.unpack_from(data, at)
    if at + _END.size + n_comment != len(data):
        raise MalformedFile("a zip archive with bytes after its end, or a truncated one")
    if disk or start_disk:
        raise MalformedFile("a zip archive that is split over several files")
    if start + size > at:
        raise MalformedFile("a zip archive whose directory lies outside it")
    return start, start + size


def _check_spans(rows: NDArray[np.int64], directory_start: int) -> None:
    """Check that no bytes of the archive belong to two files, or to a file and the directory."""
    rows = rows[np.argsort(rows[:, _HEADER])]
    ends = rows[:, _START] + rows[:, _PACKED]
    if (ends[:-1] > rows[1:, _HEADER]).any():
        raise MalformedFile("a zip archive whose files overlap")
    if ends.size and ends[-1] > directory_start:
        raise MalformedFile("a zip archive whose files reach into its directory")


@inlined
def _read(data: NDArray[np.uint8], at: int, n_bytes: int) -> int:
    number = 0
    for i in range(n_bytes):
        number |= int(data[at + i]) << (8 * i)
    return number


@cached
def _walk(data: NDArray[np.uint8], at: int, end: int, rows: NDArray[np.int64]) -> tuple[int, int]:
    """Fill one row for each entry of the central directory; give a problem or 0, and the entries read."""
    n = 0
    while at < end:
        if at + _CENTRAL_SIZE > end:
            return _CUT, n
        if _read(data, at, 4) != _CENTRAL_MARK:
            return _NO_MARK, n
        flags, method = _read(data, at + 8, 2), _read(data, at + 10, 2)
        crc, packed, size = _read(data, at + 16, 4), _read(data, at + 20, 4), _read(data, at + 24, 4)
        n_name, header = _read(data, at + 28, 2), _read(data, at + 42, 4)
        name = at + _CENTRAL_SIZE
        at = name + n_name + _read(data, at + 30, 2) + _read(data, at + 32, 2)
        if at > end:
            return _CUT, n
        if flags & 1 or method not in (_STORED, _DEFLATED):
            return _UNREADABLE, n
        if _IN_ZIP64 in (packed, size, header) or (method == _STORED and packed != size):
            return _WRONG_SIZES, n
        # The file's own header must say the same name; its sizes may be missing, and are not asked.
        if header + _LOCAL_SIZE + n_name > len(data):
            return _OUTSIDE, n
        if _read(data, header, 4) != _LOCAL_MARK or _read(data, header + 26, 2) != n_name:
            return _ELSEWHERE, n
        for i in range(n_name):
            if data[header + _LOCAL_SIZE + i] != data[name + i]:
                return _ELSEWHERE, n
        start = header + _LOCAL_SIZE + n_name + _read(data, header + 28, 2)
        rows[n, 0], rows[n, 1], rows[n, _METHOD], rows[n, _CRC] = name, name + n_name, method, crc
        rows[n, _START], rows[n, _PACKED], rows[n, _SIZE], rows[n, _HEADER] = start, packed, size, header
        n += 1
    return 0, n
