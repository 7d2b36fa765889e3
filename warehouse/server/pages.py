"""The viewer: a page for each question that people ask of a lake, each at an address that can be shared.

A page is made here and sent whole; without scripts it works as well. Only what may take long (SQL of the reader's own,
searches through texts) goes to the sandbox, beside which all other pages stay quick.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Annotated, Any, Literal, TypeAlias

import polars as pl
from fastapi import APIRouter, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from starlette.responses import Response

from warehouse.errors import QueryError, UnknownUnit, WarehouseError
from warehouse.reader import LakeReader, TokenOrder
from warehouse.records import LIMITS, Section, UnitId
from warehouse.server.api import Index, Slug, name_unit
from warehouse.server.api_page import list_operations
from warehouse.server.charts import draw_frame
from warehouse.server.compare_page import FIGURES, MOST_UNITS, compare_units
from warehouse.server.encoding import answer_bytes
from warehouse.server.examples import EXAMPLES
from warehouse.server.problems import RETRY_SECONDS, say_invalid, status_of
from warehouse.server.rendering import query_of, render, token_url, unit_url
from warehouse.server.sandbox import SandboxBusy, run_while_asked
from warehouse.server.shading import LEVELS
from warehouse.server.start_page import list_units, view_layer, view_start
from warehouse.server.token_page import ORDERS, view_token
from warehouse.server.unit_page import MOST_RECORDS, Said, find_near_units, find_said, identify, view_record, view_unit

_HEADERS = {"Cache-Control": "no-cache"}
"""Ask each time whether the page is still the same: the lake may have been built again."""
_ROWS_SHOWN = 500
_HITS = 12
_MOST_EXPLANATIONS = 60
_UNIT = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+/[0-9]{1,8}/[0-9]{1,8}")
_SHORT = 500

ExplanationForm: TypeAlias = Literal["words", "regex"]
Text = Annotated[str, Query(max_length=_SHORT)]
NamedUnit = Annotated[UnitId, Depends(name_unit)]
Wanted = Annotated[str | None, Query(max_length=100)]
LayerWanted = Annotated[int | None, Query(ge=0, le=10_000)]


class Page(APIRoute):
    """A route whose errors are pages too, and whose pages are compressed and kept for as long as they stay the same."""

    def __init__(self, path: str, endpoint: Callable[..., Any], *, methods: list[str], **options: Any) -> None:
        """Make a route that answers HEAD as it answers GET; the web server leaves the body away."""
        super().__init__(path, endpoint, methods=[*methods, "HEAD"], **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler."""
        handle = super().get_route_handler()

        async def handle_with_page(request: Request) -> Response:
            try:
                response = await handle(request)
            except RequestValidationError as e:
                return render_problem(HTTPStatus.UNPROCESSABLE_ENTITY, say_invalid(e))
            except WarehouseError as e:
                return render_problem(status_of(e), str(e))
            if response.status_code != HTTPStatus.OK:
                return response
            return answer_bytes(request, bytes(response.body), "text/html; charset=utf-8", _HEADERS)

        return handle_with_page


router = APIRouter(include_in_schema=False, route_class=Page)


def render_problem(status: int, detail: str, near: list[str] | None = None, said: Said | None = None) -> HTMLResponse:
    """Say on a page what is wrong, with the units that may have been meant, and what is said of the one that is not."""
    page = render("problem.html", status, status=HTTPStatus(status), detail=detail, near=near or [], said=said)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        page.headers["Retry-After"] = str(RETRY_SECONDS)
    return page


@router.get("/")
def show_start(request: Request) -> Response:
    """Give the start page: the search box, and what of each dataset is in the lake."""
    return render("start.html", view=view_start(_reader(request)))


@router.get("/units/{model}/{component}/{layer}")
def show_layer(
    request: Request,
    model: Slug,
    component: Slug,
    layer: Index,
    order: Literal["unit", "max_activation", "active_fraction", "entropy", "top_token_share"] = "unit",
    first: Annotated[int, Query(ge=0, le=10**8)] = 0,
) -> Response:
    """List the units of a layer, a page at a time."""
    view = view_layer(_reader(request), model, component, layer, order, first)
    if not view.n_units:
        return render_problem(HTTPStatus.NOT_FOUND, f"the lake has no units of {model}/{component} layer {layer}")
    if not view.rows:
        there = f"{model}/{component} layer {layer} has {view.n_units:,} units"
        return render_problem(HTTPStatus.NOT_FOUND, f"{there}: the list ends before row {first + 1:,}")
    return render("layer.html", view=view)


