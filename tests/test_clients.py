"""The catalogue is a plain DuckDB file: other clients open it from any folder, as docs/clients.md says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import adbc_driver_duckdb
import adbc_driver_manager.dbapi
import duckdb
import pandas
import polars as pl
import pytest
import sqlalchemy

from tests.builds import XL, Mirror, build
from tests.test_readme import ROOT, blocks
from warehouse.catalogue import build_catalogue
from warehouse.lake import Lake
from warehouse.plan import Selection

TOP = "SELECT unit_id, max_activation FROM top_units(' Paris', k := 3)"

COUNT_TWICE = """
import duckdb, sys
with duckdb.connect(sys.argv[1], read_only=True) as connection:
    for _ in range(2):
        print(*connection.execute("SELECT count(*), max(layer) FROM units").fetchone(), flush=True)
        sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another folder than the lake's and the project's to ask from."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def demo_lake(demo: tuple[Path, str]) -> Path:
    """The folder of the demo's lake."""
    folder, _ = demo
    return folder / "demo/lake"


@pytest.fixture(scope="module")
def catalogue(demo_lake: Path) -> Path:
    """The demo's DuckDB file."""
    return demo_lake / "warehouse.duckdb"


@pytest.fixture(scope="module")
def top(demo: tuple[Path, str], catalogue: Path) -> list[tuple[str, float]]:
    """What every client should answer to TOP."""
    with duckdb.connect(str(catalogue), read_only=True) as connection:
        rows = connection.sql(TOP).fetchall()
    assert len(rows) == 3
    return rows


@pytest.fixture
def engine(catalogue: Path) -> Iterator[sqlalchemy.Engine]:
    """SQLAlchemy's engine of the file, read-only."""
    engine = sqlalchemy.create_engine(f"duckdb:///{catalogue}", connect_args={"read_only": True})
    yield engine
    engine.dispose()


