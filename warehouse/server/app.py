"""The application: what is asked goes through the log and the guard to the pages, the API or the file tree."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.staticfiles import StaticFiles
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from warehouse.server import api, dropin, pages
from warehouse.server.access_log import AccessLog
from warehouse.server.answers import row_schema
from warehouse.server.described import describe_neuron_record, describe_security
from warehouse.server.lakes import LiveLake
from warehouse.server.problems import add_handlers
from warehouse.server.sandbox import Sandbox
from warehouse.server.security import Guard
from warehouse.server.settings import ServeSettings


class Routes(FastAPI):
    """The application, whose description of the API has the columns of the lake's own views and macros."""

    def openapi(self) -> dict[str, Any]:
        """Describe the API; the first time the lake is asked for its columns."""
        if self.openapi_schema is None:
            document: dict[str, Any] = super().openapi()
            reader = self.state.lake.reader
            rows = {name: row_schema(reader, query) for name, query in api.ROWS.items()}
            own = {
                "NeuronRecord": describe_neuron_record(),
                "Problem": api.Problem.model_json_schema(),
                "row": {"type": "object"},
            }
            document["components"] = {"schemas": document.get("components", {}).get("schemas", {}) | rows | own}
            if self.state.settings.token is not None:
                document["components"]["securitySchemes"] = describe_security()
                document["security"] = [{name: []} for name in describe_security()]
            self.openapi_schema = document
        return self.openapi_schema


def create_app(settings: ServeSettings) -> ASGIApp:
    """Open the lake and make the application; the processes for SQL start and end with it.

    Raises:
        LakeError: there is no lake, or no catalogue can be had.
    """
    guarded: ASGIApp = Guard(make_routes(settings), settings)
    if settings.allowed_origins:
        # Before the guard: a browser asks without the token first, and lets a page read a refusal only with this.
        guarded = CORSMiddleware(
            guarded,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["Authorization", "Content-Type", "If-None-Match"],
            expose_headers=["ETag", "Link", "Retry-After"],
        )
    return AccessLog(guarded)


def make_routes(settings: ServeSettings) -> Routes:
    """Open the lake and make the application without what stands before it.

    `app.state` holds what routes need: `lake` (LiveLake), `sandbox` (Sandbox) for SQL of others, `searches` (Sandbox)
    for our own, and `settings`.

    Raises:
        LakeError: there is no lake, or no catalogue can be had.
    """
    lake = LiveLake(settings.lake)

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        # Searches have processes of their own, which nobody's SQL can take from them.
        sandboxes = app.state.sandbox, app.state.searches = [Sandbox(settings.lake, settings.sql) for _ in range(2)]
        await asyncio.gather(*(sandbox.start() for sandbox in sandboxes), asyncio.to_thread(app.openapi))
        watching = asyncio.create_task(lake.watch(settings.refresh_seconds))
        yield
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await asyncio.gather(*(sandbox.close() for sandbox in sandboxes))

    # Without FastAPI's own pages of the API: those load scripts from elsewhere on the web.
    app = Routes(
        title="Activation warehouse",
        version=version("activation-warehouse"),
        description=api.DESCRIPTION,
        lifespan=live,
        openapi_url=f"{api.PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.lake, app.state.settings = lake, settings
    add_handlers(app, pages.render_problem)
    app.include_router(api.router)
    app.include_router(pages.router)
    app.add_api_route("/healthz", answer_health, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/static", StaticFiles(packages=[("warehouse.server", "static")]), name="static")
    app.include_router(dropin.router)  # takes every path that is left
    return app


def answer_health(request: Request) -> Response:
    """Say whether the lake can be asked: 200, or 503 with the reason."""
    request.app.state.lake.check()
    return Response('{"status":"ok"}', media_type="application/json", headers={"Cache-Control": "no-store"})
