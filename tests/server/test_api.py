from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any
from urllib.parse import urlencode

import jsonschema_rs
import polars as pl
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from polars.testing import assert_frame_equal
from schemathesis.checks import CHECKS

import warehouse
from tests.server.conftest import Served
from warehouse.reader import LakeReader
from warehouse.server.api import ROWS

API = "/api/v1"
UNIT = f"{API}/units/gpt2-xl/mlp_post_act/0/1"
UNIT_ID = "gpt2-xl/mlp_post_act/0/1"
HEAD = f"{API}/units/gpt2-small/attn_write_norm/0/1"


@pytest.fixture(scope="module")
def reader(served: Served) -> Iterator[LakeReader]:
    with warehouse.open(served.lake.root) as reader:
        yield reader


@pytest.fixture(scope="module")
def token(reader: LakeReader) -> str:
    """The strongest token of the unit that the tests ask for."""
    return str(reader.top_tokens(UNIT_ID, 1)["token"].item())


def rows(served: Served, path: str, **params: Any) -> list[dict[str, Any]]:
    answer = served.client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["rows"]
    return found


def arrow(served: Served, path: str, **params: Any) -> pl.DataFrame:
    answer = served.client.get(path, params={**params, "format": "arrow"})
    assert answer.status_code == 200, answer.text
    return pl.read_ipc_stream(BytesIO(answer.content))


def test_each_route_gives_what_the_reader_gives(served: Served, reader: LakeReader, token: str) -> None:
    word = token.strip() or token
    asked: list[tuple[str, dict[str, Any], pl.DataFrame]] = [
        (f"{API}/datasets", {}, reader.datasets()),
        (UNIT, {}, reader.unit(UNIT_ID)),
        (f"{UNIT}/records", {"section": "random"}, reader.records(UNIT_ID, "random")),
        (f"{UNIT}/top_tokens", {"k": 7}, reader.top_tokens(UNIT_ID, 7)),
        (f"{HEAD}/top_pairs", {"k": 7}, reader.top_pairs("gpt2-small/attn_write_norm/0/1", 7)),
        (f"{HEAD}/head_profile", {}, reader.head_profile("gpt2-small/attn_write_norm/0/1")),
        (f"{UNIT}/similar_units", {"k": 5}, reader.similar_units(UNIT_ID, 5)),
        (f"{UNIT}/coactive_units", {"by": "share"}, reader.coactive_units(UNIT_ID, by="share")),
        (f"{API}/top_units", {"token": token, "by": "share", "layer": 0}, reader.top_units(token, by="share", layer=0)),
        (f"{API}/top_units_by_pair", {"key_token": " the"}, reader.top_units_by_pair(None, " the")),
        (f"{API}/find_tokens", {"pattern": " t", "how": "prefix"}, reader.find_tokens(" t", "prefix")),
        (f"{API}/contexts", {"pattern": word, "how": "substring", "k": 9}, reader.contexts(word, "substring", 9)),
    ]
    for path, params, expected in asked:
        assert expected.height > 0, path
        assert_frame_equal(arrow(served, path, **params), expected.head(100), check_dtypes=False)


def test_explanations_and_what_is_related_are_those_of_the_unit(served: Served, reader: LakeReader) -> None:
    for view in ("explanations", "related_units", "related_tokens"):
        expected = reader.sql(f"FROM {view} WHERE unit_id = $u ORDER BY dataset, rank", {"u": UNIT_ID})
        found = arrow(served, f"{UNIT}/{view}", limit=1000)
        assert found.height == expected.height > 0
        assert set(found["unit_id"]) == {UNIT_ID}
    (text,) = reader.sql("SELECT explanation FROM explanations WHERE unit_id = $u", {"u": UNIT_ID})["explanation"]
    assert UNIT_ID in {row["unit_id"] for row in rows(served, f"{API}/search_explanations", text=text, k=1000)}


