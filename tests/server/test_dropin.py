from __future__ import annotations

import gzip
import json
from http.client import HTTPConnection
from typing import Any

import brotli
import numpy as np
import orjson
import pytest

from tests.builds import Mirror, build, find_dataset, good_units, spell, statuses
from tests.server.conftest import KEPT_RAW, Served
from warehouse.datasets import Dataset, builtin_datasets
from warehouse.decode import decode
from warehouse.lake import Lake
from warehouse.records import UnitId

XL_PATH = "/data/collated-activations/0/1.json"


def canonical(value: Any) -> Any:
    """Give JSON values in which numbers are the nearest float32, and a NaN is a null."""
    if isinstance(value, dict):
        return {key: canonical(v) for key, v in value.items()}
    if isinstance(value, list):
        return [canonical(v) for v in value]
    if isinstance(value, float):
        return None if np.isnan(value) else float(np.float32(value))
    return value


def first_units(mirror: Mirror, dataset: Dataset) -> list[UnitId]:
    """Give a dataset's good units of layer 0."""
    key = (dataset.model, dataset.component, 0)
    return [u for u in good_units(mirror) if (u.model, u.component, u.layer) == key]


def test_every_json_file_of_activations_is_answered_with_equal_json_values(served: Served, nine_mirror: Mirror) -> None:
    n_files = 0
    for unit_id in good_units(nine_mirror):
        path = nine_mirror.path_of(unit_id)
        if path.suffix == ".json" and unit_id.layer == 0:
            answer = served.client.get("/" + str(path.relative_to(nine_mirror.root)))
            assert answer.status_code == 200, answer.text
            assert canonical(answer.json()) == canonical(json.loads(path.read_bytes()))
            n_files += 1
    assert n_files > 15


def test_every_path_variant_of_every_dataset_answers_the_record_of_the_unit(
    served: Served, nine_mirror: Mirror
) -> None:
    for dataset in nine_mirror.spec.datasets:
        unit_id = first_units(nine_mirror, dataset)[0]
        expected = spell(nine_mirror.decoded(unit_id)) | {"unit": (unit_id.layer, unit_id.unit)}
        right: set[bytes] = set()
        stems = {path.removesuffix(".pt").removesuffix(".json") for path in dataset.paths}
        paths = {*dataset.paths, *(f"{stem}.json" for stem in stems), f"neuron-explainer/{dataset.paths[0]}"}
        for path in paths:
            answer = served.client.get("/" + path.format(layer=0, unit=unit_id.unit))
            assert answer.status_code == 200, path
            if answer.content not in right:
                decoded = decode(answer.content, dataset, 0, unit_id.unit).record
                assert spell(decoded) | {"unit": expected["unit"]} == expected, path
                right.add(answer.content)


def test_a_pt_path_answers_the_file_itself_where_it_was_kept_and_json_elsewhere(
    served: Served, nine_mirror: Mirror
) -> None:
    kept, other = builtin_datasets()[KEPT_RAW[1]], builtin_datasets()["gpt2-small/mlp_post_act_ae_v4"]
    unit_id = first_units(nine_mirror, kept)[0]
    answer = served.client.get("/" + kept.paths[0].format(layer=0, unit=unit_id.unit))
    assert answer.content == nine_mirror.path_of(unit_id).read_bytes()
    assert answer.headers["content-type"] == "application/octet-stream"
    unit_id = first_units(nine_mirror, other)[0]
    answer = served.client.get("/" + other.paths[0].format(layer=0, unit=unit_id.unit))
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["neuron_id"]["neuron_index"] == unit_id.unit


def strip_simulations(results: dict[str, Any]) -> dict[str, Any]:
    for scored in results["scored_explanations"]:
        scored["scored_simulation"]["scored_sequence_simulations"] = []
    return results


def drop_unknown(lists: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in lists.items() if name != "dataclass_name"}


def test_every_siblings_file_is_answered_with_equal_json_values(served: Served, sibling_mirror: Mirror) -> None:
    for unit_id in sibling_mirror.report.forms:
        path, dataset = sibling_mirror.path_of(unit_id), find_dataset(unit_id)
        answer = served.client.get("/" + str(path.relative_to(sibling_mirror.root)))
        assert answer.status_code == 200, answer.text
        if dataset.key in KEPT_RAW:
            assert answer.content == path.read_bytes()
            continue
        original = json.loads(path.read_bytes())
        if dataset.holds == "explanations":
            original = strip_simulations(original)
            assert answer.headers["content-type"] == "application/x-ndjson"
            assert answer.content.count(b"\n") == 1
        assert canonical(drop_unknown(answer.json())) == canonical(drop_unknown(original)), path


