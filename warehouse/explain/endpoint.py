"""Where a model answers and how it is asked, as the command line and the flow pass it on: without the key."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from warehouse.explain.chat import EndpointError

OPENAI_URL = "https://api.openai.com/v1"
OPENAI_KEY = "OPENAI_API_KEY"
_SHORTEST_SECRET = 12
"""Characters; what is shorter is a word that stands in for a key, as EMPTY or none."""


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

    def hide(self, text: str) -> str:
        """Give a text of the endpoint's without the key, which it may repeat."""
        is_secret = self.key is not None and len(self.key) >= _SHORTEST_SECRET
        return text.replace(self.key, "…") if is_secret and self.key else text


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


def _read_key(name: str | None) -> str | None:
    key = os.environ.get(name or OPENAI_KEY, "").strip()
    if name is not None and not key:
        raise EndpointError(f"the environment variable {name} holds no key")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise EndpointError(f"what the environment variable {name or OPENAI_KEY} holds is no key")
    return key or None
