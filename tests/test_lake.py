"""The lake's own rules: names, moves, commits, and what is said where there is none."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.builds import LAYER_0, XL, Mirror, build, leftovers, read_lake, read_part
from warehouse.errors import LakeError
from warehouse.lake import Lake
from warehouse.parts import Shard, shard_of
from warehouse.plan import plan_build
from warehouse.schema import TABLES, arrow_schema
from warehouse.source import Source

SHARD = Shard("gpt2-xl", "mlp_post_act", 7, 512, 1023)


def rows_of_files(*units: int) -> pa.Table:
    rows = [{"unit": unit, "status": "absent", "uri": f"file:///{unit}"} for unit in units]
    return pa.Table.from_pylist(rows, schema=arrow_schema("files"))


def write_commit(lake: Lake, *units: int) -> None:
    with lake.write_part("files", SHARD) as part:
        part.commit_facts = {"source": "file:///source", "path": "{layer}/{unit}"}
        part.write(rows_of_files(*units))


# names ---------------------------------------------------------------------------------------------------------------


def test_a_shard_has_the_same_part_name_in_every_table_whatever_is_in_it() -> None:
    assert SHARD.part_name == "model=gpt2-xl/component=mlp_post_act/layer=7/units-000512-001023.parquet"
    paths = {Lake("/lake").part_path(table, SHARD) for table in TABLES}
    assert paths == {f"/lake/{table}/{SHARD.part_name}" for table in TABLES}


@pytest.mark.parametrize(("unit", "first", "last"), [(0, 0, 511), (511, 0, 511), (512, 512, 1023), (6399, 6144, 6655)])
def test_a_unit_belongs_to_one_shard_of_fixed_bounds(unit: int, first: int, last: int) -> None:
    assert shard_of(XL, 7, unit) == Shard("gpt2-xl", "mlp_post_act", 7, first, last)


def test_two_builds_of_one_source_write_the_same_paths(tmp_path: Path, xl_mirror: Mirror) -> None:
    paths = []
    for name in ("one", "two"):
        lake = Lake(tmp_path / name)
        build(lake, xl_mirror.root, selection=xl_mirror.selection)
        paths.append({str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*.parquet")})
    assert paths[0] == paths[1]
    assert len(paths[0]) == 2 * 4


@pytest.mark.parametrize("table", ["records", "units", "token_stats", "pair_stats", "files"])
def test_every_part_has_the_columns_that_the_schema_says_in_their_order(built_lake: Lake, table: str) -> None:
    schema = arrow_schema(table)
    assert built_lake.parts(table)
    for path in built_lake.parts(table):
        assert [(f.name, f.type) for f in pq.read_schema(path)] == [
            (f.name, f.type if not pa.types.is_list(f.type) else pa.list_(pa.field("element", f.type.value_type)))
            for f in schema
        ]


@pytest.mark.parametrize("name", ["lake [1]", "a*b?c", "[!x]", "with 'quotes'", "ünïcode", "100%", "a#b"])
def test_a_lake_may_lie_in_a_folder_of_any_name(tmp_path: Path, xl_mirror: Mirror, name: str) -> None:
    lake = Lake(tmp_path / name)
    build(lake, xl_mirror.root, selection=LAYER_0)
    assert [shard.layer for shard in lake.shards()] == [0]
    assert plan_build(lake, Source(xl_mirror.root), [XL.key], LAYER_0).n_done == 1


def test_a_lake_can_be_sent_to_another_process(tmp_path: Path) -> None:
    lake = pickle.loads(pickle.dumps(Lake(tmp_path / "lake")))
    assert (lake.root, lake.is_local) == (str(tmp_path / "lake"), True)


# parts ---------------------------------------------------------------------------------------------------------------


def test_a_part_is_seen_only_when_it_is_whole(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.create()
    with lake.write_part("files", SHARD) as part:
        part.commit_facts = {"source": "", "path": ""}
        part.write(rows_of_files(512))
        assert lake.shards() == []
        assert len(leftovers(lake)) == 1
        part.write(rows_of_files(513))
        assert lake.shards() == []
    assert lake.shards() == [SHARD]
    assert leftovers(lake) == []
    assert [group.num_rows for group in lake.iterate_part("files", SHARD)] == [1, 1]


def records_of(sizes: dict[int, int]) -> pa.Table:
    """Make records of units, each of one token that is its unit's own and one that is everybody's."""
    units = [unit for unit, n in sizes.items() for _ in range(n)]
    tokens = pa.array([token for unit in units for token in (f"of {unit}", "the")]).dictionary_encode()
    lists = pa.ListArray.from_arrays(pa.array(range(0, 2 * len(units) + 1, 2), pa.int32()), tokens)
    columns = {
        "unit": pa.array(units, pa.int32()),
        "section": ["top"] * len(units),
        "rank": pa.array([rank for n in sizes.values() for rank in range(n)], pa.int32()),
        "tokens": lists,
        "activations": pa.array([[float(unit), 0.5] for unit in units], pa.list_(pa.float32())),
    }
    nothing = {name: pa.nulls(len(units), arrow_schema("records").field(name).type) for name in TABLES["records"]}
    return pa.table(nothing | columns)


@pytest.mark.parametrize("is_merged", [False, True])
@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ({5: 2, 6: 2, 7: 2, 9: 2}, [[5, 6], [7, 9]]),
        ({5: 1, 6: 1, 7: 9, 8: 1}, [[5, 6, 7], [8]]),
        ({5: 9, 6: 9}, [[5], [6]]),
    ],
)
def test_records_lie_in_row_groups_of_whole_units_with_tokens_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: dict[int, int], groups: list[list[int]], is_merged: bool
) -> None:
    monkeypatch.setattr("warehouse.parts.GROUP_VALUES", 8)
    lake = Lake(tmp_path)
    lake.create()
    rows = records_of({3: 4, **sizes}).slice(4)
    with lake.write_part("records", SHARD) as part:
        part.write(rows.cast(arrow_schema("records")) if is_merged else rows)
    assert pa.concat_tables(lake.iterate_part("records", SHARD)).to_pylist() == rows.to_pylist()
    found = pq.ParquetFile(lake.part_path("records", SHARD), read_dictionary=["tokens.list.element"])
    for number, units in enumerate(groups):
        group = found.read_row_group(number)
        assert sorted(set(group["unit"].to_pylist())) == units
        tokens = group["tokens"].combine_chunks().values
        assert sorted(tokens.dictionary.to_pylist()) == [*(f"of {unit}" for unit in units), "the"]


def test_an_exception_while_a_part_is_written_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.create()
    write_commit(lake, 512)
    with pytest.raises(KeyError, match="broken"), lake.write_part("files", SHARD) as part:
        part.write(rows_of_files(600))
        raise KeyError("broken")
    assert [row["unit"] for row in read_part(lake, "files", SHARD)] == [512]
    assert leftovers(lake) == []


def test_a_part_that_cannot_be_moved_leaves_nothing(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.create()
    (tmp_path / "files").touch()
    with pytest.raises(OSError, match="."):
        write_commit(lake, 512)
    assert leftovers(lake) == []


def test_a_part_without_rows_is_not_written_and_removes_that_of_an_earlier_build(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.create()
    with lake.write_part("files", SHARD) as part:
        part.write(rows_of_files())
    assert not Path(lake.part_path("files", SHARD)).exists()
    write_commit(lake, 512)
    with lake.write_part("files", SHARD) as part:
        part.write(rows_of_files())
    assert not Path(lake.part_path("files", SHARD)).exists()
    assert leftovers(lake) == []


def test_a_part_that_is_not_there_gives_no_rows(tmp_path: Path) -> None:
    assert list(Lake(tmp_path).iterate_part("records", SHARD)) == []


def test_arrow_reads_a_disk_itself_as_its_threads_may_outlive_the_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a Python file, a command that ends in an error soon after ends, now and then, in SIGABRT."""
    opened: list[object] = []

    class Watched(pq.ParquetFile):  # type: ignore[misc]
        def __init__(self, source: object, **options: object) -> None:
            opened.append(source)
            super().__init__(source, **options)

    lake = Lake(tmp_path)
    lake.create()
    write_commit(lake, 1, 2)
    lake.write_batch("answers", "batch", rows_of_files(3))
    monkeypatch.setattr(pq, "ParquetFile", Watched)
    assert lake.read_commit(SHARD) is not None
    assert [rows["unit"].to_pylist() for rows in lake.iterate_part("files", SHARD)] == [[1, 2]]
    batches = [rows for path in lake.batches("answers") for rows in lake.iterate_batch(path, ["unit"])]
    assert [rows["unit"].to_pylist() for rows in batches] == [[3]]
    assert [type(source) for source in opened] == [pa.OSFile] * 3


