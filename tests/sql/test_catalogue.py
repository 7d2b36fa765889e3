"""The catalogue as an artefact: what it holds, how it describes itself, and how it is replaced."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest

import warehouse
from tests.sql.lakes import HEADS, NEURONS, XL, Content, make_unit, write_lake
from warehouse import catalogue
from warehouse.catalogue import build_catalogue, is_current, read_sql
from warehouse.errors import LakeError
from warehouse.lake import Lake
from warehouse.reader import LakeReader
from warehouse.records import UnitId
from warehouse.schema import COLUMNS, TABLES

FOLDERS: tuple[catalogue.Folder, ...] = ("tables", "views", "macros", "checks")
ONE_UNIT = f"{NEURONS}/0/3"


@dataclass(frozen=True)
class Scan:
    """What DuckDB says of one scan of Parquet files."""

    files: list[str]
    row_groups: int
    row_groups_there: int


def parquet_scans(reader: LakeReader, query: str) -> list[Scan]:
    """Run a query and give its scans of Parquet files."""
    plan = reader.sql(f"EXPLAIN (ANALYZE, FORMAT json) {query}")["explain_value"].item()
    waiting, scans = [json.loads(plan)], []
    while waiting:
        node = waiting.pop()
        waiting += node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
        if isinstance(node, dict) and "Filename(s)" in node.get("extra_info", {}):
            files = node["extra_info"]["Filename(s)"].split(", ")
            scans.append(Scan(files, node["row_groups_scanned"], node["total_row_groups_to_scan"]))
    return scans


def test_each_file_makes_one_object_and_is_named_after_it() -> None:
    for folder in FOLDERS[:3]:
        for name, text in read_sql(folder).items():
            made = re.findall(r"^CREATE (TABLE|VIEW|MACRO) (?:IF NOT EXISTS )?(\w+)", text, re.MULTILINE)
            assert [(kind.lower() + "s", made_name) for kind, made_name in made] == [(folder, name)]


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_file_begins_with_what_a_row_is_and_where_from(folder: catalogue.Folder) -> None:
    for name, text in read_sql(folder).items():
        assert re.match(r"-- One row is: [^\n]+\n-- From: [^\n]+\n", text), name
        assert len(text.splitlines()) <= 140, name
        assert not re.search(r"SELECT\s+\*|\w\.\*", text), name


def test_the_catalogue_has_just_the_objects_of_the_folders(reader: LakeReader) -> None:
    relations = reader.sql("SHOW TABLES")["name"].to_list()
    macros = reader.sql("SELECT DISTINCT function_name AS name FROM duckdb_functions() WHERE NOT internal")["name"]
    assert sorted(relations) == sorted(read_sql("tables") | read_sql("views"))
    assert sorted(macros) == sorted(read_sql("macros"))


def test_every_object_and_column_has_a_comment(reader: LakeReader) -> None:
    silent = reader.sql(
        """
        SELECT table_name AS name FROM duckdb_tables() WHERE NOT internal AND coalesce(comment, '') = ''
        UNION ALL SELECT view_name FROM duckdb_views() WHERE NOT internal AND coalesce(comment, '') = ''
        UNION ALL SELECT function_name FROM duckdb_functions() WHERE NOT internal AND coalesce(comment, '') = ''
        UNION ALL SELECT table_name || '.' || column_name FROM duckdb_columns()
        WHERE NOT internal AND coalesce(comment, '') = ''
        """
    )
    assert silent.is_empty(), silent


def test_every_column_has_the_type_that_the_schema_says(reader: LakeReader) -> None:
    columns = reader.sql(
        "SELECT table_name, column_name, data_type, comment FROM duckdb_columns() WHERE NOT internal"
    ).rows()
    sql_types = {"TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ"}
    for table, name, data_type, comment in columns:
        if table in catalogue.KEPT_TABLES:  # which hold millions of rows, in the narrowest types there are
            assert comment == COLUMNS[name].description
            continue
        assert (sql_types.get(data_type, data_type), comment) == (COLUMNS[name].sql_type, COLUMNS[name].description), (
            f"{table}.{name}"
        )


def test_base_views_have_the_partitions_the_unit_id_and_the_columns_of_the_parts(reader: LakeReader) -> None:
    for table, columns in TABLES.items():
        unit, *others = (column for column in columns if column != "about")  # which is the view's component
        names = ["model", "component", "layer", unit, "unit_id", *others]
        derived = reader.sql(f"FROM {table} LIMIT 0").columns[len(names) :]
        assert reader.sql(f"FROM {table} LIMIT 0").columns == [*names, *derived]
        selectivity = {"n_tokens", "entropy", "top_token", "top_token_share"} if table == "units" else set()
        scored = {"score_low", "score_high", "n_scored"} if table.startswith("explanation") else set()
        assert set(derived) <= {"related_unit_id", "dataset"} | selectivity | scored


def test_a_column_without_a_description_stops_the_build(own_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(COLUMNS, "extra")
    with pytest.raises(LakeError, match="coverage.extra has no description"):
        build_catalogue(own_lake)
    assert not own_lake.catalogue_path.exists()
    assert [p.name for p in Path(own_lake.root, ".tmp").iterdir()] == []


@pytest.mark.parametrize(
    "view", ["units", "records", "token_stats", "files", "activations", "pair_stats", "pair_activations"]
)
def test_a_query_for_one_unit_opens_one_file_and_skips_other_units(reader: LakeReader, view: str) -> None:
    model, component, layer, unit = (f"{HEADS}/0/1" if view.startswith("pair") else f"{XL}/2/1").split("/")
    (scan,) = parquet_scans(
        reader,
        f"SELECT * FROM {view} WHERE model = '{model}' AND component = '{component}' "
        f"AND layer = {layer} AND unit = {unit}",
    )
    assert len(scan.files) == 1
    assert scan.row_groups == 1 < scan.row_groups_there


@pytest.mark.parametrize(
    "call",
    [f"unit_records('{HEADS}/0/1')", f"unit_records('{XL}/2/1', section := 'random')", f"top_tokens('{XL}/2/1')"],
)
def test_a_macro_for_one_unit_opens_one_file_and_skips_other_units(reader: LakeReader, call: str) -> None:
    (scan,) = parquet_scans(reader, f"SELECT * FROM {call}")
    assert len(scan.files) == 1
    assert scan.row_groups == 1 < scan.row_groups_there


@pytest.mark.parametrize("by", ["max", "mean", "share", "relative"])
def test_a_ranking_reads_no_parquet(reader: LakeReader, by: str) -> None:
    assert parquet_scans(reader, f"SELECT * FROM top_units(' the', \"by\" := '{by}')") == []


def test_any_client_in_any_folder_gets_the_same_rows(lake: Lake, reader: LakeReader, tmp_path: Path) -> None:
    query = "SELECT unit_id, score FROM top_units(' the', k := 5, \"by\" := 'share')"
    script = (
        "import duckdb, sys; con = duckdb.connect(sys.argv[1], read_only=True); "
        "print(con.execute(sys.argv[2]).fetchall())"
    )
    plain = subprocess.run(
        [sys.executable, "-c", script, str(lake.catalogue_path), query],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert plain.stdout.strip() == str(reader.sql(query).rows())


def test_a_catalogue_that_is_open_outlives_its_replacement(own_lake: Lake) -> None:
    build_catalogue(own_lake)
    with warehouse.open(own_lake.root) as reader:
        before = reader.top_units(" the")
        build_catalogue(own_lake)
        own_lake.catalogue_path.unlink()
        assert reader.top_units(" the").equals(before)
        assert not reader.sql("FROM unit_records($1)", [ONE_UNIT]).is_empty()


def test_what_was_committed_later_is_not_seen_until_the_catalogue_is_built_again(
    own_lake: Lake, content: Content
) -> None:
    build_catalogue(own_lake)
    assert is_current(own_lake)
    late = UnitId.parse(f"{NEURONS}/7/0")
    with warehouse.open(own_lake.root) as reader:
        n_units = reader.sql("SELECT count(*) FROM units").item()
        write_lake(own_lake, Content({late: make_unit(1)}))
        assert reader.sql("SELECT count(*) FROM units").item() == n_units
        assert not is_current(own_lake)
        build_catalogue(own_lake)
        assert is_current(own_lake)
        assert reader.sql("SELECT count(*) FROM units").item() == n_units, "an open reader keeps what it opened"
    with warehouse.open(own_lake.root) as again:
        assert again.sql("SELECT count(*) FROM units").item() == n_units + 1 == len(content.units) + 1


def test_an_uncommitted_shard_is_in_no_view(own_lake: Lake) -> None:
    shard = next(s for s in own_lake.shards() if s.component == "attn_write_norm")
    Path(own_lake.part_path("files", shard)).unlink()
    with warehouse.open(own_lake.root) as reader:
        for view in ("units", "records", "pair_stats", "pair_activations", "parts"):
            column = "path" if view == "parts" else "component"
            assert reader.sql(f"SELECT * FROM {view} WHERE {column} LIKE '%attn_write_norm%'").is_empty()


@pytest.mark.parametrize("name", ["it's a lake", "sp ace", "été-日本", "a[b]*c", 'quo"te', "per%cent$parts{x}", "-- x"])
def test_a_lake_may_lie_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    lake = write_lake(Lake(tmp_path / name), Content({UnitId.parse(ONE_UNIT): make_unit(1)}))
    with warehouse.open(lake.root) as reader:
        assert reader.sql("SELECT unit_id FROM units").rows() == [(ONE_UNIT,)]
        assert reader.top_units(" the").height == 1


def test_a_moved_lake_gets_a_new_catalogue_by_itself(own_lake: Lake, tmp_path: Path) -> None:
    build_catalogue(own_lake)
    moved = shutil.move(own_lake.root, tmp_path / "elsewhere")
    with warehouse.open(moved) as reader:
        assert reader.sql("SELECT root FROM catalogue").item() == str(moved)
        assert not reader.sql("FROM units").is_empty()


def test_a_catalogue_of_other_sql_is_built_again(own_lake: Lake) -> None:
    build_catalogue(own_lake)
    with duckdb.connect(str(own_lake.catalogue_path)) as connection:
        connection.execute("UPDATE catalogue SET definitions = 'of an older version'")
        connection.execute("DROP MACRO TABLE top_units")
    with warehouse.open(own_lake.root) as reader:
        assert not reader.top_units(" the").is_empty()


def test_a_file_that_is_no_catalogue_is_replaced(own_lake: Lake) -> None:
    own_lake.catalogue_path.write_bytes(b"not a database")
    with warehouse.open(own_lake.root) as reader:
        assert not reader.sql("FROM units").is_empty()


def test_a_lake_that_cannot_be_written_says_what_to_run(own_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise PermissionError(13, "Permission denied", str(target))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(LakeError, match="is missing or unreadable.*'warehouse catalogue --lake"):
        warehouse.open(own_lake.root).sql("FROM units")


def test_a_damaged_part_is_named_when_the_catalogue_is_built(own_lake: Lake) -> None:
    Path(own_lake.parts("units")[0]).write_bytes(b"PAR1 and then nothing")
    with pytest.raises(LakeError, match="cannot build the catalogue .*units-"):
        build_catalogue(own_lake)


def test_no_lake_is_an_error_that_names_the_place(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="no lake at .*nowhere"):
        warehouse.open(tmp_path / "nowhere")


def test_a_lake_without_parts_gives_empty_frames(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "empty")
    lake.create()
    Path(lake.root, "files").mkdir()
    with warehouse.open(lake.root) as reader:
        for view in [*read_sql("views")]:
            if view != "coverage":
                assert reader.sql(f"FROM {view}").is_empty()
        for by in ("max", "mean", "relative", "share"):
            assert reader.top_units(" the", by=by).is_empty()
        assert reader.top_units_by_pair().is_empty()
        assert reader.near_tokens(" the") == []
        assert reader.coverage()["expected"].sum() == reader.coverage()["missing"].sum() == 2_162_832 + 1_265_664
