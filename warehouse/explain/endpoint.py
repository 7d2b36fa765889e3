"""Where a model answers and how it is asked, as the command line and the flow pass it on: without the key."""

from __future__ import annotations

import base64
import os
import re
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from warehouse.explain.chat import EndpointError

OPENAI_URL = "https://api.openai.com/v1"
OPENAI_KEY = "OPENAI_API_KEY"
_SHORTEST_KEY = 6
"""Characters; what is shorter occurs in answers by chance."""
_SHORTEST_WORD = 12
"""Letters; fewer of them, and nothing else, are a word that stands in for a key, as EMPTY, none or ollama."""
_BASE64_END = "[A-Za-z0-9+/=_-]{0,3}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model answers, and how it is asked.

    Making one with a base URL that is none, or holds a secret, raises EndpointError.

    Attributes:
        model: its name there.
        base_url: what comes before /chat/completions, mostly ending in /v1.
        key_env: environment variable that holds the key; None for OPENAI_API_KEY, which then need not be set.
        concurrency: requests under way at once.
        requests_per_minute: at most so many are sent; None for as many as there can be.
        tokens_per_minute: likewise, of prompts and answers together.
        attempts: requests for one answer before it has failed, at an endpoint that answers others.
        timeout_seconds: for one request, from its first byte to the answer's last.
        patience_seconds: how long an endpoint may answer nobody before it is down.
        backoff_seconds: the first pause before asking again; each further one is twice as long.
    """

    model: str
    base_url: str = OPENAI_URL
    key_env: str | None = None
    concurrency: int = 16
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    attempts: int = 5
    timeout_seconds: float = 120.0
    patience_seconds: float = 300.0
    backoff_seconds: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", _check_url(self.base_url))


@dataclass(frozen=True, slots=True)
class Asked:
    """Who is asked, for requests and for the lines that tell of their errors.

    Attributes:
        url: the endpoint's base URL.
        model: the model.
        key_name: the environment variable that the key is from, or would be.
        key: the key, None without one.
    """

    url: str
    model: str
    key_name: str = OPENAI_KEY
    key: str | None = field(default=None, repr=False)
    _hidden: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hidden", _find_key(self.key or ""))

    def hide(self, text: str) -> str:
        """Give a text of the endpoint's without the key, which it may repeat: as it is, in base64, or in a URL.

        The text must be whole: of one that was cut before, a part of the key may be the end.
        """
        return text if self._hidden is None else self._hidden.sub("…", text)


def identify(endpoint: Endpoint) -> Asked:
    """Read an endpoint's key from the environment.

    Raises:
        EndpointError: it can be no key, or the variable that was named for it is not set.
    """
    key = _read_key(endpoint.key_env)
    return Asked(endpoint.base_url, endpoint.model, endpoint.key_env or OPENAI_KEY, key)


def _check_url(url: str) -> str:
    """Check a base URL, which is printed and kept, and give it without a slash at its end."""
    try:
        place = urlsplit(url)
        is_url = place.scheme in ("http", "https") and bool(place.hostname) and place.port != 0
    except ValueError:
        is_url = False
    if not is_url:
        raise EndpointError("--base-url is no URL of an endpoint: give one as http://localhost:8000/v1")
    if "@" in place.netloc or place.query:
        bare = f"{place.scheme}://{place.netloc.rpartition('@')[2]}{place.path}"
        raise EndpointError(f"a base URL has no password and no query: give {bare}, and the key in the environment")
    return url.rstrip("/")


def _find_key(key: str) -> re.Pattern[str] | None:
    """Give what finds a key in a text, None for what is no secret."""
    if len(key) < _SHORTEST_KEY or (key.isalpha() and len(key) < _SHORTEST_WORD):
        return None
    forms = {re.escape(key), re.escape(quote(key, safe=""))}
    # What comes before the key in the same base64, as a user's name does, shifts it by up to two bytes.
    for n_before in range(3):
        coded = base64.b64encode(b"\0" * n_before + key.encode())
        whole = coded[(n_before * 8 + 5) // 6 : (n_before + len(key)) * 8 // 6].decode()
        forms |= {re.escape(form) + _BASE64_END for form in (whole, whole.translate(str.maketrans("+/", "-_")))}
    return re.compile("|".join(sorted(forms, key=len, reverse=True)))


def _read_key(name: str | None) -> str | None:
    key = os.environ.get(name or OPENAI_KEY, "").strip()
    if name is not None and not key:
        raise EndpointError(f"the environment variable {name} holds no key")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise EndpointError(f"what the environment variable {name or OPENAI_KEY} holds is no key")
    return key or None
