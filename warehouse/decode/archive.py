"""Zip archives as torch writes them: a reader for many small entries, which trusts nothing that the archive says.

The standard library's reader takes longer over the directory of a latent's 220 storages than torch.load does.

Source: PKWARE's APPNOTE.TXT, sections 4.3.7 (local header), 4.3.12 (central directory) and 4.3.16 (its end)
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from warehouse.decode.describe import quote
from warehouse.errors import MalformedFile
from warehouse.records import Limits

_END = struct.Struct("<4s4H2LH")
_CENTRAL = struct.Struct("<4s4x2H4x3L3H8xL")
_LOCAL = struct.Struct("<4s22x2H")
_LONGEST_COMMENT = 0xFFFF
_IN_ZIP64 = 0xFFFFFFFF
_ENCRYPTED = 0x1
_STORED, _DEFLATED = 0, 8


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
    at, end = _find_directory(data)
    directory_start = at
    entries: dict[str, Entry] = {}
    spans: list[tuple[int, int]] = []
    while at < end:
        if at + _CENTRAL.size > end:
            raise MalformedFile("a zip archive whose directory ends within an entry")
        signature, flags, method, crc, packed, size, n_name, n_extra, n_comment, header = _CENTRAL.unpack_from(data, at)
        if signature != b"PK\x01\x02":
            raise MalformedFile(f"a zip archive with a broken directory at byte {at}")
        raw_name = data[at + _CENTRAL.size : at + _CENTRAL.size + n_name]
        at += _CENTRAL.size + n_name + n_extra + n_comment
        name = _check_name(raw_name)
        if name in entries:
            raise MalformedFile(f"a zip archive with two files named {quote(name)}")
        if flags & _ENCRYPTED or method not in (_STORED, _DEFLATED):
            raise MalformedFile(f"a zip archive whose {quote(name)} is encrypted, or packed by method {method}")
        if _IN_ZIP64 in (packed, size, header) or (method == _STORED and packed != size):
            raise MalformedFile(f"a zip archive whose {quote(name)} has sizes that cannot be right")
        start = _find_content(data, header, raw_name)
        entries[name] = Entry(method, crc, start, packed, size)
        spans.append((header, start + packed))
    if at != end:
        raise MalformedFile("a zip archive whose directory is longer than it says")
    _check_spans(spans, directory_start)
    if sum(entry.size for entry in entries.values()) > limits.file_bytes:
        raise MalformedFile(f"a zip archive that holds more than {limits.file_bytes} bytes")
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


def _check_name(raw: bytes) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError as e:
        raise MalformedFile(f"a zip archive with a name that is not UTF-8: {quote(raw)}") from e
    if name.startswith("/") or "\\" in name or "\0" in name or ":" in name or ".." in name.split("/"):
        raise MalformedFile(f"a zip archive with a name that leads out of it: {quote(name)}")
    return name


def _find_content(data: bytes, header: int, raw_name: bytes) -> int:
    """Give where a file's bytes begin, behind its local header."""
    if header + _LOCAL.size > len(data):
        raise MalformedFile(f"a zip archive whose {quote(raw_name)} lies outside it")
    signature, n_name, n_extra = _LOCAL.unpack_from(data, header)
    name_start = header + _LOCAL.size
    if signature != b"PK\x03\x04" or data[name_start : name_start + n_name] != raw_name:
        raise MalformedFile(f"a zip archive whose {quote(raw_name)} is not where its directory says")
    return name_start + int(n_name) + int(n_extra)


def _check_spans(spans: list[tuple[int, int]], directory_start: int) -> None:
    previous_end = 0
    for start, end in sorted(spans):
        if start < previous_end:
            raise MalformedFile("a zip archive whose files overlap")
        previous_end = end
    if previous_end > directory_start:
        raise MalformedFile("a zip archive whose files reach into its directory")
