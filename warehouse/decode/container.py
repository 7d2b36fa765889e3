"""What a file is, by its content: its name and the server's headers are never asked."""

from __future__ import annotations

import zlib
from typing import Literal, TypeAlias

from warehouse.decode.describe import quote
from warehouse.errors import MalformedFile
from warehouse.records import LIMITS, Limits

Form: TypeAlias = Literal["gzip", "json", "torch-zip", "torch-legacy", "pickle"]

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
JSON_SPACE = b" \t\r\n"
TORCH_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The first pickle of torch's legacy format, after its protocol: the number 0x1950a86a20f9469cfc6c."""

_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 16
_MOST_MEMBERS = 1 << 14


def sniff(data: bytes) -> Form:
    """Say what a file is.

    Raises:
        MalformedFile: nothing that can be decoded, with what it is instead: empty, an HTML page, a text, binary data.
    """
    if data.startswith(_GZIP):
        return "gzip"
    if data.startswith(b"PK"):
        return "torch-zip"
    if data[:1] == b"\x80" and data[2:].startswith(TORCH_MAGIC):
        return "torch-legacy"
    if data[:1] == b"\x80":
        return "pickle"
    text = data[:4096].removeprefix(BYTE_ORDER_MARK).lstrip(JSON_SPACE)
    if text.startswith(b"{"):
        return "json"
    # Protocols 0 and 1 have no mark: they begin with a MARK, an empty dict, a name or a string, and end with STOP.
    if data[:1] in (b"(", b"}", b"c", b"X", b"V") and data.endswith(b"."):
        return "pickle"
    raise MalformedFile(_describe_other(data, text))


def _describe_other(data: bytes, text: bytes) -> str:
    if not data:
        return "an empty file"
    if not text:
        return f"nothing but white space in the first of {len(data)} bytes"
    if text.startswith(b"<"):
        is_html = any(tag in text[:512].lower() for tag in (b"<!doctype html", b"<html"))
        return f"{'an HTML page' if is_html else 'an XML document'}: {quote(text.decode('utf-8', 'replace'))}"
    if sum(byte >= 32 or byte in JSON_SPACE for byte in text[:64]) == len(text[:64]):
        return f"a text that is not a JSON object: {quote(text.decode('utf-8', 'replace'))}"
    return f"{len(data)} bytes in no known form, beginning {data[:16].hex(' ')}"


def unpack(data: bytes, limits: Limits = LIMITS) -> bytes:
    """Unpack a gzip file, of one member or several.

    Args:
        data: the packed bytes.
        limits: bounds what comes out.

    Raises:
        MalformedFile: broken or truncated gzip, or one that holds more than `limits.file_bytes`.
    """
    parts: list[bytes] = []
    room = limits.file_bytes
    n_members = 0
    at = 0
    while at < len(data):
        n_members += 1
        if n_members > _MOST_MEMBERS:
            raise MalformedFile(f"a gzip file of more than {_MOST_MEMBERS} members")
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            if at >= len(data):
                raise MalformedFile("a gzip file that ends too early")
            # By chunks, since a decompressor copies all that it did not need.
            chunk = data[at : at + _CHUNK]
            try:
                part = member.decompress(chunk, room + 1)
            except zlib.error as e:
                raise MalformedFile(f"a broken gzip file: {e}") from e
            at += len(chunk) - len(member.unused_data)
            room -= len(part)
            parts.append(part)
            if room < 0 or member.unconsumed_tail:
                raise MalformedFile(f"a gzip file that holds more than {limits.file_bytes} bytes")
        if not data[at : at + _CHUNK].strip(b"\0") and not data[at:].strip(b"\0"):
            break  # archivers pad with zeros
    return b"".join(parts)
