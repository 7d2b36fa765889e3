"""Errors as answers: a problem document (RFC 9457) for programs, a page for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from warehouse.errors import LakeError, StaleCatalogue, UnknownDataset, UnknownUnit, WarehouseError
from warehouse.server.sandbox import SandboxBusy

RETRY_SECONDS = 2
_NOTHING = "nothing is at this path: no page, nothing of the API, and no file of a dataset that the lake knows"


def problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None, instance: str | None = None, **more: object
) -> Response:
    """Make a problem document.

    Args:
        status: of HTTP.
        detail: what is wrong here, for a person.
        headers: further headers.
        instance: path of the request.
        more: further members, for programs.
    """
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    if instance is not None:
        body["instance"] = instance
    headers = {"Cache-Control": "no-store", **(headers or {})}
    return Response(orjson.dumps(body | more), status, headers, "application/problem+json")


def status_of(error: WarehouseError) -> int:
    """Say which status an error of the warehouse is."""
    match error:
        case UnknownUnit() | UnknownDataset():
            return HTTPStatus.NOT_FOUND
        case SandboxBusy() | LakeError() | StaleCatalogue():
            return HTTPStatus.SERVICE_UNAVAILABLE
        case _:
            return HTTPStatus.BAD_REQUEST


def say_invalid(error: RequestValidationError) -> str:
    """Say which parameters or members of a body are wrong, or that the body is none."""
    return "; ".join(map(_say_one, error.errors()))


def _say_one(error: Mapping[str, Any]) -> str:
    place, *names = error["loc"]
    if error["type"] == "json_invalid":
        return f"the body is not JSON: {error['ctx']['error']} at character {names[-1]}"
    if not names:
        return f"the {place} must be a JSON object, sent with Content-Type: application/json"
    return f"{'.'.join(map(str, names))}: {error['msg']}"


def add_handlers(app: FastAPI, show: Callable[[int, str], Response]) -> None:
    """Answer every error of an app so.

    Args:
        app: the application.
        show: makes a page of a status and of what is wrong, for browsers where nothing is, or the server failed.
    """

    def answer_either(request: Request, status: int, detail: str) -> Response:
        answer = show(status, detail) if _takes_page(request) else _answer(request, status, detail, {})
        answer.headers["Vary"] = "Accept"
        return answer

    @app.exception_handler(WarehouseError)
    async def answer_warehouse(request: Request, error: WarehouseError) -> Response:
        status = status_of(error)
        headers = {"Retry-After": str(RETRY_SECONDS)} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
        return _answer(request, status, str(error), headers)

    @app.exception_handler(RequestValidationError)
    async def answer_invalid(request: Request, error: RequestValidationError) -> Response:
        return _answer(request, HTTPStatus.UNPROCESSABLE_ENTITY, say_invalid(error), {})

    @app.exception_handler(HTTPException)
    async def answer_http(request: Request, error: HTTPException) -> Response:
        if error.status_code != HTTPStatus.NOT_FOUND:
            return _answer(request, error.status_code, error.detail, error.headers or {})
        return answer_either(request, error.status_code, _NOTHING)

    @app.exception_handler(Exception)
    async def answer_unforeseen(request: Request, error: Exception) -> Response:
        # The web server logs the error itself; who asks is not told what is inside.
        return answer_either(request, HTTPStatus.INTERNAL_SERVER_ERROR, "the server met an error: see its log")


def _takes_page(request: Request) -> bool:
    """Say whether a browser asks, and not for the API: programs take anything, and do not name HTML."""
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/")


def _answer(request: Request, status: int, detail: str, headers: Mapping[str, str]) -> Response:
    return problem(status, detail, headers, request.url.path)
