"""Why an endpoint did not answer: what is worth asking again, what is one unit's, and what stops the run.

Endpoints differ in what they say, so a status is read first, then the code of the error, then its words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from warehouse.errors import WarehouseError
from warehouse.explain.chat import AskError, ContextTooLong, EndpointError, Refused
from warehouse.explain.endpoint import Asked

_TOO_LONG = re.compile(
    r"context_length|exceed_context|context (length|size|window)|too many tokens|(prompt|input) is too long", re.I
)
_REFUSED = re.compile(r"content.?(filter|policy|management)|responsibleai|moderation|flagged", re.I)
_NO_MODEL = re.compile(
    r"model_not_found|(no such|unknown|invalid) model|model.{0,200}(not exist|not found|not a valid|not available)",
    re.I,
)
_NO_CREDIT = re.compile(r"insufficient_quota|billing|exceeded your current quota|insufficient (balance|credit)", re.I)
_TRANSIENT = {408, 409, 425}
_BUSY = {429, 502, 503, 504, 529}
_LONGEST_REASON = 300


class TransientError(Exception):
    """A request that was not answered, and may be when it is sent again.

    Attributes:
        reason: why, for a person.
        retry_after: seconds that the endpoint wants to be left alone, None where it does not say.
        is_busy: whether it is the endpoint that cannot answer now, whatever it is asked.
        is_lost: whether it may have been answered, and paid for, all the same.
    """

    def __init__(
        self, reason: str, retry_after: float | None = None, is_busy: bool = False, is_lost: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason, self.retry_after, self.is_busy, self.is_lost = reason, retry_after, is_busy, is_lost


def judge(status: int, body: object, headers: Mapping[str, str], asked: Asked) -> WarehouseError | TransientError:
    """Say what an answer other than a completion means.

    Args:
        status: HTTP status, or the code that a proxy put into a body.
        body: the error as decoded JSON, or text.
        headers: of the answer.
        asked: who was asked.
    """
    code, message = map(asked.hide, _read_error(body))
    message = shorten(message)
    said = f"{code} {message}"
    if status == 401:
        return _refuse_key(status, asked)
    if status == 402 or _NO_CREDIT.search(said):
        return EndpointError(f"{asked.url} has no credit left for this key ({status}): {message}")
    if status in (400, 413, 422, 500) and (_TOO_LONG.search(said) or status == 413):
        return ContextTooLong(f"the prompt is longer than the model takes: {message}")
    if status in (400, 403, 422, 451) and _REFUSED.search(said):
        return Refused(f"the endpoint declines ({status}): {message}")
    if status == 403:
        return _refuse_key(status, asked)
    if status in (400, 404, 422) and _NO_MODEL.search(said):
        return EndpointError(f"{asked.url} has no model {asked.model!r}: {message}")
    if status == 404:
        return EndpointError(f"{asked.url} has no chat/completions (404): a base URL mostly ends in /v1")
    if status in _TRANSIENT | _BUSY or status >= 500:
        reason = f"status {status}: {message}".removesuffix(": ")
        return TransientError(reason, read_retry_after(headers), is_busy=status in _BUSY)
    return AskError(f"the endpoint refuses the request ({status}): {message}")


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Read how many seconds an endpoint wants to be left alone: Retry-After as seconds or a date, or its -ms form."""
    if re.fullmatch(r"\d{1,9}(\.\d*)?", milliseconds := headers.get("retry-after-ms", "").strip()):
        return float(milliseconds) / 1000
    header = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d*)?", header):
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _refuse_key(status: int, asked: Asked) -> EndpointError:
    # What the endpoint says of the key is not repeated: it may repeat the key.
    if asked.key is not None:
        return EndpointError(f"{asked.url} refuses the key in {asked.key_name} ({status})")
    return EndpointError(
        f"{asked.url} wants a key ({status}): put it in {asked.key_name}, or name another variable with --key-env"
    )


def _read_error(body: object) -> tuple[str, str]:
    """Give an error's code and words, in whichever of the usual places they are."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    if not isinstance(error, Mapping):
        return "", error if isinstance(error, str) else ""
    codes = " ".join(str(error[name]) for name in ("code", "type") if error.get(name) is not None)
    message = next((error[name] for name in ("message", "detail", "error") if isinstance(error.get(name), str)), "")
    return codes, message


def shorten(text: str) -> str:
    """Give foreign words on one line, and not longer than anybody reads."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 1]}…"