@pytest.mark.parametrize(
    ("path", "reason", "said"),
    [
        ("gpt2_small_data/collated-activations/0/3.json", "absent", "the source has no such file"),
        ("data/collated-activations/0/2.json", "rejected", "broken JSON"),
        ("data/collated-activations/0/999.json", "not_built", "warehouse build gpt2-xl/mlp_post_act"),
        ("data/collated-activations/48/0.json", "out_of_range", "layers 0-47"),
        ("data/explanations/0/999.jsonl", "not_built", "warehouse build gpt2-xl/explanations"),
    ],
)
def test_a_missing_file_is_404_and_the_body_says_why(served: Served, path: str, reason: str, said: str) -> None:
    answer = served.client.get(f"/{path}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["reason"] == reason
    assert said in answer.json()["detail"]
    assert "file:" not in answer.text  # where the mirror is on the server's machine


@pytest.mark.parametrize("where", ["unit", "api/v1/units"])
@pytest.mark.parametrize(
    ("unit", "status"), [("gpt2-small/mlp_post_act/0/3", "absent"), ("gpt2-xl/mlp_post_act/0/2", "rejected")]
)
def test_no_path_of_the_servers_machine_is_told_of_a_unit_that_is_missing(
    served: Served, where: str, unit: str, status: str
) -> None:
    answer = served.client.get(f"/{where}/{unit}")
    assert answer.status_code == 404
    assert f"is {status}: " in answer.text and "file:" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "data/collated-activations/0/01.json",
        "data/collated-activations/0/1.jsonx",
        "data/collated-activations/0/-1.json",
        "data/collated-activations/0/99999999999999999999.json",
        "data/collated-activations/0/",
        "data/../data/collated-activations/0/1.json",
        "data/explanations/0/1.pt",
        "warehouse.duckdb",
        "..%2f..%2fetc/passwd",
        "%00",
    ],
)
def test_a_path_that_the_bucket_could_not_have_is_404(served: Served, path: str) -> None:
    connection = HTTPConnection(served.url.removeprefix("http://"))  # which leaves the path as it is
    connection.request("GET", f"/{path}")
    assert connection.getresponse().status == 404
    connection.close()


def test_an_etag_is_strong_differs_by_coding_and_spares_the_body(served: Served) -> None:
    tags = {}
    for coding in ("identity", "gzip", "br"):
        answer = served.client.get(XL_PATH, headers={"Accept-Encoding": coding})
        assert answer.headers.get("content-encoding", "identity") == coding
        assert answer.headers["vary"] == "Accept-Encoding"
        tags[coding] = answer.headers["etag"]
        for condition in (tags[coding], f'"other", W/{tags[coding]}', "*"):
            again = served.client.get(XL_PATH, headers={"Accept-Encoding": coding, "If-None-Match": condition})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tags[coding])
    assert len(set(tags.values())) == 3
    assert not any(tag.startswith("W/") for tag in tags.values())
    assert served.client.get(XL_PATH, headers={"If-None-Match": '"other"'}).status_code == 200


def test_compressed_bodies_are_the_same_file(served: Served) -> None:
    plain = served.client.get(XL_PATH).content
    for coding, unpack in (("gzip", gzip.decompress), ("br", brotli.decompress)):
        with served.client.stream("GET", XL_PATH, headers={"Accept-Encoding": coding}) as answer:
            packed = b"".join(answer.iter_raw())
        assert len(packed) < len(plain)
        assert unpack(packed) == plain


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [("gzip;q=0", None), ("br;q=0, gzip", "gzip"), ("gzip, br", "br"), ("gzip;q=1, br;q=0.5", "gzip"), ("*", "br"),
     ("deflate", None), ("", None), ("identity;q=1, *;q=0", None), ("gzip;q=x", "gzip")],
)  # fmt: skip
def test_the_coding_is_one_that_the_client_takes(served: Served, accepted: str, coding: str | None) -> None:
    answer = served.client.get(XL_PATH, headers={"Accept-Encoding": accepted})
    assert answer.headers.get("content-encoding") == coding


def test_head_has_the_headers_of_get_and_ranges_are_not_offered(served: Served) -> None:
    head, get = served.client.head(XL_PATH), served.client.get(XL_PATH, headers={"Range": "bytes=0-9"})
    assert (head.status_code, head.content, get.status_code) == (200, b"", 200)
    for name in ("etag", "content-length", "content-type", "cache-control"):
        assert head.headers[name] == get.headers[name]
    assert get.headers["cache-control"] == "public, max-age=60, must-revalidate"
    assert "accept-ranges" not in get.headers
    assert orjson.loads(get.content)["neuron_id"]["neuron_index"] == 1


def test_a_warehouse_can_be_built_from_a_server_of_another(
    served: Served, nine_mirror: Mirror, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lake = Lake(tmp_path_factory.mktemp("second") / "lake")
    build(lake, f"{served.url}/neuron-explainer", ["gpt2-xl/mlp_post_act"], nine_mirror.selection)
    assert statuses(lake)[UnitId("gpt2-xl", "mlp_post_act", 0, 1)] == "ok"
    assert statuses(lake)[UnitId("gpt2-xl", "mlp_post_act", 0, 2)] == "absent"  # it was rejected, and has no rows
