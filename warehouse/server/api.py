"""The JSON API, version 1: each route asks the view or macro of its name, and gives that one's columns.

Lists are paged by `limit` and `offset`, rankings end after `k`. What may take long, as searches through texts and SQL,
goes to processes of its own, beside which all else stays quick.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from warehouse.absence import require_known
from warehouse.reader import LakeReader, PairOrder, TokenOrder
from warehouse.records import Section, UnitId
from warehouse.search import ContextForm, TokenForm
from warehouse.server.answers import MEDIA_TYPES, Paged, Wanted, answer_frame
from warehouse.server.api_route import ApiRoute, refuse_unknown
from warehouse.server.encoding import answer_bytes
from warehouse.server.sandbox import run_while_asked

PREFIX = "/api/v1"
DESCRIPTION = (
    "Every neuron, attention head and latent of one lake. Names are those of the SQL views and macros. "
    "Errors are problem documents (RFC 9457); NaN and infinity, which JSON lacks, are null."
)
_LONGEST = 1_000
_SQL_LENGTH = 20_000


class Problem(BaseModel):
    """What is wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str | None = None
    reason: str | None = Field(
        None, description="Of a missing file: absent, rejected, failed, not_built, out_of_range."
    )


def _refusals() -> dict[int | str, dict[str, Any]]:
    said = {
        400: "The question cannot be answered as it is",
        401: "The server has a token, and it was not given",
        403: "A page of another site asks, which is none of --allow-origin",
        404: "No such unit, dataset or layer; the detail says what there is",
        406: "No such form",
        422: "A parameter is out of range, or is none of the route's",
        503: "Busy, or the lake is being rebuilt: ask again after Retry-After seconds",
    }
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {code: {"description": text, "content": {"application/problem+json": schema}} for code, text in said.items()}


def _gives(rows: str, is_paged: bool = False, **facts: dict[str, Any]) -> dict[str, Any]:
    """Document an answer of rows, whose schema is named here and made from the lake by `openapi`."""
    beside = (
        {"next": {"type": ["string", "null"], "description": "Where the rows after these are."}} if is_paged else {}
    )
    schema = {
        "type": "object",
        "properties": {
            "rows": {"type": "array", "items": {"$ref": f"#/components/schemas/{rows}"}}, **beside, **facts,
        },
        "required": ["rows", *beside, *facts],
    }  # fmt: skip
    binary = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in list(MEDIA_TYPES.values())[1:]}
    content = {"application/json": {"schema": schema}, **binary}
    return {"response_class": Response, "responses": {200: {"description": "Rows", "content": content}}}


router = APIRouter(prefix=PREFIX, responses=_refusals(), route_class=ApiRoute, dependencies=[Depends(refuse_unknown)])
EXAMPLE = "'gpt2-small/mlp_post_act/0/0'"
ROWS = {
    "datasets": "FROM datasets",
    "coverage": "FROM coverage",
    "files": "FROM files",
    "units": "FROM units",
    "records": "FROM records",
    "explanations": "FROM explanations",
    "related_units": "FROM related_units",
    "related_tokens": "FROM related_tokens",
    "top_units": "FROM top_units('')",
    "top_units_by_pair": "FROM top_units_by_pair('', '')",
    "top_tokens": f"FROM top_tokens({EXAMPLE})",
    "top_pairs": f"FROM top_pairs({EXAMPLE})",
    "similar_units": f"FROM similar_units({EXAMPLE})",
    "coactive_units": f"FROM coactive_units({EXAMPLE})",
    "head_profile": f"FROM head_profile({EXAMPLE})",
    "contexts": "FROM contexts('x')",
    "search_explanations": "FROM search_explanations('')",
    "find_tokens": "FROM find_tokens('')",
    "near_tokens": "FROM near_tokens('')",
}
"""Every kind of row that the API gives, and a query that has its columns."""

