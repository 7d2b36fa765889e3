"""The bucket's files under the bucket's paths: a tool that takes a dataset's URL takes this server's instead.

A NeuronRecord is put together again from the lake's tables, and answers under every path of its dataset, whichever the
source had. What the tables do not hold whole, a sibling's file or one asked for as .pt, is given as it was fetched
where the lake kept its bytes (`--keep-raw`); else a sibling is put together too, and .pt answers the same JSON.
"""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Literal, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from warehouse.errors import UnknownUnit
from warehouse.lake import Lake
from warehouse.parts import shard_of
from warehouse.reader import LakeReader, say_where
from warehouse.server.encoding import answer_bytes
from warehouse.server.lakes import LiveLake
from warehouse.server.problems import problem
from warehouse.server.rebuilt import rebuild_sibling
from warehouse.server.tree import Place

router = APIRouter(include_in_schema=False)
Missing: TypeAlias = Literal["absent", "rejected", "failed", "not_built", "out_of_range"]
_MAX_AGE_SECONDS = 60
_JSON, _BINARY, _LINES = "application/json", "application/octet-stream", "application/x-ndjson"


@router.api_route("/{path:path}", methods=["GET", "HEAD"])
def answer_file(path: str, request: Request) -> Response:
    """Give a file, or say why it is not there."""
    live: LiveLake = request.app.state.lake
    place, reader = live.tree.find(path), live.reader
    if place is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    found = read_record(reader, place)  # asked for most, and so without a question before it
    if found is None:
        status, detail, digest = find_file(reader, place)
        if status != "ok":
            return problem(HTTPStatus.NOT_FOUND, detail, instance=request.url.path, reason=status)
        found = read_file(reader, place, digest)
    data, kind = found
    visibility = "public" if request.app.state.settings.token is None else "private"
    caching = f"{visibility}, max-age={_MAX_AGE_SECONDS}, must-revalidate"
    return answer_bytes(request, data, kind, {"Cache-Control": caching})


def find_file(reader: LakeReader, place: Place) -> tuple[Missing | Literal["ok"], str, str]:
    """Say what came of a file.

    Returns:
        Its status, or why no build has asked for it; that in words; and its SHA-256, where there is one.
    """
    dataset, layer, unit = place.dataset, place.layer, place.unit
    name = dataset.unit_id(layer, unit)
    found = reader.sql(
        "SELECT status, error, uri, sha256 FROM files WHERE model = $model AND component = $component "
        "AND layer = $layer AND unit = $unit",
        {"model": dataset.model, "component": dataset.component, "layer": layer, "unit": unit},
    )
    for status, error, uri, digest in found.iter_rows():
        return status, f"{name} is {status}: {error or 'the source has no such file'}{say_where(uri)}", digest or ""
    if layer >= dataset.n_layers or unit >= dataset.units_per_layer:
        there = f"layers 0-{dataset.n_layers - 1} with units 0-{dataset.units_per_layer - 1} each"
        return "out_of_range", f"{name} is out of range: {dataset.key} has {there}", ""
    build = f"warehouse build {dataset.key} --layers {layer} --units {unit}"
    return "not_built", f"{name} was not built yet: '{build}' does", ""


def read_record(reader: LakeReader, place: Place) -> tuple[bytes, str] | None:
    """Give a NeuronRecord as JSON; None where the path names something else, or the lake has no such unit."""
    if place.dataset.holds != "activations" or place.suffix == "pt":
        return None
    try:
        record = reader.neuron_record(place.dataset.unit_id(place.layer, place.unit))
    except UnknownUnit:
        return None
    return record.to_json(), _JSON


def read_file(reader: LakeReader, place: Place, digest: str) -> tuple[bytes, str]:
    """Give the bytes and the media type of any other file that the lake has read.

    Args:
        reader: the lake.
        place: which file: a sibling's, or one of activations that is asked for as .pt.
        digest: SHA-256 of the file that the lake's tables were made of.
    """
    dataset, layer, unit = place.dataset, place.layer, place.unit
    kept = read_kept(reader.lake, place, digest)
    if dataset.holds != "activations":
        kind = _LINES if dataset.holds == "explanations" else _JSON
        return (rebuild_sibling(reader, dataset, layer, unit) if kept is None else kept), kind
    if kept is not None and not kept.lstrip().startswith(b"{"):
        return kept, _BINARY
    return reader.neuron_record(dataset.unit_id(layer, unit)).to_json(), _JSON


def read_kept(lake: Lake, place: Place, digest: str) -> bytes | None:
    """Give a file's bytes as they were fetched, where a lake on this machine keeps them."""
    path = Path(lake.part_path("raw", shard_of(place.dataset, place.layer, place.unit)))
    if not lake.is_local or not path.exists():
        return None
    try:
        rows = pq.read_table(
            path, columns=["content"], filters=[("unit", "=", place.unit), ("sha256", "=", digest)], partitioning=None
        )
    except (pa.ArrowException, OSError):  # it is being written again
        return None
    contents: list[bytes] = rows["content"].to_pylist()
    return contents[0] if contents else None
