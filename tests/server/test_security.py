from __future__ import annotations

import json
import socket
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection

import pytest
from typer.testing import CliRunner

from tests.server.conftest import LIMITS, Served, serving
from warehouse.cli import app as command
from warehouse.lake import Lake
from warehouse.server.security import is_loopback
from warehouse.server.settings import ServeSettings

TOKEN = "correct horse battery staple é"
UNIT = "/api/v1/units/gpt2-xl/mlp_post_act/0/1"
FILE = "/data/collated-activations/0/1.json"


@pytest.fixture(scope="session")
def guarded(served_lake: Lake) -> Iterator[Served]:
    """A server that wants a token, goes by a name, and lets one origin's pages read."""
    settings = ServeSettings(
        served_lake.root,
        "192.0.2.1",
        TOKEN,
        ("warehouse.example",),
        ("https://viewer.example",),
        replace(LIMITS, n_workers=1),
    )
    with serving(settings) as served:
        yield served


def basic(token: str) -> str:
    return "Basic " + b64encode(f"anybody:{token}".encode()).decode()


@pytest.mark.parametrize("path", ["/", UNIT, FILE, "/api/v1/openapi.json", "/api/v1/sql?sql=SELECT%201", "/nothing"])
@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Bearer", "Basic !", f"Digest {TOKEN}", basic("x")])
def test_without_the_token_nothing_is_answered(served: Served, guarded: Served, path: str, authorization: str) -> None:
    headers = {} if authorization is None else {b"Authorization": authorization.encode()}
    answer = guarded.client.get(path, headers=headers)
    assert answer.status_code == 401
    assert "Bearer" in answer.headers["www-authenticate"] and "Basic" in answer.headers["www-authenticate"]
    assert "gpt2" not in answer.text


@pytest.mark.parametrize("authorization", [f"Bearer {TOKEN}", f"bearer {TOKEN}", basic(TOKEN)])
def test_the_token_lets_in_as_bearer_and_as_password(guarded: Served, authorization: str) -> None:
    answer = guarded.client.get(FILE, headers={b"Authorization": authorization.encode()})
    assert answer.status_code == 200
    assert answer.headers["cache-control"].startswith("private")


def test_the_description_says_that_a_token_is_needed(guarded: Served) -> None:
    described = guarded.client.get("/api/v1/openapi.json", headers={"Authorization": basic(TOKEN)}).json()
    schemes = {name: how["scheme"] for name, how in described["components"]["securitySchemes"].items()}
    assert schemes == {"bearer": "bearer", "basic": "basic"}
    assert described["security"] == [{name: []} for name in schemes]
    assert all("401" in how["responses"] for methods in described["paths"].values() for how in methods.values())


def test_health_needs_no_token_and_says_no_more_than_that(guarded: Served) -> None:
    assert guarded.client.get("/healthz").json() == {"status": "ok"}
    assert guarded.client.get("/healthz", headers={"Host": "elsewhere.example"}).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:8000", 200),
        ("[::1]:8000", 200),
        ("203.0.113.7", 200),
        ("attacker.example", 421),
        ("localhost.attacker.example", 421),
        ("127.0.0.1.attacker.example:80", 421),
        ("warehouse.example", 421),
        ("", 421),
    ],
)
def test_a_name_that_is_not_the_servers_is_refused(served: Served, host: str, status: int) -> None:
    assert served.client.get(UNIT, headers={"Host": host}).status_code == status


def test_a_name_that_is_allowed_is_the_servers(guarded: Served) -> None:
    headers = {"Host": "Warehouse.Example:8000", "Authorization": basic(TOKEN)}
    assert guarded.client.get(UNIT, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "path", ["/", UNIT, FILE, "/nothing", "/healthz", "/api/v1/units/x/y/0/0", "/static/viewer.css"]
)
def test_every_answer_has_the_headers_that_keep_a_browser_safe(served: Served, path: str) -> None:
    headers = served.client.get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers or headers["server"] == "uvicorn"  # the command leaves it out


