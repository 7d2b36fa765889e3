from __future__ import annotations

import asyncio
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.server.conftest import LIMITS, Served, serving
from warehouse.errors import QueryError
from warehouse.lake import Lake
from warehouse.server.sandbox import Sandbox
from warehouse.server.settings import ServeSettings, SqlLimits

ENDLESS = "WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM t) SELECT count(*) FROM t"
CARTESIAN = "SELECT count(*) FROM range(10000000) AS a, range(10000000) AS b WHERE a.range * b.range = 7"


def ask(served: Served, sql: str, **more: object) -> httpx.Response:
    return served.client.post("/api/v1/sql", json={"sql": sql, **more})


def refusal(served: Served, sql: str) -> str:
    """Give why a statement is refused."""
    answer = ask(served, sql)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    detail: str = answer.json()["detail"]
    return detail


def test_a_select_gives_rows_columns_and_whether_there_are_more(served: Served) -> None:
    answer = ask(
        served, "SELECT range AS i FROM range(10) WHERE i >= $least ORDER BY i DESC", max_rows=2, params={"least": 4}
    )
    assert answer.json() | {"seconds": 0} == {
        "rows": [{"i": 9}, {"i": 8}], "columns": [{"name": "i", "type": "Int64"}], "is_cut": True, "seconds": 0,
    }  # fmt: skip
    assert ask(served, "SELECT 1 AS a").json()["is_cut"] is False


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_csv('/etc/passwd')",
        "FROM read_text('/etc/passwd')",
        "FROM '/etc/passwd'",
        "FROM glob('/*')",
        "FROM read_parquet('https://127.0.0.1:1/x.parquet')",
        "FROM parquet_metadata('/etc/passwd')",
        "FROM sniff_csv('/etc/passwd')",
    ],
)
def test_no_file_and_no_network_is_reached(served: Served, sql: str) -> None:
    assert "Permission Error" in refusal(served, sql) or "does not exist" in refusal(served, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "ATTACH '/tmp/other.db'",
        "COPY (SELECT 1) TO '/tmp/out.csv'",
        "WITH a AS (COPY (SELECT 1) TO '/tmp/out.csv') FROM a",
        "SET memory_limit = '100GB'",
        "RESET memory_limit",
        "SET threads = 64",
        "PRAGMA enable_profiling",
        "INSTALL httpfs",
        "LOAD httpfs",
        "CREATE TABLE t AS SELECT 1",
        "CREATE TEMP TABLE t AS SELECT 1",
        "INSERT INTO vocabulary SELECT * FROM vocabulary",
        "DELETE FROM vocabulary",
        "DROP VIEW units",
        "EXPORT DATABASE '/tmp/out'",
        "CALL checkpoint()",
        "BEGIN",
        "PREPARE s AS SELECT 1",
        "EXPLAIN COPY (SELECT 1) TO '/tmp/out.csv'",
        "FROM query('DROP VIEW units')",
        "SELECT 1; SELECT 2",
    ],
)
def test_nothing_but_one_read_is_run(served: Served, sql: str) -> None:
    detail = refusal(served, sql)
    assert "refused" in detail or "give one" in detail
    assert not Path("/tmp/out.csv").exists()


def test_a_statement_cannot_see_the_servers_environment_or_settings_beyond_its_own(served: Served) -> None:
    rows = ask(served, "SELECT name, value FROM duckdb_settings() WHERE name IN ('threads', 'temp_directory')").json()
    assert {row["name"]: row["value"] for row in rows["rows"]} == {"threads": "1", "temp_directory": ""}
    assert "does not exist" in refusal(served, "SELECT getenv('HOME')")


@pytest.mark.parametrize(
    "sql", ["FROM range(1000000000000)", "SELECT i, repeat('x', 100000) FROM range(100000) AS t(i)"]
)
def test_a_huge_result_is_cut_and_says_so(served: Served, sql: str) -> None:
    answer = ask(served, sql, max_rows=10**9).json()
    assert answer["is_cut"] is True
    assert 0 < len(answer["rows"]) <= LIMITS.rows


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT list(range) FROM range(1000000000)",
        "SELECT repeat('x', 2000000000)",
        "SELECT string_agg(repeat('x', 1000000), '') FROM range(10000)",
        "SELECT range(1000000000)",
        "FROM (FROM range(100000000) ORDER BY hash(range)) OFFSET 99999999",
    ],
)
def test_a_statement_that_wants_too_much_memory_is_refused(served: Served, sql: str) -> None:
    assert "the limit here" in refusal(served, sql)
    assert ask(served, "SELECT 1 AS a").json()["rows"] == [{"a": 1}]


def test_the_others_are_answered_while_statements_run_out_of_time(served: Served) -> None:
    with ThreadPoolExecutor(4) as pool:
        start = time.monotonic()
        heavy = [pool.submit(ask, served, sql) for sql in (ENDLESS, CARTESIAN)]
        time.sleep(0.2)
        slowest = 0.0
        while not any(answer.done() for answer in heavy):
            asked = time.monotonic()
            assert served.client.get("/api/v1/units/gpt2-xl/mlp_post_act/0/1").status_code == 200
            slowest = max(slowest, time.monotonic() - asked)
        assert all("the statement ran for 1.5 s" in answer.result().json()["detail"] for answer in heavy)
    assert slowest < LIMITS.seconds / 2 and time.monotonic() - start < 10 * LIMITS.seconds