@pytest.mark.parametrize("path", [f"{API}/units", f"{API}/files", f"{API}/coverage", f"{UNIT}/records"])
def test_following_next_gives_every_row_once(served: Served, path: str) -> None:
    narrowed = {} if path.startswith(UNIT) else {"model": "gpt2-xl"}
    everything = rows(served, path, limit=1000, **narrowed)
    limit = max(1, len(everything) // 3)
    found, following = [], f"{path}?" + urlencode({"limit": limit, **narrowed})
    while following:
        answer = served.client.get(following)
        assert len(answer.json()["rows"]) <= limit
        found += answer.json()["rows"]
        following = answer.json()["next"]
        assert (f'<{following}>; rel="next"' if following else None) == answer.headers.get("link")
    assert found == everything != []


def test_the_form_is_what_format_or_accept_says(served: Served, reader: LakeReader) -> None:
    expected = reader.unit(UNIT_ID)
    for kind, read in (
        ("application/vnd.apache.parquet", pl.read_parquet),
        ("application/vnd.apache.arrow.stream", pl.read_ipc_stream),
    ):
        answer = served.client.get(UNIT, headers={"Accept": f"{kind};q=0.9, application/json"})
        assert answer.headers["content-type"] == kind
        assert_frame_equal(read(BytesIO(answer.content)), expected, check_dtypes=False)
    assert served.client.get(UNIT, headers={"Accept": "image/png"}).status_code == 406
    assert served.client.get(UNIT, params={"format": "parquet"}).content[:4] == b"PAR1"


def test_an_answer_that_is_known_is_not_sent_again(served: Served) -> None:
    tag = served.client.get(UNIT).headers["etag"]
    assert served.client.get(UNIT, headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.parametrize(
    "path",
    [UNIT, f"{API}/units", f"{API}/sql?sql=SELECT%201", f"{API}/units/gpt2-xl/nothing/0/0", f"{API}/openapi.json"],
)
def test_head_gives_the_headers_of_get_and_no_body(served: Served, path: str) -> None:
    full, head = served.client.get(path), served.client.head(path)
    assert (head.status_code, head.content) == (full.status_code, b"")
    assert head.headers["content-type"] == full.headers["content-type"]
    assert head.headers["content-length"] == full.headers["content-length"] or "sql" in path  # which says its seconds


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        (f"{API}/units/gpt2-xl/mlp_post_act/0/999", 404, "was not built yet"),
        (f"{API}/units/gpt2-xl/mlp_post_act/0/2", 404, "is rejected"),
        (f"{API}/units/gpt2-xl/nothing/0/2/top_tokens", 404, "known are"),
        (f"{API}/units/gpt2-xl/mlp_post_act/0/x", 422, "unit"),
        (f"{API}/units?limit=0", 422, "limit"),
        (f"{UNIT[:-1]}999/coactive_units", 404, "was not built yet"),
        (f"{API}/contexts?pattern=the&model=gpt3", 404, "known are gpt2"),
        (f"{API}/search_explanations?text=the&component=nothing", 404, "known are"),
        (f"{API}/explanations?model=gpt2-xl&component=attn_write_norm", 404, "of gpt2-xl: known are"),
        (f"{API}/units?layer=99", 404, "can have layers 0-47"),
        (f"{API}/coverage?model=gpt3", 404, "known are gpt2"),
        (f"{API}/files?model=gpt3", 404, "known are gpt2"),
        (f"{API}/units?modle=gpt2-xl", 422, "no parameter modle: known are model, component, layer"),
        (f"{UNIT}?k=3", 422, "no parameter k: known are format"),
        (f"{API}/top_units", 422, "token"),
        (f"{API}/top_units?token=a&by=b", 422, "by"),
        (f"{API}/find_tokens?pattern=(&how=regex", 400, "missing"),
        (f"{API}/nothing", 404, "nothing is at this path"),
    ],
)
def test_an_error_is_a_problem_document(served: Served, path: str, status: int, said: str) -> None:
    answer = served.client.get(path)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (answer.status_code, problem["status"]) == (status, status)
    assert set(problem) >= {"type", "title", "detail", "instance"}
    assert said in problem["detail"]


def test_what_is_known_but_has_no_rows_is_an_answer_without_rows(served: Served) -> None:
    assert rows(served, f"{API}/units", model="gpt2-xl", layer=47) == []
    assert rows(served, f"{API}/files", component="explanations", status="failed") == []
    assert rows(served, f"{API}/contexts", pattern="no text holds this") == []


def test_the_description_has_every_column_that_rows_have(served: Served) -> None:
    schemas = served.client.get(f"{API}/openapi.json").json()["components"]["schemas"]
    assert set(ROWS) <= set(schemas)
    assert set(rows(served, UNIT)[0]) == set(schemas["units"]["properties"])
    assert schemas["units"]["properties"]["active_fraction"]["description"].startswith("Part of the random sample")


def test_the_description_has_every_member_that_a_neuron_record_has(served: Served) -> None:
    described = served.client.get(f"{API}/openapi.json").json()
    for path in (UNIT, HEAD):
        record = served.client.get(f"{path}/neuron_record").json()
        jsonschema_rs.validate(described["components"]["schemas"]["NeuronRecord"], record)
        assert set(record) == set(described["components"]["schemas"]["NeuronRecord"]["properties"])
    answers = described["paths"][f"{API}/units/{{model}}/{{component}}/{{layer}}/{{unit}}/neuron_record"]["get"][
        "responses"
    ]
    assert answers["200"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/NeuronRecord"}
    assert "securitySchemes" not in described["components"]


def test_what_the_description_says_holds_for_whatever_is_asked(served: Served) -> None:
    described: Any = schemathesis.openapi.from_url(f"{served.url}{API}/openapi.json")
    acceptance: Any = CHECKS.get_one("positive_data_acceptance")
    n_asked = 0

    def check(case: Any) -> None:
        nonlocal n_asked
        n_asked += 1
        case.call_and_validate(excluded_checks=[acceptance])  # SQL and patterns can be wrong

    # Without schemathesis's own pytest plugin, which knows no pytest 9.
    few = settings(
        max_examples=2,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    for found in described.get_all_operations():
        few(given(case=found.ok().as_strategy())(check))()
    assert n_asked >= 2 * len(list(described.get_all_operations())) > 40


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("application/json", '{"sql": ', "the body is not JSON: Expecting value at character 8"),
        ("application/json", "[]", "the body must be a JSON object"),
        ("application/json", "", "the body must be a JSON object"),
        (
            "text/plain",
            '{"sql": "SELECT 1"}',
            "the body must be a JSON object, sent with Content-Type: application/json",
        ),
        ("application/json", '{"sqll": "SELECT 1"}', "sql: Field required"),
        ("application/json", '{"sql": "SELECT 1", "params": 3}', "params: "),
    ],
)
def test_a_body_that_is_no_question_is_told_what_is_wrong_with_it(
    served: Served, kind: str, body: str, said: str
) -> None:
    answer = served.client.post(f"{API}/sql", content=body, headers={"Content-Type": kind})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.json()["detail"].startswith(said)


def test_a_column_of_intervals_is_told_to_be_cast_and_of_no_setting_of_a_library(served: Served) -> None:
    answer = served.client.get(f"{API}/sql", params={"sql": "SELECT INTERVAL 1 DAY AS gap"})
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("an INTERVAL has no place in a table: CAST it to VARCHAR")
    assert "POLARS" not in answer.text