def test_only_parts_of_committed_shards_are_the_lakes(tmp_path: Path, xl_mirror: Mirror) -> None:
    lake = Lake(tmp_path)
    build(lake, xl_mirror.root, selection=xl_mirror.selection)
    first, second = lake.shards()
    Path(lake.part_path("files", first)).unlink()
    assert lake.shards("records") == [first, second]
    for table in ("records", "units", "token_stats", "files"):
        assert lake.parts(table) == [lake.part_path(table, second)]
    assert lake.read_commit(first) is None


def test_files_of_other_names_are_no_shards(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.create()
    write_commit(lake, 512)
    folder = Path(lake.part_path("files", SHARD)).parent
    for name in ("units-x-y.parquet", "units-000000-000511.parquet.bak", "notes.txt", "units-1.parquet"):
        (folder / name).touch()
    assert lake.shards() == [SHARD]


# commits -------------------------------------------------------------------------------------------------------------


def test_a_commit_says_source_path_and_files(tmp_path: Path, xl_mirror: Mirror) -> None:
    lake = Lake(tmp_path)
    build(lake, xl_mirror.root, selection=LAYER_0)
    commit = lake.read_commit(lake.shards()[0])
    assert commit is not None
    assert commit.source == xl_mirror.root.as_uri()
    assert commit.path == "data/collated-activations/{layer}/{unit}.json"
    assert commit.units == tuple(range(8))
    assert commit.statuses == ("ok",) * 8
    assert len({*commit.hashes}) == 8


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"not parquet at all, but longer than a footer"])
def test_a_damaged_commit_is_none_and_the_shard_is_done_again(tmp_path: Path, xl_mirror: Mirror, damage: bytes) -> None:
    lake = Lake(tmp_path)
    build(lake, xl_mirror.root, selection=LAYER_0)
    before = read_lake(lake)
    Path(lake.part_path("files", lake.shards()[0])).write_bytes(damage)
    assert lake.read_commit(lake.shards()[0]) is None
    assert len(build(lake, xl_mirror.root, selection=LAYER_0)) == 1
    assert read_lake(lake) == before


