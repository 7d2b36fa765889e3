"""What the box lets through, and what it refuses, whatever the trick."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import polars as pl
import pytest

from tests.sql.lakes import Content, write_lake
from warehouse.box import open_boxed, query_boxed
from warehouse.errors import QueryError
from warehouse.lake import Lake

SECRET = "the-secret-of-this-test"


@dataclass(frozen=True)
class Box:
    """A boxed connection to a lake that has symbolic links out of it, and a secret beside."""

    lake: Lake
    connection: duckdb.DuckDBPyConnection

    def query(self, sql: str) -> pl.DataFrame:
        part = self.lake.parts("units")[0]
        return query_boxed(self.connection, sql.replace("LAKE", self.lake.root).replace("PART", part))


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, content: Content) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp("box")
    lake = write_lake(Lake(folder / "lake"), content)
    outside = folder / "outside"
    outside.mkdir()
    (folder / "lake-beside").mkdir()
    for place in (folder, outside, folder / "lake-beside"):
        (place / "secret.csv").write_text(SECRET)
        pl.DataFrame({"secret": [SECRET]}).write_parquet(place / "secret.parquet")
    (Path(lake.root) / "units" / "link.parquet").symlink_to(outside / "secret.parquet")
    (Path(lake.root) / "units" / "folder").symlink_to(outside)
    (Path(lake.root) / "secret.csv").symlink_to(outside / "secret.csv")
    with open_boxed(lake) as connection:
        yield Box(lake, connection)


def test_a_text_is_judged_once_and_the_same_again_however_many_there_are(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warehouse.box._MOST_CHECKED", 3)
    checked: dict[str, str] = {}
    for n in (*range(5), *range(5)):
        for value in ("a", "b"):
            asked = query_boxed(box.connection, f"SELECT $v AS v, {n} AS n;  ", {"v": value}, checked=checked)
            assert asked.rows() == [(value, n)]
        with pytest.raises(QueryError, match="only reads"):
            query_boxed(box.connection, "DROP TABLE vocabulary", checked=checked)
        assert 0 < len(checked) <= 3


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM units",
        "FROM units LIMIT 1",
        "TABLE datasets",
        "VALUES (1), (2)",
        "WITH a AS MATERIALIZED (SELECT 1 AS b) SELECT b FROM a",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) FROM t",
        "(SELECT 1) UNION ALL (SELECT 2) EXCEPT SELECT 3",
        "DESCRIBE units",
        "SHOW TABLES",
        "SUMMARIZE units",
        "FROM (DESCRIBE units)",
        "PIVOT (SELECT status, unit FROM files) ON status IN ('ok', 'absent') USING count(*)",
        "UNPIVOT (SELECT n_top, n_random FROM units) ON n_top, n_random",
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE SELECT 1",
        "EXPLAIN (FORMAT json) SELECT 1",
        "explain (analyze, format json) FROM units",
        "EXPLAIN (SELECT 1)",
        "-- a comment\n/* and /* another */ */ SELECT 1 -- and one more\n;",
        "/* before */ EXPLAIN ANALYZE /* inside */ SELECT 1",
        "SELECT 'COPY x TO y; DROP TABLE units' AS \"insert\"",
        "SELECT * FROM top_units(' the', k := 1)",
        "SELECT * FROM query_table('units') LIMIT 1",
        "SELECT * FROM read_parquet('PART')",
        "SELECT * FROM 'PART'",
        "SELECT * FROM parquet_metadata('PART')",
        "SELECT comment FROM duckdb_columns() WHERE table_name = 'units'",
    ],
)
def test_a_read_is_let_through(box: Box, sql: str) -> None:
    assert box.query(sql).height > 0


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1) TO 'LAKE/x.csv'",
        "COPY units TO 'PART' (FORMAT parquet, USE_TMP_FILE false)",
        "COPY (SELECT 1) TO '/dev/stdout'",
        "COPY FROM DATABASE warehouse TO memory",
        "EXPORT DATABASE 'LAKE/x'",
        "IMPORT DATABASE 'LAKE/x'",
        "ATTACH ':memory:' AS x",
        "ATTACH 'LAKE/warehouse.duckdb' AS x",
        "DETACH warehouse",
        "USE memory",
        "INSTALL httpfs",
        "LOAD httpfs",
        "LOAD json",
        "UPDATE EXTENSIONS",
        "SET memory_limit = '1GB'",
        "SET VARIABLE a = 1",
        "RESET memory_limit",
        "PRAGMA version",
        "PRAGMA enable_profiling",
        "CALL duckdb_settings()",
        "CALL enable_logging(storage = 'file', storage_config = {'path': 'LAKE/log'})",
        "CREATE TABLE x AS SELECT 1",
        "CREATE TEMP TABLE x AS SELECT 1",
        "CREATE MACRO x() AS 1",
        "CREATE SECRET (TYPE s3)",
        "INSERT INTO datasets VALUES (1)",
        "UPDATE datasets SET kind = 'x'",
        "DELETE FROM datasets",
        "TRUNCATE datasets",
        "MERGE INTO datasets USING units ON false WHEN MATCHED THEN DELETE",
        "DROP VIEW units",
        "ALTER VIEW units RENAME TO x",
        "COMMENT ON VIEW units IS 'x'",
        "CHECKPOINT",
        "FORCE CHECKPOINT",
        "VACUUM",
        "ANALYZE",
        "BEGIN",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "DEALLOCATE p",
        "EXPLAIN COPY (SELECT 1) TO 'LAKE/x.csv'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO 'LAKE/x.csv'",
        "EXPLAIN (ANALYZE) COPY (SELECT 1) TO 'LAKE/x.csv'",
        "EXPLAIN (FORMAT json, ANALYZE) CREATE TABLE x AS SELECT 1",
        "/* x */ EXPLAIN /* y */ ANALYZE COPY (SELECT 1) TO 'LAKE/x.csv'",
        "-- x\nEXPLAIN -- y\n ANALYZE COPY (SELECT 1) TO 'LAKE/x.csv'",
        "EXPLAIN /* /* */ SELECT 1 -- */ ANALYZE COPY (SELECT 1) TO 'LAKE/x.csv'",
        "SELECT 8 /EXPLAIN * b, (WITH a AS (COPY (SELECT 1) TO 'LAKE/x.csv') FROM a) --*/\n"
        "FROM (SELECT 1 AS explain, 2 AS b)",
        "EXPLAIN ANALYZE WITH a AS (COPY (SELECT 1) TO 'LAKE/x.csv') FROM a",
        "WITH a AS (COPY (SELECT 1) TO 'LAKE/x.csv') FROM a",
        "WITH a AS MATERIALIZED (COPY units TO 'PART' (FORMAT parquet, USE_TMP_FILE false)) SELECT 1",
        "WITH a AS (COPY (WITH b AS (SELECT 1) FROM b) TO 'LAKE/x.csv') FROM a",
        "SELECT (WITH a AS (COPY (SELECT 1) TO 'LAKE/x.csv') FROM a)",
        "FROM units WHERE unit IN (WITH a AS (COPY (SELECT 1) TO 'LAKE/x.csv') FROM a)",
        "SELECT 1 UNION ALL (WITH a AS (COPY (SELECT 1) TO 'LAKE/x.csv') FROM a)",
        "DESCRIBE WITH a AS (COPY (SELECT 1) TO 'LAKE/x.csv') FROM a",
        "SUMMARIZE WITH a AS (COPY (SELECT 1) TO 'LAKE/x.csv') FROM a",
        "PIVOT (WITH a AS (COPY (SELECT 1) TO 'LAKE/x.csv') FROM a) ON b IN (1)",
        "PIVOT (WITH a AS (COPY (SELECT 1) TO 'LAKE/x.csv') FROM a) ON b",
        "COPY (PIVOT files ON status USING count(*)) TO 'LAKE/x.csv'",
        "CREATE TEMP TABLE x AS PIVOT files ON status USING count(*)",
        "WITH a AS (DELETE FROM datasets RETURNING *) FROM a",
        "WITH a AS (INSERT INTO datasets SELECT * FROM datasets RETURNING *) FROM a",
        "WITH a AS (UPDATE datasets SET kind = 'x' RETURNING *) FROM a",
        "FROM query('WITH a AS (COPY (SELECT 1) TO ''LAKE/x.csv'') FROM a')",
        "FROM \"QUERY\"('WI' || 'TH a AS (COPY (SELECT 1) TO ''LAKE/x.csv'') FROM a')",
        "FROM system.main.query('SELECT 1')",
        "FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
        "FROM enable_logging()",
        "FROM checkpoint()",
        "FROM truncate_duckdb_logs()",
        "SELECT write_log('x')",
    ],
)
def test_what_does_more_than_read_is_refused_before_it_runs(box: Box, sql: str) -> None:
    before = sorted(Path(box.lake.root).rglob("*"))
    part = Path(box.lake.parts("units")[0]).read_bytes()
    with pytest.raises(QueryError, match="refused: only reads are"):
        box.query(sql)
    assert sorted(Path(box.lake.root).rglob("*")) == before
    assert Path(box.lake.parts("units")[0]).read_bytes() == part


@pytest.mark.parametrize(
    "sql", ["", "  ;  ", "-- nothing", "SELECT 1; SELECT 2", "SELECT 1; COPY (SELECT 1) TO 'LAKE/x.csv'"]
)
def test_there_is_one_statement_at_a_time(box: Box, sql: str) -> None:
    with pytest.raises(QueryError, match="[02] statements: give one"):
        box.query(sql)


ELSEWHERE = [
    "/etc/passwd",
    "/etc/*",
    "/proc/self/environ",
    "/dev/stdin",
    "/dev/fd/0",
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "~/.profile",
    "relative.csv",
    "https://example.com/x.parquet",
    "s3://bucket/x.parquet",
    "LAKE/../secret.csv",
    "LAKE/../secret.parquet",
    "LAKE/../lake-beside/secret.parquet",
    "LAKE-beside/secret.parquet",
    "LAKE/units/../../secret.parquet",
    "LAKE/.tmp/../../secret.parquet",
    "LAKE/.tmp/spill-x/../../../secret.parquet",
    "LAKE/secret.csv",
    "LAKE/units/link.parquet",
    "LAKE/units/folder/secret.parquet",
    "LAKE/units/folder/../secret.parquet",
    "LAKE/units/f*/secret.parquet",
    "LAKE/units/**/*.parquet",
    "LAKE/*",
    "PART/../../../../../../secret.parquet",
    "PART/../../../../folder/../secret.parquet",
]
READERS = [
    "read_text",
    "read_blob",
    "read_csv",
    "read_csv_auto",
    "sniff_csv",
    "read_json",
    "read_ndjson",
    "read_json_objects",
    "read_parquet",
    "parquet_scan",
    "parquet_metadata",
    "parquet_schema",
    "parquet_file_metadata",
    "parquet_kv_metadata",
    "read_duckdb",
    "glob",
]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("path", ELSEWHERE)
def test_no_function_reads_elsewhere(box: Box, reader: str, path: str) -> None:
    for argument in (f"'{path}'", f"'{path[:9]}' || '{path[9:]}'", f"['{path}']", f"['PART', '{path}']"):
        try:
            answer = box.query(f"SELECT * FROM {reader}({argument})")
        except QueryError:
            continue
        pytest.fail(f"{argument} gave {answer}")


@pytest.mark.parametrize("path", ELSEWHERE)
@pytest.mark.parametrize(
    "sql",
    [
        "FROM 'X'",
        'FROM "X"',
        "FROM query_table('X')",
        "FROM query_table(['X'])",
        "SELECT (SELECT content FROM read_text('X'))",
        "FROM units WHERE error IN (SELECT content FROM read_text('X'))",
        "WITH a AS (FROM read_blob('X')) FROM a",
        "FROM (VALUES ('X')) AS t(p), LATERAL (FROM read_text(p))",
        "SUMMARIZE 'X'",
        "DESCRIBE FROM read_csv('X')",
        "EXPLAIN ANALYZE FROM read_csv('X')",
        "FROM read_csv('PART', files_to_sniff = -1, union_by_name = true) UNION ALL BY NAME FROM read_csv('X')",
    ],
)
def test_no_form_of_query_reads_elsewhere(box: Box, sql: str, path: str) -> None:
    with pytest.raises(QueryError):
        box.query(sql.replace("X", path))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT getenv('HOME')",
        "FROM secret_frame",
        "SELECT * FROM SECRET",
        "FROM python_map_function((SELECT 1), 1)",
        "FROM pandas_scan(1)",
        "FROM arrow_scan(1, 2, 3)",
        "FROM duckdb_extensions()",
        "FROM memory.main.x",
    ],
)
def test_the_process_around_the_box_is_not_seen(box: Box, sql: str) -> None:
    secret_frame = pl.DataFrame({"secret": [SECRET]})
    with pytest.raises(QueryError):
        box.query(sql)
    assert secret_frame.height == 1


def test_the_settings_of_the_box_hold(box: Box) -> None:
    settings = dict(box.query("SELECT name, value FROM duckdb_settings()").rows())
    assert settings["enable_external_access"] == settings["autoload_known_extensions"] == "false"
    assert settings["autoinstall_known_extensions"] == settings["python_enable_replacements"] == "false"
    assert settings["lock_configuration"] == "true"
    assert settings["TimeZone"] == "UTC"
    assert os.environ["HOME"] not in json.dumps(box.query("SELECT value FROM duckdb_secrets() AS s(value)").rows())


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELEC 1", '^syntax error at or near "SELEC"$'),
        ("SELECT nothing FROM units", '^Referenced column "nothing" not found'),
        ("FROM nowhere", "^Table with name nowhere does not exist!"),
        ("SELECT CAST('x' AS INTEGER)", "^Could not convert string 'x' to INT32$"),
        ("SELECT error('as said')", "^as said$"),
        ("FROM read_text('/etc/passwd')", "^Permission Error: "),
        ("SELECT INTERVAL 1 DAY", "CAST"),
    ],
)
def test_a_wrong_query_gives_the_databases_message_on_one_line(box: Box, sql: str, message: str) -> None:
    with pytest.raises(QueryError, match=message) as caught:
        box.query(sql)
    assert "\n" not in str(caught.value)


def test_a_deeply_nested_query_is_an_error_and_no_crash(box: Box) -> None:
    with pytest.raises(QueryError):
        box.query("SELECT " + "(" * 5000 + "1" + ")" * 5000)
    with pytest.raises(QueryError):
        box.query("SELECT " + " + ".join(["1"] * 5000))
    with pytest.raises(QueryError, match="nested too deeply"):
        box.query("SELECT " + " + ".join(["1"] * 700))
    assert box.query("SELECT " + " + ".join(["1"] * 100)).item() == 100


def test_a_lake_that_is_reached_through_a_link_is_read(box: Box, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(box.lake.root)
    with open_boxed(Lake(tmp_path / "link")) as connection:
        assert query_boxed(connection, "FROM units").height == box.query("FROM units").height


def test_a_part_that_is_gone_says_to_build_the_catalogue_again(tmp_path: Path, content: Content) -> None:
    lake = write_lake(Lake(tmp_path / "lake"), content)
    with open_boxed(lake) as connection:
        Path(lake.parts("units")[-1]).unlink()
        with pytest.raises(QueryError, match="run 'warehouse catalogue'"):
            query_boxed(connection, "SELECT sum(n_top) FROM units")
