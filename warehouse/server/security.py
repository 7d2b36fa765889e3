"""What stands before every request: its size, who asks, by which name, and what a browser may do with the answer."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from base64 import b64decode
from binascii import Error as Base64Error
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from warehouse.server.problems import problem
from warehouse.server.settings import ServeSettings

OPEN_PATHS = frozenset({"/healthz"})
"""What is answered without a token, and whatever the server is called by."""
_CSP = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "font-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
HEADERS = {
    "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in _CSP.items()),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def is_loopback(host: str) -> bool:
    """Say whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """Turns away what is too large, unknown or called by a wrong name, and puts the headers on every answer."""

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self._app = app
        self._settings = settings
        self._token = None if settings.token is None else _digest(settings.token.encode())
        self._names = {"localhost", settings.host, *settings.allowed_hosts}
        self._headers = dict(HEADERS)
        if settings.allowed_origins:
            self._headers["Cross-Origin-Resource-Policy"] = "cross-origin"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Turn a request away, or pass it on within its bounds."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refuse(scope, Headers(scope=scope))
        if refusal is not None:
            await refusal(scope, receive, send_guarded)
            return
        await self._app(scope, self._bound(receive), send_guarded)

    def _refuse(self, scope: Scope, headers: Headers) -> Response | None:
        if len(scope["raw_path"]) + len(scope["query_string"]) > self._settings.url_bytes:
            return problem(HTTPStatus.REQUEST_URI_TOO_LONG, f"the URL is longer than {self._settings.url_bytes} bytes")
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self._settings.body_bytes:
            return self._too_large()
        if scope["path"] in OPEN_PATHS:
            return None
        if not self._is_called_rightly(headers.get("host", "")):
            return problem(
                HTTPStatus.MISDIRECTED_REQUEST,
                "this server does not go by that name: start it with --allow-host NAME, or ask by its address",
            )
        if self._is_cross_site(scope["method"], headers):
            return problem(
                HTTPStatus.FORBIDDEN,
                "a page of another site asks: start the server with --allow-origin ORIGIN to let its pages",
            )
        if self._token is not None and not self._is_known(headers.get("authorization", ""), self._token):
            # Basic lets a browser ask its user, who gives the token as the password.
            return problem(
                HTTPStatus.UNAUTHORIZED,
                "a token is needed, as 'Authorization: Bearer TOKEN' or as the password of any user",
                {"WWW-Authenticate": 'Bearer realm="warehouse", Basic realm="warehouse", charset="UTF-8"'},
            )
        return None

    def _is_called_rightly(self, host: str) -> bool:
        """Say whether the Host is this server's: a page elsewhere could point a name of its own to this address.

        An address is always right, since no such page can be at one.
        """
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
        if name.lower() in self._names:
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True

    def _is_cross_site(self, method: str, headers: Headers) -> bool:
        """Say whether a page elsewhere asks in its reader's name: it could not read the answer, but cost much work.

        A link that the reader follows is no such question. Programs send none of these headers, and browsers send
        them where the address is https or of their own machine.
        """
        if headers.get("sec-fetch-site", "none") not in ("cross-site", "same-site"):
            return False
        origins = self._settings.allowed_origins
        if "*" in origins or headers.get("origin") in origins:
            return False
        is_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        return not (is_link and method in ("GET", "HEAD"))

    def _is_known(self, authorization: str, token: bytes) -> bool:
        scheme, _, credentials = authorization.partition(" ")
        given = credentials.strip().encode("latin-1")  # the bytes as they came
        if scheme.lower() == "basic":
            try:
                given = b64decode(given, validate=True).partition(b":")[2]
            except Base64Error:
                return False
        return scheme.lower() in ("basic", "bearer") and hmac.compare_digest(_digest(given), token)

    def _bound(self, receive: Receive) -> Receive:
        """Bound a body that comes without its length."""
        n_bytes = 0

        async def receive_bounded() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > self._settings.body_bytes:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._say_too_large())
            return message

        return receive_bounded

    def _say_too_large(self) -> str:
        return f"the body is larger than {self._settings.body_bytes} bytes"

    def _too_large(self) -> Response:
        return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._say_too_large())


def _digest(secret: bytes) -> bytes:
    """Give secrets one length, so that comparing them takes one time."""
    return hashlib.sha256(secret).digest()