@router.get("/unit/{model}/{component}/{layer}/{unit}")
def show_unit(
    request: Request,
    unit_id: NamedUnit,
    k: Annotated[int, Query(ge=1, le=MOST_RECORDS)] = 6,
) -> Response:
    """Give a unit's page, with k records of each section."""
    reader = _reader(request)
    try:
        view = view_unit(reader, unit_id, k)
    except UnknownUnit as e:
        near, said = find_near_units(reader, unit_id), find_said(reader, unit_id)
        return render_problem(HTTPStatus.NOT_FOUND, str(e), near, said)
    return render("unit.html", view=view, k=k, most=MOST_RECORDS, levels=LEVELS)


@router.get("/unit/{model}/{component}/{layer}/{unit}/{section}/{rank}")
def show_record(
    request: Request,
    unit_id: NamedUnit,
    section: Section,
    rank: Index,
    quantile: Annotated[int | None, Query(ge=0, le=1_000_000)] = None,
) -> Response:
    """Give the page of one record: its text, and every value in a table."""
    identity, record, largest = view_record(_reader(request), unit_id, section, quantile, rank)
    return render("record.html", identity=identity, record=record, largest=largest, levels=LEVELS)


@router.get("/token")
def show_token(
    request: Request,
    token: Annotated[str, Query(max_length=LIMITS.token_bytes)],
    by: TokenOrder = "relative",
    model: Wanted = None,
    component: Wanted = None,
    layer: LayerWanted = None,
) -> Response:
    """Give a token's page: the components and layers that care, and the units."""
    filters = {"model": model or None, "component": component or None, "layer": layer}
    view = view_token(_reader(request), token, by, model or None, component or None, layer)
    return render("token.html", view=view, token=token, by=by, orders=ORDERS, filters=filters, levels=LEVELS)


@router.get("/compare")
def show_comparison(
    request: Request,
    unit: Annotated[list[Text] | None, Query(max_length=20)] = None,
    add: Text = "",
    drop: Text = "",
) -> Response:
    """Compare units side by side."""
    names = [name.strip() for name in (*(unit or ()), add) if name.strip() and name.strip() != drop.strip()]
    unit_ids = list(dict.fromkeys(map(_parse_unit, names)))
    if add or drop:
        return RedirectResponse("/compare?" + query_of(unit=[str(u) for u in unit_ids]), HTTPStatus.SEE_OTHER)
    if len(unit_ids) > MOST_UNITS:
        raise QueryError(f"{len(unit_ids)} units are too many to stand side by side: take {MOST_UNITS} at most")
    reader = _reader(request)
    identities = []
    for unit_id in unit_ids:
        try:
            identities.append(identify(reader, unit_id))
        except UnknownUnit as e:
            return render_problem(HTTPStatus.NOT_FOUND, str(e), find_near_units(reader, unit_id))
    view = compare_units(reader, identities)
    return render("compare.html", view=view, figures=FIGURES, most=MOST_UNITS)


@router.get("/search")
async def show_search(request: Request, q: Text = "") -> Response:
    """Tell a unit, a token, a phrase and words of an explanation apart, or offer each."""
    wanted = q.strip()
    reader = _reader(request)
    if _UNIT.fullmatch(wanted.removesuffix(".json")):
        return RedirectResponse(unit_url(wanted.removesuffix(".json")), HTTPStatus.SEE_OTHER)
    exact = q[1:-1] if len(q) > 2 and q[0] == q[-1] and q[0] in "'\"" else None
    if exact is not None:
        return RedirectResponse(token_url(exact), HTTPStatus.SEE_OTHER)
    if not wanted:
        return render("search.html", q=q, tokens=[], units=[], contexts=None, explanations=None)
    tokens, units, contexts, explanations = await asyncio.gather(
        asyncio.to_thread(_find_tokens, reader, q),
        asyncio.to_thread(list_units, reader, wanted),
        _ask(request, "FROM contexts($q, how := 'substring', k := $k)", {"q": wanted, "k": _HITS}),
        _search_explanations(request, wanted, _HITS),
    )
    return render("search.html", q=q, tokens=tokens, units=units, contexts=contexts, explanations=explanations)


@router.get("/explanations")
async def show_explanations(
    request: Request,
    q: Text = "",
    how: ExplanationForm = "words",
    model: Wanted = None,
    component: Wanted = None,
    origin: Wanted = None,
    min_score: Wanted = None,
) -> Response:
    """Search the explanations, of OpenAI and others."""
    score = _parse_score(min_score)
    filters = {"model": model or None, "component": component or None, "origin": origin or None, "min_score": score}
    found = await _search_explanations(request, q.strip(), _MOST_EXPLANATIONS, how, **filters) if q.strip() else None
    return render("explanations.html", q=q, how=how, found=found, filters=filters, most=_MOST_EXPLANATIONS)


