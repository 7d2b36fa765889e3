"""Bytes as an answer: a strong ETag of what is sent, compressed as the client takes it, or 304 where it has it."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Literal, TypeAlias

import brotli
from starlette.requests import Request
from starlette.responses import Response

Coding: TypeAlias = Literal["br", "gzip", "identity"]
_CODINGS: tuple[Coding, ...] = ("br", "gzip")
"""In the order in which they are chosen where a client takes both as well."""
_SMALLEST = 1_000
"""Bytes under which compressing gains nothing."""
_BROTLI_QUALITY = 4
_GZIP_LEVEL = 5
_WEIGHT = re.compile(r"q\s*=\s*([01](?:\.[0-9]{0,3})?)", re.ASCII)
_ENTITY_TAG = re.compile(r'(?:W/)?("[^"]*")')


def choose_coding(accepted: str) -> Coding:
    """Choose a coding by an Accept-Encoding header: the one with the largest weight, and none where none is taken."""
    weights: dict[str, float] = {}
    for item in accepted.lower().split(","):
        name, _, parameters = item.partition(";")
        weight = _WEIGHT.search(parameters)
        weights[name.strip()] = float(weight[1]) if weight else 1.0
    best = max(_CODINGS, key=lambda coding: weights.get(coding, weights.get("*", 0.0)))
    return best if weights.get(best, weights.get("*", 0.0)) > 0 else "identity"


def encode(data: bytes, coding: Coding) -> bytes:
    """Compress bytes; the same bytes always give the same, as a strong ETag says."""
    match coding:
        case "br":
            compressed: bytes = brotli.compress(data, quality=_BROTLI_QUALITY)
            return compressed
        case "gzip":
            return gzip.compress(data, _GZIP_LEVEL, mtime=0)
        case "identity":
            return data


def answer_bytes(request: Request, data: bytes, kind: str, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with bytes, or with 304 where the client has them.

    Args:
        request: whose conditions and codings are heeded.
        data: the bytes, not compressed.
        kind: media type.
        headers: further headers.
    """
    is_small = len(data) < _SMALLEST
    coding: Coding = "identity" if is_small else choose_coding(request.headers.get("accept-encoding", ""))
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    tag = f'"{digest}"' if coding == "identity" else f'"{digest}-{coding}"'
    sent = {"Vary": "Accept-Encoding", **(headers or {}), "ETag": tag}
    if _has(request.headers.get("if-none-match", ""), tag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=sent)
    if coding != "identity":
        sent["Content-Encoding"] = coding
    return Response(encode(data, coding), headers=sent, media_type=kind)


def _has(condition: str, tag: str) -> bool:
    return condition.strip() == "*" or tag in _ENTITY_TAG.findall(condition)