def start_counting(catalogue: Path, folder: Path) -> subprocess.Popen[str]:
    """Start a process that counts the units, waits for a line, and counts them again on the same connection."""
    return subprocess.Popen(
        [sys.executable, "-c", COUNT_TWICE, str(catalogue)],
        cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def read_count(reader: subprocess.Popen[str]) -> str:
    """Read one answer of such a process."""
    assert reader.stdout is not None
    return reader.stdout.readline().strip()


def test_several_processes_read_while_a_new_catalogue_is_swapped_in(xl_mirror: Mirror, tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    build(lake, xl_mirror.root, [XL.key], Selection((0,), xl_mirror.selection.units))
    path = build_catalogue(lake)
    readers = [start_counting(path, tmp_path) for _ in range(3)]
    try:
        assert [read_count(reader) for reader in readers] == ["8 0"] * 3
        build(lake, xl_mirror.root, [XL.key], xl_mirror.selection)
        build_catalogue(lake)
        readers.append(start_counting(path, tmp_path))
        assert read_count(readers[-1]) == "16 1"  # who opens it now sees the new one
        for reader in readers[:3]:
            assert reader.stdin is not None
            reader.stdin.write("\n")
            reader.stdin.flush()
        assert [read_count(reader) for reader in readers[:3]] == ["8 0"] * 3  # who had it open keeps the old one
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()


def test_the_connections_of_one_process_share_what_is_open(xl_mirror: Mirror, tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    build(lake, xl_mirror.root, [XL.key], Selection((0,), xl_mirror.selection.units))
    path = str(build_catalogue(lake))
    with duckdb.connect(path, read_only=True):
        build(lake, xl_mirror.root, [XL.key], xl_mirror.selection)
        build_catalogue(lake)
        with duckdb.connect(path, read_only=True) as another:
            assert another.sql("SELECT count(*) FROM units").fetchall() == [(8,)]
    with duckdb.connect(path, read_only=True) as later:
        assert later.sql("SELECT count(*) FROM units").fetchall() == [(16,)]


def test_who_reads_cannot_write(catalogue: Path) -> None:
    with (
        duckdb.connect(str(catalogue), read_only=True) as connection,
        pytest.raises(duckdb.InvalidInputException, match="read-only"),
    ):
        connection.execute("CREATE TABLE mine AS SELECT 1 AS one")


def test_it_can_be_attached_beside_a_database_of_ones_own(
    catalogue: Path, tmp_path: Path, top: list[tuple[str, float]]
) -> None:
    with duckdb.connect(str(tmp_path / "mine.duckdb")) as connection:
        connection.execute(f"ATTACH '{catalogue}' AS lake (READ_ONLY)")
        connection.execute("CREATE TABLE mine AS SELECT unit_id FROM lake.units WHERE layer = 5")
        assert connection.sql("SELECT count(*) > 100 FROM mine").fetchall() == [(True,)]
        connection.execute("USE lake")  # macros name each other without their database
        assert connection.sql(TOP).fetchall() == top


def test_polars_reads_the_file(catalogue: Path, top: list[tuple[str, float]]) -> None:
    with duckdb.connect(str(catalogue), read_only=True) as connection:
        assert pl.read_database(TOP, connection).rows() == top


def test_polars_scans_the_lakes_partitions(demo_lake: Path, catalogue: Path) -> None:
    scanned = (
        pl.scan_parquet(demo_lake / "token_stats/**/*.parquet", hive_partitioning=True)
        .filter(pl.col("token") == " Paris", pl.col("layer") == 5)
        .select("model", "component", "layer", "unit", "n")
    )
    with duckdb.connect(str(catalogue), read_only=True) as connection:
        rows = connection.sql(
            "SELECT model, component, layer, unit, n FROM token_stats WHERE token = ' Paris' AND layer = 5"
        ).fetchall()
    assert rows
    assert sorted(scanned.collect().rows()) == sorted(rows)


def test_pandas_gets_frames(catalogue: Path, engine: sqlalchemy.Engine, top: list[tuple[str, float]]) -> None:
    with duckdb.connect(str(catalogue), read_only=True) as connection:
        frame = connection.sql(TOP).df()
    assert list(zip(frame["unit_id"], frame["max_activation"].tolist(), strict=True)) == top
    assert pandas.read_sql(TOP, engine)["unit_id"].tolist() == [unit_id for unit_id, _ in top]


def test_adbc_reads_the_file_with_the_driver_of_duckdbs_wheel(catalogue: Path, top: list[tuple[str, float]]) -> None:
    options = {"path": str(catalogue), "access_mode": "READ_ONLY"}
    with (
        adbc_driver_manager.dbapi.connect(
            driver=adbc_driver_duckdb.driver_path(), entrypoint="duckdb_adbc_init", db_kwargs=options
        ) as connection,
        closing(connection.cursor()) as cursor,
    ):
        cursor.execute("SELECT unit_id, max_activation FROM top_units(?, k := 3)", [" Paris"])
        assert [tuple(row.values()) for row in cursor.fetch_arrow_table().to_pylist()] == top
        with pytest.raises(adbc_driver_manager.dbapi.ProgrammingError, match="read-only"):
            cursor.execute("CREATE TABLE mine AS SELECT 1 AS one")


def test_the_command_line_of_an_older_duckdb_reads_every_view_and_table(
    catalogue: Path, top: list[tuple[str, float]]
) -> None:
    with duckdb.connect(str(catalogue), read_only=True) as connection:
        views = connection.sql("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        names = [name for (name,) in views + connection.sql("SELECT table_name FROM duckdb_tables()").fetchall()]
        ours = connection.sql("SELECT version()").fetchall()
    counts = "; ".join(f"SELECT count(*) >= 0 FROM {name}" for name in names)
    asked = subprocess.run(
        [Path(sys.executable).with_name("duckdb"), "-readonly", "-list", "-noheader", str(catalogue),
         f"SELECT version(); {counts}; {TOP}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    version, *lines = asked.stdout.splitlines()
    assert [(version,)] < ours
    assert lines[: len(names)] == ["true"] * len(names)
    assert [line.partition("|")[0] for line in lines[len(names) :]] == [unit_id for unit_id, _ in top]


def test_sqlalchemy_asks_with_parameters_and_expressions(
    catalogue: Path, engine: sqlalchemy.Engine, top: list[tuple[str, float]]
) -> None:
    units = sqlalchemy.table("units", sqlalchemy.column("unit_id"), sqlalchemy.column("layer"))
    with engine.connect() as connection:
        asked = sqlalchemy.text("SELECT unit_id, max_activation FROM top_units(:token, k := 3)")
        assert [tuple(row) for row in connection.execute(asked, {"token": " Paris"})] == top
        layers = connection.execute(sqlalchemy.select(units.c.layer).distinct().order_by(units.c.layer))
        assert layers.scalars().all() == [0, 5]
    assert {"units", "records", "token_stats"} <= set(sqlalchemy.inspect(engine).get_view_names())


def test_sqlalchemy_cannot_reflect_columns_yet(engine: sqlalchemy.Engine) -> None:
    """Where this fails, duckdb-engine knows SQLAlchemy 2.1: then docs/clients.md need not warn any more."""
    with pytest.raises(sqlalchemy.exc.ProgrammingError, match="pg_collation"):
        sqlalchemy.inspect(engine).get_columns("units")


def test_the_programs_of_the_page_run(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    programs = blocks(ROOT / "docs/clients.md", "python")
    assert len(programs) == 4
    for program in programs:
        subprocess.run([sys.executable, "-c", program], cwd=folder, stdout=subprocess.DEVNULL, check=True)


def test_the_sql_of_the_page_runs(demo: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = demo
    monkeypatch.chdir(folder)
    (script,) = blocks(ROOT / "docs/clients.md", "sql")
    with duckdb.connect() as connection:
        assert len(connection.execute(script).fetchall()) == 3