@router.get("/sql")
async def show_sql(
    request: Request, q: Annotated[str, Query(max_length=6_000)] = "", x: Wanted = None, y: Wanted = None
) -> Response:
    """Run SQL of the reader's own in the sandbox, and show the answer as a table and a chart."""
    answer, error, status = None, None, HTTPStatus.OK
    if q.strip():
        try:
            answer = await run_while_asked(request, request.app.state.sandbox, q, _ROWS_SHOWN)
        except QueryError as e:
            error, status = str(e), HTTPStatus.BAD_REQUEST
    chart = draw_frame(answer.frame, x, y) if answer else None
    objects = await asyncio.to_thread(_objects, _reader(request))
    return render(
        "sql.html", status, q=q, answer=answer, error=error, chart=chart, x=x, y=y, examples=EXAMPLES, objects=objects
    )


@router.get("/api")
def show_api(request: Request) -> Response:
    """Describe the JSON API, from the same document that programs read."""
    document = request.app.openapi()
    about, url = document["info"].get("description", ""), request.app.openapi_url
    return render("api.html", about=about, document_url=url, operations=list_operations(document))


def _reader(request: Request) -> LakeReader:
    reader: LakeReader = request.app.state.lake.reader
    return reader


def _find_tokens(reader: LakeReader, text: str) -> list[dict[str, Any]]:
    """Give the tokens that a text may mean: itself, then others but for case and spaces, then longer ones."""
    return reader.sql(
        "SELECT token, any_value(n_units) AS n_units, any_value(n_occurrences) AS n_occurrences, "
        "any_value(gpt2_id) AS gpt2_id FROM ("
        "SELECT token, n_units, n_occurrences, gpt2_id, 0 AS place FROM find_tokens($q) UNION ALL BY NAME "
        "SELECT token, n_units, n_occurrences, gpt2_id, 1 AS place FROM find_tokens($q, how := 'loose') "
        "UNION ALL BY NAME SELECT token, n_units, 2 AS place FROM near_tokens($q, k := $k)"
        ") GROUP BY token ORDER BY min(place), n_units DESC, token LIMIT $k",
        {"q": text, "k": _HITS},
    ).to_dicts()


async def _ask(request: Request, query: str, params: dict[str, object]) -> pl.DataFrame | str:
    """Search; where that takes too long or too much, or too many search, give the reason in place of an answer."""
    try:
        return (await run_while_asked(request, request.app.state.searches, query, params=params)).frame
    except (QueryError, SandboxBusy) as e:
        return str(e)


async def _search_explanations(
    request: Request, text: str, k: int, how: ExplanationForm = "words", **filters: object
) -> pl.DataFrame | str:
    asked = {name: filters.get(name) for name in ("model", "component", "layer", "min_score", "origin")}
    narrowed = ", ".join(f"{name} := ${name}" for name in asked)
    query = f"FROM search_explanations($text, how := $how, k := $k, {narrowed})"
    return await _ask(request, query, {"text": text, "how": how, "k": k, **asked})


def _parse_unit(text: str) -> UnitId:
    """Read a unit_id of a sane size.

    Raises:
        UnknownUnit: it is none.
    """
    if not _UNIT.fullmatch(text):
        raise UnknownUnit(
            f"{text!r} is not a unit_id: write model/component/layer/unit, as gpt2-small/mlp_post_act/5/131"
        )
    return UnitId.parse(text)


def _parse_score(text: str | None) -> float | None:
    """Read the lowest score that is wanted; a form sends an empty text where none is."""
    try:
        return float(text) if text and text.strip() else None
    except ValueError:
        raise QueryError(f"min_score is {text!r}: it must be a number") from None


def _objects(reader: LakeReader) -> list[dict[str, Any]]:
    """List what there is to ask in SQL, each with its comment."""
    return reader.sql(
        "SELECT view_name AS name, comment FROM duckdb_views() WHERE NOT internal AND comment IS NOT NULL UNION ALL "
        "SELECT function_name || '(' || array_to_string(parameters, ', ') || ')', comment FROM duckdb_functions() "
        "WHERE NOT internal AND function_type = 'table_macro' AND comment IS NOT NULL ORDER BY name"
    ).to_dicts()
