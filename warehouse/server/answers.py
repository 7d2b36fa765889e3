"""Frames as answers of the API: JSON by default, Arrow or Parquet where they are asked for, and what the JSON holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from io import BytesIO
from typing import Annotated, Any, Literal, TypeAlias

import orjson
import polars as pl
from fastapi import Depends, Query, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from warehouse.errors import QueryError
from warehouse.reader import LakeReader
from warehouse.schema import COLUMNS
from warehouse.server.encoding import answer_bytes

Format: TypeAlias = Literal["json", "arrow", "parquet"]
MEDIA_TYPES: dict[Format, str] = {
    "json": "application/json",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
_CACHING = "no-cache"
"""An answer is kept and asked about again: 304 says that it is still the same."""
_JSON_TYPES = {
    "BOOLEAN": "boolean",
    "DOUBLE": "number",
    "FLOAT": "number",
    "BIGINT": "integer",
    "HUGEINT": "integer",
    "INTEGER": "integer",
    "SMALLINT": "integer",
    "UBIGINT": "integer",
    "VARCHAR": "string",
}
_FIXED = re.compile(r"\[\d*\]$")


def choose_format(
    request: Request,
    format: Annotated[Format | None, Query(description="json, arrow or parquet; by default as Accept says.")] = None,  # noqa: A002
) -> Format:
    """Choose a form: the one that is named in the query, or else the first that Accept names."""
    if format is not None:
        return format
    accepted = [item.partition(";")[0].strip().lower() for item in request.headers.get("accept", "*/*").split(",")]
    for kind in accepted:
        for name, media_type in MEDIA_TYPES.items():
            if kind == media_type:
                return name
        if kind in ("*/*", "application/*", "text/html", ""):
            return "json"
    raise HTTPException(HTTPStatus.NOT_ACCEPTABLE, f"there is {', '.join(MEDIA_TYPES.values())}")


Wanted = Annotated[Format, Depends(choose_format)]


@dataclass(frozen=True, slots=True)
class Page:
    """Which rows of a list are wanted."""

    limit: int
    offset: int

    @property
    def params(self) -> dict[str, int]:
        """The values of `LIMIT $limit OFFSET $offset`: one row more, which tells whether there are more."""
        return {"limit": self.limit + 1, "offset": self.offset}


def choose_page(
    limit: Annotated[int, Query(ge=1, le=1_000, description="Rows at most.")] = 100,
    offset: Annotated[int, Query(ge=0, le=2**31, description="Rows to leave out first.")] = 0,
) -> Page:
    """Choose rows of a list."""
    return Page(limit, offset)


Paged = Annotated[Page, Depends(choose_page)]


def answer_frame(
    request: Request, frame: pl.DataFrame, wanted: Format, page: Page | None = None, facts: Mapping[str, object] = {}
) -> Response:
    """Answer with rows.

    Args:
        request: what was asked.
        frame: the rows, and where there are more than the page has, one more.
        wanted: in which form.
        page: which rows these are, where a list is paged; the next one is in `next` and in the header Link.
        facts: what JSON says beside the rows.

    Raises:
        QueryError: a column's type has no place in JSON.
    """
    headers = {"Cache-Control": _CACHING, "Vary": "Accept, Accept-Encoding"}
    following = None
    if page is not None and frame.height > page.limit:
        frame = frame.head(page.limit)
        url = request.url.include_query_params(limit=page.limit, offset=page.offset + page.limit)
        following = f"{url.path}?{url.query}"
        headers["Link"] = f'<{following}>; rel="next"'
    if wanted == "json":
        beside = dict(facts) if page is None else {**facts, "next": following}
        return answer_bytes(request, _spell(frame, beside), MEDIA_TYPES["json"], headers)
    rows = BytesIO()
    if wanted == "arrow":
        frame.write_ipc_stream(rows)
    else:
        frame.write_parquet(rows)
    return answer_bytes(request, rows.getvalue(), MEDIA_TYPES[wanted], headers)


def _spell(frame: pl.DataFrame, beside: Mapping[str, object]) -> bytes:
    odd = [name for name, kind in frame.schema.items() if "Binary" in str(kind) or "Object" in str(kind)]
    if odd:
        raise QueryError(f"{', '.join(odd)} cannot be JSON: CAST to VARCHAR, or ask for format=parquet")
    rest = orjson.dumps(beside)[1:] if beside else b"}"
    return b'{"rows":' + frame.write_json().encode() + (b"," if beside else b"") + rest


def row_schema(reader: LakeReader, query: str) -> dict[str, Any]:
    """Give the JSON schema of a query's rows, each column with what the warehouse says of it.

    Args:
        reader: the lake.
        query: a FROM clause, with literals for arguments.
    """
    columns = reader.sql(f"DESCRIBE {query}").select("column_name", "column_type").iter_rows()
    properties = {name: _column_schema(name, sql_type) for name, sql_type in columns}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _column_schema(name: str, sql_type: str) -> dict[str, Any]:
    schema = _type_schema(sql_type)
    return schema | {"description": COLUMNS[name].description} if name in COLUMNS else schema


def _type_schema(sql_type: str) -> dict[str, Any]:
    if _FIXED.search(sql_type):
        return {"type": ["array", "null"], "items": _type_schema(_FIXED.sub("", sql_type))}
    if sql_type.startswith("TIMESTAMP"):
        return {"type": ["string", "null"], "format": "date-time"}
    if sql_type.startswith("ENUM"):
        return {"type": ["string", "null"]}
    return {"type": [_JSON_TYPES[sql_type], "null"]} if sql_type in _JSON_TYPES else {}