def test_who_comes_when_all_are_taken_is_told_to_come_again(served: Served) -> None:
    n_more = 3
    n_asked = LIMITS.n_workers + LIMITS.n_waiting + n_more
    with ThreadPoolExecutor(n_asked) as pool:
        answers = list(pool.map(lambda _: ask(served, CARTESIAN), range(n_asked)))
    busy = [answer for answer in answers if answer.status_code == 503]
    assert len(busy) >= n_more
    assert all(int(answer.headers["retry-after"]) > 0 for answer in busy)
    assert ask(served, "SELECT 1 AS a").json()["rows"] == [{"a": 1}]


def test_searches_are_answered_while_sql_takes_all_that_sql_may(served: Served) -> None:
    n_asked = LIMITS.n_workers + LIMITS.n_waiting
    with ThreadPoolExecutor(n_asked) as pool:
        for _ in range(n_asked):
            pool.submit(ask, served, CARTESIAN)
        time.sleep(0.3)
        found = served.client.get("/search", params={"q": "the"})
        assert (found.status_code, served.client.get("/api/v1/contexts?pattern=the").status_code) == (200, 200)
    assert "ask again in a moment" not in found.text


def test_where_too_many_search_a_page_says_so_in_that_section_alone(served_lake: Lake) -> None:
    limits = SqlLimits(n_workers=1, n_waiting=0)
    with serving(ServeSettings(served_lake.root, sql=limits)) as served:
        page = served.client.get("/search", params={"q": "mlp_post_act/0/1"})
    assert page.status_code == 200
    assert "ask again in a moment" in page.text and "gpt2-xl/mlp_post_act/0/1" in page.text


@pytest.mark.parametrize(("path", "name"), [("/api/v1/sql", "sql"), ("/sql", "q")])
def test_a_statement_ends_when_its_client_leaves(served_lake: Lake, path: str, name: str) -> None:
    limits = SqlLimits(n_workers=1, waiting_seconds=20, seconds=60)
    with serving(ServeSettings(served_lake.root, sql=limits)) as served:
        with pytest.raises(httpx.ReadTimeout):
            served.client.get(path, params={name: ENDLESS}, timeout=0.5)
        assert ask(served, "SELECT 1 AS a").json()["rows"] == [{"a": 1}]


def test_a_process_that_heeds_no_interruption_is_killed_and_replaced(served_lake: Lake) -> None:
    async def stop_and_ask() -> None:
        sandbox = Sandbox(served_lake.root, SqlLimits(n_workers=1, waiting_seconds=60, seconds=1.0))
        await sandbox.start()
        try:
            assert (await sandbox.run("SELECT 1 AS a")).frame.item() == 1
            (process,) = sandbox._all
            os.kill(process.pid, signal.SIGSTOP)
            with pytest.raises(QueryError, match="ran for 1 s"):
                await sandbox.run("SELECT 1 AS a")
            assert process.returncode == -signal.SIGKILL or await process.wait() == -signal.SIGKILL
            assert (await sandbox.run("SELECT 2 AS a")).frame.item() == 2
        finally:
            await sandbox.close()

    asyncio.run(stop_and_ask())


def test_an_answer_ends_at_its_limit_of_bytes_unless_one_row_alone_is_larger(served_lake: Lake) -> None:
    limits = SqlLimits(n_workers=1)

    async def ask_for_bytes() -> None:
        sandbox = Sandbox(served_lake.root, limits)
        await sandbox.start()
        try:
            answer = await sandbox.run("SELECT i, repeat('x', 100000) AS text FROM range(100000) AS t(i)")
            n_bytes = answer.frame.to_arrow().nbytes
            assert (answer.is_cut, n_bytes <= limits.answer_bytes) == (True, True)
            assert n_bytes > limits.answer_bytes - 200_000
            exact = await sandbox.run("FROM range(7)", max_rows=7)
            assert (exact.frame.height, exact.is_cut) == (7, False)
            with pytest.raises(QueryError, match="one row is larger than 33,554,432 bytes"):
                await sandbox.run("SELECT repeat('x', 40000000) AS text")
        finally:
            await sandbox.close()

    asyncio.run(ask_for_bytes())


def test_after_statements_that_want_too_much_memory_ordinary_ones_are_answered(served_lake: Lake) -> None:
    async def exhaust_and_ask() -> None:
        sandbox = Sandbox(served_lake.root, SqlLimits(n_workers=1, waiting_seconds=60))
        await sandbox.start()
        (first,) = sandbox._all
        try:
            assert (await sandbox.run("FROM records")).frame.height > 0
            with pytest.raises(QueryError, match="more than 512 MB"):
                await sandbox.run("SELECT list(i) FROM range(1000000000) AS t(i)")
            assert (await sandbox.run("FROM records")).frame.height > 0
            assert first not in sandbox._all
        finally:
            await sandbox.close()

    asyncio.run(exhaust_and_ask())


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("", "0 statements"),
        ("SELEC 1", "syntax error"),
        ("SELECT " + "(" * 3000 + "1" + ")" * 3000, "depth"),
        ("SELECT 1 AS a, 2 AS a", "one name"),
        ("SELECT 'x'::BLOB AS b", "CAST to VARCHAR"),
        ("SELECT INTERVAL 1 DAY AS i", "CAST it to VARCHAR"),
        ("SELECT $nobody", "nobody"),
        ("FROM nothing", "nothing"),
        ("SELECT \0", "\\0"),
    ],
)
def test_a_wrong_statement_is_told_why(served: Served, sql: str, said: str) -> None:
    assert said in refusal(served, sql)


def test_a_lone_surrogate_is_no_text(served: Served) -> None:
    answer = served.client.post(
        "/api/v1/sql", content=b'{"sql": "SELECT \'\\ud800\'"}', headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