def test_a_commit_of_another_format_version_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(tmp_path)
    lake.create()
    monkeypatch.setattr("warehouse.lake.FORMAT_VERSION", 999)
    write_commit(lake, 512)
    assert lake.read_commit(SHARD) is not None
    monkeypatch.undo()
    assert lake.read_commit(SHARD) is None


# creation ------------------------------------------------------------------------------------------------------------


def test_creating_a_lake_removes_what_dead_writers_left_and_nothing_of_living_ones(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.create()
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    host = socket.gethostname()
    (tmp_path / ".tmp" / f"{host}-{child.pid}-0a.tmp").touch()
    living = tmp_path / ".tmp" / f"{host}-{os.getpid()}-0b.tmp"
    elsewhere = tmp_path / ".tmp" / f"another-machine-{child.pid}-0c.tmp"
    for path in (living, elsewhere):
        path.touch()
    old = tmp_path / ".tmp" / f"another-machine-{child.pid}-0d.tmp"
    old.touch()
    os.utime(old, (0, 0))
    lake.create()
    assert set(leftovers(lake)) == {living, elsewhere}


def test_creating_a_lake_bears_a_writer_that_moves_its_file_meanwhile(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.create()
    vanishing = tmp_path / ".tmp" / f"another-machine-{os.getpid()}-0a.tmp"
    vanishing.symlink_to(tmp_path / "moved away")
    lake.create()


@pytest.mark.parametrize("place", ["file/lake", "/proc/lake"])
def test_a_lake_that_cannot_be_written_is_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LakeError, match=r"^cannot write to the lake [^\n]*lake: [^\n]+$"):
        Lake(tmp_path / place).create()


def test_a_lake_that_is_not_there_is_one_line_with_the_command_that_makes_one(tmp_path: Path) -> None:
    for url in (str(tmp_path / "none"), "memory://none"):
        with pytest.raises(
            LakeError, match=rf"^no lake at {url}: build one with 'warehouse build DATASET --lake {url}'"
        ):
            Lake(url).require()


@pytest.mark.parametrize("url", ["nosuchprotocol://bucket/lake", "gopher://lake"])
def test_a_lake_on_an_unknown_filesystem_is_one_line(url: str) -> None:
    with pytest.raises(LakeError, match=rf"^no lake can be at {url}: [^\n]+$"):
        Lake(url)


def test_a_lake_can_lie_on_a_filesystem_that_is_no_disk(xl_mirror: Mirror, tmp_path: Path) -> None:
    remote, local = Lake("memory://some/lake"), Lake(tmp_path)
    for lake in (remote, local):
        build(lake, xl_mirror.root, selection=xl_mirror.selection)
    assert not remote.is_local
    assert read_lake(remote) == read_lake(local)
    assert build(remote, xl_mirror.root, selection=xl_mirror.selection) == []
    remote.require()
    assert not [path for path in remote.fs.find("/some/lake") if not path.endswith(".parquet")]


@pytest.mark.parametrize("name", ["unit=5", "rank=", "a=b/lake"])
def test_no_lake_is_in_a_folder_that_readers_would_take_for_a_column(tmp_path: Path, name: str) -> None:
    with pytest.raises(LakeError, match="for a column"):
        Lake(tmp_path / name)