Model = Annotated[str | None, Query(max_length=100, description="Only units of this model.")]
Component = Annotated[str | None, Query(max_length=100, description="Only units of this component.")]
Layer = Annotated[int | None, Query(ge=0, le=10_000, description="Only units of this layer.")]
K = Annotated[int, Query(ge=1, le=1_000, description="Rows at most.")]
Text = Annotated[str, Query(max_length=_LONGEST)]
Pattern = Annotated[str, Query(min_length=1, max_length=_LONGEST)]
Slug = Annotated[str, Path(max_length=100, pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Index = Annotated[int, Path(ge=0, le=10**8)]


@dataclass(frozen=True, slots=True)
class Filters:
    """Which units an answer is about."""

    model: Model = None
    component: Component = None
    layer: Layer = None


def name_unit(model: Slug, component: Slug, layer: Index, unit: Index) -> UnitId:
    """Read a unit_id, whose parts are those of the path."""
    return UnitId(model, component, layer, unit)


def open_reader(request: Request) -> LakeReader:
    """Give the lake as it is now."""
    reader: LakeReader = request.app.state.lake.reader
    return reader


Narrowed = Annotated[Filters, Depends()]
Unit = Annotated[UnitId, Depends(name_unit)]
Reader = Annotated[LakeReader, Depends(open_reader)]
_UNIT = "/units/{model}/{component}/{layer}/{unit}"
_HERE = "model = $model AND component = $component AND layer = $layer AND unit = $unit"
_NARROWED = " AND ".join(f"{name} = coalesce(${name}, {name})" for name in ("model", "component", "layer"))


# what there is ------------------------------------------------------------------------------------------------------


@router.get("/datasets", **_gives("datasets"))
def list_datasets(request: Request, reader: Reader, wanted: Wanted) -> Response:
    """Every dataset that can be in the lake, with its caveats."""
    return answer_frame(request, reader.datasets(), wanted)


@router.get("/coverage", **_gives("coverage", is_paged=True))
def list_coverage(request: Request, reader: Reader, filters: Narrowed, page: Paged, wanted: Wanted) -> Response:
    """How many files of each layer are expected, ok, absent, rejected, failed and missing."""
    return _list(request, reader, "coverage", "model, component, layer", filters, page, wanted)


@router.get("/files", **_gives("files", is_paged=True))
def list_files(
    request: Request,
    reader: Reader,
    filters: Narrowed,
    page: Paged,
    wanted: Wanted,
    status: Literal["ok", "absent", "rejected", "failed"] | None = None,
) -> Response:
    """The source files, and what came of each."""
    more = "status = coalesce($status, status)"
    order = "model, component, layer, unit"
    return _list(request, reader, "files", order, filters, page, wanted, more, status=status)


@router.get("/units", **_gives("units", is_paged=True))
def list_units(request: Request, reader: Reader, filters: Narrowed, page: Paged, wanted: Wanted) -> Response:
    """The units of the lake with their figures, in the order of their names."""
    return _list(request, reader, "units", "model, component, layer, unit", filters, page, wanted)


# one unit -----------------------------------------------------------------------------------------------------------


@router.get(_UNIT, **_gives("units"))
def get_unit(request: Request, reader: Reader, unit: Unit, wanted: Wanted) -> Response:
    """One unit with its figures, in one row."""
    return answer_frame(request, reader.unit(unit), wanted)


@router.get(f"{_UNIT}/records", **_gives("records", is_paged=True))
def list_records(
    request: Request, reader: Reader, unit: Unit, page: Paged, wanted: Wanted, section: Section | None = None
) -> Response:
    """The unit's text excerpts with its activations, in the order of its file."""
    records = reader.records(unit, section).slice(page.offset, page.limit + 1)
    return answer_frame(request, records, wanted, page)


_RECORD_ANSWER = {
    "description": "The NeuronRecord, put together from the tables",
    "content": {MEDIA_TYPES["json"]: {"schema": {"$ref": "#/components/schemas/NeuronRecord"}}},
}


@router.get(f"{_UNIT}/neuron_record", response_class=Response, responses={200: _RECORD_ANSWER})
def get_neuron_record(request: Request, reader: Reader, unit: Unit) -> Response:
    """The unit as OpenAI's JSON file had it."""
    return answer_bytes(request, reader.neuron_record(unit).to_json(), MEDIA_TYPES["json"])


@router.get(f"{_UNIT}/top_tokens", **_gives("top_tokens"))
def list_top_tokens(request: Request, reader: Reader, unit: Unit, wanted: Wanted, k: K = 20) -> Response:
    """The tokens that the unit responds to most."""
    return answer_frame(request, reader.top_tokens(unit, k), wanted)


@router.get(f"{_UNIT}/top_pairs", **_gives("top_pairs"))
def list_top_pairs(request: Request, reader: Reader, unit: Unit, wanted: Wanted, k: K = 20) -> Response:
    """The pairs of query and key token that the unit responds to most."""
    return answer_frame(request, reader.top_pairs(unit, k), wanted)


@router.get(f"{_UNIT}/similar_units", **_gives("similar_units"))
def list_similar_units(
    request: Request,
    reader: Reader,
    unit: Unit,
    wanted: Wanted,
    k: K = 20,
    in_model: Model = None,
    in_component: Component = None,
    in_layer: Layer = None,
) -> Response:
    """The units of any component that respond to the same tokens."""
    return answer_frame(request, reader.similar_units(unit, k, in_model, in_component, in_layer), wanted)


@router.get(f"{_UNIT}/coactive_units", **_gives("coactive_units"))
async def list_coactive_units(
    request: Request, reader: Reader, unit: Unit, wanted: Wanted, k: K = 20, by: Literal["count", "share"] = "count"
) -> Response:
    """The units that fire on the same texts at the same positions."""
    query = 'FROM coactive_units($unit_id, k := $k, "by" := $by)'
    await run_in_threadpool(reader.unit, unit)  # says so where there is no such unit
    return await _search(request, wanted, query, {"unit_id": str(unit), "k": k, "by": by})


@router.get(f"{_UNIT}/head_profile", **_gives("head_profile"))
def list_head_profile(request: Request, reader: Reader, unit: Unit, wanted: Wanted) -> Response:
    """The strength of a head, or of a latent by pair, by the distance from query to key."""
    return answer_frame(request, reader.head_profile(unit), wanted)


def _say_of(request: Request, reader: LakeReader, view: str, unit: UnitId, page: Paged, wanted: Wanted) -> Response:
    params = {**asdict(unit), **page.params}
    found = reader.sql(f"FROM {view} WHERE {_HERE} ORDER BY dataset, rank LIMIT $limit OFFSET $offset", params)
    if found.is_empty():
        reader.unit(unit)  # says so where there is no such unit
    return answer_frame(request, found, wanted, page)


@router.get(f"{_UNIT}/explanations", **_gives("explanations", is_paged=True))
def list_unit_explanations(request: Request, reader: Reader, unit: Unit, page: Paged, wanted: Wanted) -> Response:
    """What the unit responds to, in words, with scores; those of GPT-2 small and of XL cannot be compared."""
    return _say_of(request, reader, "explanations", unit, page, wanted)


@router.get(f"{_UNIT}/related_units", **_gives("related_units", is_paged=True))
def list_related_units(request: Request, reader: Reader, unit: Unit, page: Paged, wanted: Wanted) -> Response:
    """The units with the largest weights from or to the unit."""
    return _say_of(request, reader, "related_units", unit, page, wanted)


@router.get(f"{_UNIT}/related_tokens", **_gives("related_tokens", is_paged=True))
def list_related_tokens(request: Request, reader: Reader, unit: Unit, page: Paged, wanted: Wanted) -> Response:
    """The tokens that are related to the unit by weights or by activation."""
    return _say_of(request, reader, "related_tokens", unit, page, wanted)


# across units -------------------------------------------------------------------------------------------------------


@router.get("/top_units", **_gives("top_units"))
def list_top_units(
    request: Request, reader: Reader, token: Text, filters: Narrowed, wanted: Wanted, k: K = 20, by: TokenOrder = "max"
) -> Response:
    """The units that respond most to a token, exactly as in the text: most words begin with a space."""
    return answer_frame(request, reader.top_units(token, k, **asdict(filters), by=by), wanted)


@router.get("/top_units_by_pair", **_gives("top_units_by_pair"))
def list_top_units_by_pair(
    request: Request,
    reader: Reader,
    filters: Narrowed,
    wanted: Wanted,
    query_token: Annotated[str | None, Query(max_length=_LONGEST)] = None,
    key_token: Annotated[str | None, Query(max_length=_LONGEST)] = None,
    k: K = 20,
    by: PairOrder = "max",
) -> Response:
    """The units that respond most to a pair of query and key token; one that is left out may be any."""
    found = reader.top_units_by_pair(query_token, key_token, k, **asdict(filters), by=by)
    return answer_frame(request, found, wanted)


@router.get("/find_tokens", **_gives("find_tokens"))
async def list_tokens(
    request: Request, pattern: Text, wanted: Wanted, how: TokenForm = "exact", k: K = 100
) -> Response:
    """Tokens of the lake: exactly, by prefix, by regular expression, or but for case and spaces (loose)."""
    query = "FROM find_tokens($pattern, how := $how) LIMIT $k"
    return await _search(request, wanted, query, {"pattern": pattern, "how": how, "k": k})


@router.get("/near_tokens", **_gives("near_tokens"))
def list_near_tokens(request: Request, reader: Reader, token: Text, wanted: Wanted, k: K = 5) -> Response:
    """Tokens of the lake that are like one that is not in it."""
    return answer_frame(request, reader.sql("FROM near_tokens($token, k := $k)", {"token": token, "k": k}), wanted)


@router.get("/contexts", **_gives("contexts"))
async def list_contexts(
    request: Request,
    reader: Reader,
    pattern: Pattern,
    filters: Narrowed,
    wanted: Wanted,
    how: ContextForm = "phrase",
    k: K = 20,
) -> Response:
    """Places in texts that hold a phrase, substring or regular expression, where a unit fires inside."""
    await run_in_threadpool(_require_known, reader, filters)
    query = "FROM contexts($pattern, how := $how, k := $k, model := $model, component := $component, layer := $layer)"
    return await _search(request, wanted, query, {"pattern": pattern, "how": how, "k": k, **asdict(filters)})


@router.get("/explanations", **_gives("explanations", is_paged=True))
def list_explanations(request: Request, reader: Reader, filters: Narrowed, page: Paged, wanted: Wanted) -> Response:
    """Explanations in the order of their units."""
    order = "model, component, layer, unit, dataset, rank"
    return _list(request, reader, "explanations", order, filters, page, wanted)


@router.get("/search_explanations", **_gives("search_explanations"))
async def search_explanations(
    request: Request,
    reader: Reader,
    text: Text,
    filters: Narrowed,
    wanted: Wanted,
    how: Literal["words", "regex"] = "words",
    k: K = 20,
    min_score: Annotated[
        float | None, Query(ge=-1, le=1, description="Least score; compare within one dataset.")
    ] = None,
    origin: Annotated[str | None, Query(max_length=100, description="Who made the explanation, as openai.")] = None,
) -> Response:
    """Explanations by their words, or by a regular expression, best first."""
    query = (
        "FROM search_explanations($text, how := $how, k := $k, model := $model, component := $component, "
        "layer := $layer, min_score := $min_score, origin := $origin)"
    )
    await run_in_threadpool(_require_known, reader, filters)
    asked = {"text": text, "how": how, "k": k, **asdict(filters), "min_score": min_score, "origin": origin}
    return await _search(request, wanted, query, asked)


# SQL ----------------------------------------------------------------------------------------------------------------


class SqlQuestion(BaseModel):
    """A statement to run."""

    sql: str = Field(max_length=_SQL_LENGTH, description="One SELECT, in any of its forms.")
    params: dict[str, bool | int | float | str | list[str] | None] = Field({}, description="Values for $name.")
    max_rows: int = Field(1_000, ge=1, description="Rows at most; the server's own limit stands above it.")


_SQL_ANSWER = _gives(
    "row",
    columns={"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
    is_cut={"type": "boolean", "description": "Whether there are more rows."},
    seconds={"type": "number", "description": "How long the statement ran."},
)


@router.get("/sql", **_SQL_ANSWER)
async def get_sql(
    request: Request,
    wanted: Wanted,
    sql: Annotated[str, Query(max_length=_SQL_LENGTH)],
    max_rows: Annotated[int, Query(ge=1)] = 1_000,
) -> Response:
    """Run one SELECT over the lake: read-only, boxed in, bounded in time, memory and rows."""
    return await _run(request, wanted, sql, max_rows, {})


@router.post("/sql", **_SQL_ANSWER)
async def post_sql(request: Request, wanted: Wanted, question: SqlQuestion) -> Response:
    """Run one SELECT, as GET does, where it is long or has parameters."""
    return await _run(request, wanted, question.sql, question.max_rows, question.params)


async def _run(request: Request, wanted: Wanted, sql: str, max_rows: int, params: dict[str, Any]) -> Response:
    answer = await run_while_asked(request, request.app.state.sandbox, sql, max_rows, params or None)
    columns = [{"name": name, "type": str(kind)} for name, kind in answer.frame.schema.items()]
    facts = {"columns": columns, "is_cut": answer.is_cut, "seconds": round(answer.seconds, 4)}
    return await run_in_threadpool(answer_frame, request, answer.frame, wanted, facts=facts)


# how it is asked ----------------------------------------------------------------------------------------------------


async def _search(request: Request, wanted: Wanted, query: str, params: dict[str, Any]) -> Response:
    answer = await run_while_asked(request, request.app.state.searches, query, params=params)
    return await run_in_threadpool(answer_frame, request, answer.frame, wanted)


def _list(
    request: Request,
    reader: LakeReader,
    view: str,
    order: str,
    filters: Filters,
    page: Paged,
    wanted: Wanted,
    more: str = "true",
    **params: object,
) -> Response:
    query = f"FROM {view} WHERE {_NARROWED} AND {more} ORDER BY {order} LIMIT $limit OFFSET $offset"
    found = reader.sql(query, {**asdict(filters), **page.params, **params})
    if found.is_empty():
        _require_known(reader, filters, with_siblings=view in ("coverage", "files"))
    return answer_frame(request, found, wanted, page)


def _require_known(reader: LakeReader, filters: Filters, with_siblings: bool = False) -> None:
    require_known(reader.sql, **asdict(filters), with_siblings=with_siblings)