def test_only_the_pages_of_an_allowed_origin_may_read(guarded: Served) -> None:
    headers = {"Authorization": basic(TOKEN)}
    allowed = guarded.client.get(FILE, headers={**headers, "Origin": "https://viewer.example"})
    assert allowed.headers["access-control-allow-origin"] == "https://viewer.example"
    other = guarded.client.get(FILE, headers={**headers, "Origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_browser_at_an_allowed_origin_may_ask_with_the_token(guarded: Served, method: str) -> None:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization,content-type"}
    allowed = guarded.client.options("/api/v1/sql", headers={"Origin": "https://viewer.example", **asked})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://viewer.example"
    assert method in allowed.headers["access-control-allow-methods"]
    names = {name.strip().lower() for name in allowed.headers["access-control-allow-headers"].split(",")}
    assert names >= {"authorization", "content-type", "if-none-match"}
    assert guarded.client.options("/api/v1/sql", headers={"Origin": "https://other.example", **asked}).is_error


def test_a_page_of_an_allowed_origin_may_read_why_it_is_refused(guarded: Served) -> None:
    origin = {"Origin": "https://viewer.example"}
    refused = [
        (401, guarded.client.get(UNIT, headers=origin)),
        (413, guarded.client.post("/api/v1/sql", content=b" " * 70_000, headers=origin)),
        (414, guarded.client.get("/api/v1/top_units?token=" + "x" * 9_000, headers=origin)),
        (421, guarded.client.get(UNIT, headers={**origin, "Host": "elsewhere.example"})),
    ]
    for status, answer in refused:
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == "https://viewer.example"


@pytest.mark.parametrize("path", ["/api/v1/sql?sql=SELECT%201", "/sql?q=SELECT%201", "/search?q=the", UNIT])
@pytest.mark.parametrize(
    ("site", "mode", "dest", "status"),
    [
        ("cross-site", "no-cors", "image", 403),
        ("same-site", "no-cors", "image", 403),  # as another port of this machine
        ("cross-site", "navigate", "iframe", 403),
        ("cross-site", "cors", "empty", 403),
        ("cross-site", "navigate", "document", 200),
        ("same-origin", "cors", "empty", 200),
        ("none", "navigate", "document", 200),
    ],
)
def test_a_page_elsewhere_can_link_here_but_not_ask_in_its_readers_name(
    served: Served, path: str, site: str, mode: str, dest: str, status: int
) -> None:
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}
    assert served.client.get(path, headers=headers).status_code == status


def test_a_form_elsewhere_cannot_post_and_an_allowed_origin_can(served: Served, guarded: Served) -> None:
    form = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    question = {"sql": "SELECT 1 AS a"}
    assert served.client.post("/api/v1/sql", json=question, headers=form).status_code == 403
    page = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors", "Authorization": basic(TOKEN)}
    for origin, status in (("https://viewer.example", 200), ("https://other.example", 403)):
        answer = guarded.client.post("/api/v1/sql", json=question, headers={**page, "Origin": origin})
        assert answer.status_code == status


def test_what_is_too_large_is_refused_before_it_is_read(served: Served) -> None:
    assert served.client.get("/api/v1/top_units?token=" + "x" * 9_000).status_code == 414
    assert served.client.post("/api/v1/sql", content=b" " * 70_000).status_code == 413
    assert served.client.post("/api/v1/sql", content=(b" " * 1_000 for _ in range(70))).status_code == 413
    with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000)
        assert b" 400 " in raw.recv(100)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "MKCOL"])
@pytest.mark.parametrize("path", ["/", UNIT, FILE, "/healthz"])
def test_no_method_that_writes_has_a_route(served: Served, method: str, path: str) -> None:
    assert served.client.request(method, path).status_code == 405


def test_the_log_is_a_line_of_json_for_each_request_without_query_and_headers(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    connection = HTTPConnection(served.url.removeprefix("http://"))
    secret = {"Authorization": "Bearer hunter2", "User-Agent": "hunter2", "Referer": "http://x/hunter2"}
    connection.request("GET", "/api/v1/top_units%0a%1b[31m%e2%80%ae?token=hunter2", headers=secret)
    connection.getresponse().read()
    connection.close()
    written, deadline = "", time.monotonic() + 10
    while "top_units" not in written and time.monotonic() < deadline:  # the line follows the answer
        written += capsys.readouterr().err
    assert written.isascii() and "hunter2" not in written
    line = next(json.loads(text) for text in written.splitlines() if "top_units" in text)
    assert line | {"at": 0, "milliseconds": 0} == {
        "at": 0, "event": "request", "method": "GET", "path": "/api/v1/top_units\n\x1b[31m\u202e", "status": 404,
        "bytes": line["bytes"], "milliseconds": 0, "client": "127.0.0.1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "said"),
    [
        (["--host", "0.0.0.0"], {}, 2, "--token-env"),
        (["--host", "::"], {}, 2, "--token-env"),
        (["--token-env", "NOWHERE"], {}, 1, "NOWHERE is not set"),
        (["--token-env", "SHORT"], {"SHORT": "1234"}, 1, "SHORT holds 4 characters"),
        ([], {}, 1, "no lake at /nowhere"),
        (["--host", "192.0.2.1", "--no-auth"], {}, 1, "cannot listen on 192.0.2.1"),
    ],
)
def test_the_command_says_in_a_line_why_it_does_not_start(
    arguments: list[str], environment: dict[str, str], code: int, said: str
) -> None:
    done = CliRunner().invoke(command, ["serve", "--lake", "/nowhere", *arguments], env=environment)
    assert said in done.output + str(done.exception)
    assert done.exit_code == code


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", "localhost.example.org", ""])
def test_what_others_reach_is_not_taken_for_loopback(host: str) -> None:
    assert not is_loopback(host)
