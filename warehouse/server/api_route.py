"""How a route of the API is asked: by GET or HEAD, and with no parameters but its own."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Receive, Scope, Send


class ApiRoute(APIRoute):
    """A route that answers HEAD as it answers GET, which its description need not repeat; no body is sent then."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Say whether a request is for this route."""
        return super().matches(_as_get(scope))

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await super().handle(_as_get(scope), receive, send)


def refuse_unknown(request: Request) -> None:
    """Refuse parameters that the route has not: a filter that is misspelt would be left out without a word.

    Raises:
        HTTPException: 422, with the parameters that there are.
    """
    known = _list_parameters(request.scope["route"].dependant)
    if unknown := sorted(set(request.query_params) - set(known)):
        there = f"known are {', '.join(known)}" if known else "there is none here"
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, f"no parameter {', '.join(unknown)}: {there}")


def _as_get(scope: Scope) -> Scope:
    return {**scope, "method": "GET"} if scope.get("method") == "HEAD" else scope


def _list_parameters(dependant: Dependant) -> list[str]:
    """Name the parameters of a route, and of what it depends on."""
    own = [parameter.alias for parameter in dependant.query_params]
    return own + [name for needed in dependant.dependencies for name in _list_parameters(needed)]
