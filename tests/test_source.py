"""Sources: folders, other filesystems and real HTTP, and what is said of a file that cannot be had."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import fsspec
import pytest

from tests.builds import HASTY, LAYER_0, XL, Mirror, build, file_rows, find_dataset, read_lake, register_small
from tests.web import Web, serve
from warehouse.datasets import Dataset, builtin_datasets
from warehouse.errors import SourceError
from warehouse.lake import Lake
from warehouse.mirror import make_mirror
from warehouse.plan import Selection
from warehouse.records import LIMITS, UnitId
from warehouse.source import Fetched, Source

TEMPLATE = XL.paths[0]
LATENTS = builtin_datasets()["gpt2-small/mlp_post_act_ae_v4"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with the files 0 and 2 of layer 0, which are no NeuronRecords."""
    write(tmp_path / "tree", 0, b"zero")
    write(tmp_path / "tree", 2, b"two")
    return tmp_path / "tree"


@pytest.fixture
def web(tree: Path) -> Iterator[Web]:
    with serve(tree) as web:
        yield web


def write(root: Path, unit: int, data: bytes, template: str = TEMPLATE) -> Path:
    path = root / template.format(layer=0, unit=unit)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def fetch(source: Source, *units: int) -> list[Fetched]:
    return list(source.fetch(XL, 0, units))


def outcome(source: Source, *units: int) -> list[tuple[int, str, bytes | None]]:
    return [(one.unit, one.status, one.data) for one in fetch(source, *units)]


# a folder ------------------------------------------------------------------------------------------------------------


def test_a_folder_gives_the_files_that_are_there_and_says_which_are_absent(tree: Path) -> None:
    assert outcome(Source(tree), 0, 1, 2) == [(0, "ok", b"zero"), (1, "absent", None), (2, "ok", b"two")]


def test_a_result_says_where_when_and_which_version(tree: Path) -> None:
    before = datetime.now(UTC)
    (one,) = fetch(Source(tree), 2)
    assert one.uri == (tree / TEMPLATE.format(layer=0, unit=2)).as_uri()
    assert before - timedelta(seconds=1) <= one.fetched_at <= datetime.now(UTC)
    assert one.etag
    assert one.etag == Source(tree).current_mark(XL, 0, 2)
    write(tree, 2, b"other")
    assert one.etag != Source(tree).current_mark(XL, 0, 2)


def test_a_file_beyond_the_limit_is_rejected_without_being_read(tree: Path) -> None:
    os.truncate(write(tree, 1, b""), 2**42)  # more than any memory holds
    (one,) = fetch(Source(tree), 1)
    assert (one.status, one.data) == ("rejected", None)
    assert one.error == f"{2**42:,} bytes: at most {LIMITS.file_bytes:,} are read of a file"


def test_a_folder_in_place_of_a_file_fails_and_a_dangling_link_is_absent(tree: Path) -> None:
    path = write(tree, 1, b"")
    path.unlink()
    path.mkdir()
    path.with_name("3.json").symlink_to("nowhere")
    path.with_name("4.json").symlink_to("2.json")
    assert outcome(Source(tree), 1, 3, 4, 0) == [
        (1, "failed", None), (3, "absent", None), (4, "ok", b"two"), (0, "ok", b"zero"),
    ]  # fmt: skip
    assert fetch(Source(tree), 1)[0].error == "IsADirectoryError: Is a directory"


def test_a_path_too_long_for_the_disk_fails_as_a_row_and_not_as_the_shard(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    dataset = register_small(lake, paths=f'["{"x" * 300}/{{layer}}/{{unit}}"]')
    (summary,) = build(lake, tmp_path, [dataset.key], Selection((0,), (0, 1)))
    assert summary.failed == 2
    assert file_rows(lake)[0]["error"] == "OSError: File name too long"


@pytest.mark.parametrize("name", ["a b", "a?b#c", "100%", "user:pass@host", "[1]*", "ü"])
def test_a_source_may_lie_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, 0, b"zero")
    source = Source(tmp_path / name)
    assert outcome(source, 0) == [(0, "ok", b"zero")]
    assert source.url == f"file://{tmp_path / name}"


def test_a_folder_that_does_not_exist_and_a_file_in_its_place_are_source_errors(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("none", "file"):
        with pytest.raises(SourceError, match=rf"^no folder {tmp_path / name} to build from$"):
            Source(tmp_path / name)


def test_a_url_of_an_unknown_filesystem_is_a_source_error_without_its_secrets() -> None:
    with pytest.raises(SourceError, match=r"^cannot read from nosuch://host/tree: ") as caught:
        Source("nosuch://user:geheim@host/tree?sig=geheim")
    assert "geheim" not in str(caught.value)


# another filesystem --------------------------------------------------------------------------------------------------


def test_any_filesystem_of_fsspec_gives_what_a_folder_gives(tree: Path) -> None:
    memory = fsspec.filesystem("memory")
    for unit, data in ((0, b"zero"), (2, b"two")):
        memory.pipe_file(f"/mirror/{TEMPLATE.format(layer=0, unit=unit)}", data)
    source = Source("memory://mirror")
    assert not source.is_local
    assert outcome(source, 0, 1, 2) == outcome(Source(tree), 0, 1, 2)
    assert fetch(source, 0)[0].uri == f"memory:///mirror/{TEMPLATE.format(layer=0, unit=0)}"


# HTTP ----------------------------------------------------------------------------------------------------------------


def test_http_gives_what_a_folder_gives(web: Web, tree: Path) -> None:
    source = Source(web.url)
    assert outcome(source, 0, 1, 2) == outcome(Source(tree), 0, 1, 2)
    assert fetch(source, 2)[0].uri == f"{web.url}/{TEMPLATE.format(layer=0, unit=2)}"


def test_over_http_only_404_is_absent_and_every_other_trouble_is_a_failure_with_its_reason(web: Web) -> None:
    troubles = {3: "500", 4: "403", 5: "close", 6: "cut short"}
    for unit, fault in troubles.items():
        write(web.root, unit, b"never seen")
        web.faults[TEMPLATE.format(layer=0, unit=unit)] = fault  # type: ignore[assignment]
    results = {one.unit: one for one in fetch(Source(web.url, HASTY), *range(7))}
    assert {unit: one.status for unit, one in results.items()} == {
        0: "ok", 1: "absent", 2: "ok", 3: "failed", 4: "failed", 5: "failed", 6: "failed",
    }  # fmt: skip
    assert "500" in (results[3].error or "")
    assert "403" in (results[4].error or "")
    assert "ServerDisconnectedError" in (results[5].error or "")
    assert "ClientPayloadError" in (results[6].error or "")


def test_a_server_that_is_not_there_fails_every_file_and_none_is_absent(tmp_path: Path) -> None:
    with serve(tmp_path) as gone:
        pass
    lake = Lake(tmp_path / "lake")
    (summary,) = build(lake, gone.url, selection=LAYER_0)
    assert (summary.failed, summary.absent) == (8, 0)


def test_a_lake_built_over_http_holds_what_one_built_from_the_folder_holds(tmp_path: Path, xl_mirror: Mirror) -> None:
    over_http, from_folder = Lake(tmp_path / "http"), Lake(tmp_path / "folder")
    with serve(xl_mirror.root) as web:
        web.faults[TEMPLATE.format(layer=0, unit=5)] = "500"
        build(over_http, web.url, selection=LAYER_0)
        assert {u: row["status"] for u, row in file_rows(over_http).items() if row["status"] != "ok"} == {5: "failed"}
        web.faults.clear()
        (again,) = build(over_http, web.url, selection=LAYER_0)
        assert again.ok == 1
        assert build(over_http, web.url, selection=LAYER_0) == []
    build(from_folder, xl_mirror.root, selection=LAYER_0)
    lakes = [read_lake(over_http), read_lake(from_folder)]
    for parts in lakes:
        for path, rows in parts.items():
            for row in rows if path.startswith("files/") else ():
                row |= {"uri": Path(row["uri"]).name, "etag": None}
    assert lakes[0] == lakes[1]


# secrets -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form", ["http://user:geheim@{host}/", "http://{host}/?sv=1&sig=geh%2Feim%3D", "http://user@{host}"]
)
def test_credentials_are_used_and_are_written_nowhere(tmp_path: Path, web: Web, form: str) -> None:
    write(web.root, 3, b"never seen")
    web.faults[TEMPLATE.format(layer=0, unit=3)] = "500"
    url = form.format(host=f"127.0.0.1:{web.port}")
    lake = Lake(tmp_path / "lake")
    build(lake, url, selection=Selection((0,), (0, 1, 2, 3)))
    rows = file_rows(lake)
    assert [rows[unit]["status"] for unit in range(4)] == ["rejected", "absent", "rejected", "failed"]
    assert rows[0]["uri"] == f"{web.url}/{TEMPLATE.format(layer=0, unit=0)}"
    if "?" in url:
        assert {urlsplit(path).query.replace("%2F", "/") for path in web.asked} == {"sv=1&sig=geh/eim%3D"}
    if "geheim@" in url:
        assert web.authorizations == {"Basic dXNlcjpnZWhlaW0="}
    for path in Path(lake.root).rglob("*.parquet"):
        assert b"geh" not in path.read_bytes()
    for row in rows.values():
        assert not any(secret in str(row) for secret in ("geh", "user", "sig=", "Basic"))
    commit = lake.read_commit(lake.shards()[0])
    assert commit is not None
    assert commit.source == web.url


# path variants -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "memory", "http"])
@pytest.mark.parametrize("dataset", [d for d in builtin_datasets().values() if len(d.paths) > 1], ids=lambda d: d.key)
def test_the_variant_that_a_source_uses_is_found(tmp_path: Path, web: Web, dataset: Dataset, kind: str) -> None:
    for place, template in enumerate(dataset.paths):
        root = tmp_path / "tree" / f"{place}"
        write(root, 1, b"{}", template)
        url = {"folder": str(root), "memory": f"memory://variant/{dataset.key}/{place}", "http": f"{web.url}/{place}"}[
            kind
        ]
        if kind == "memory":
            fsspec.filesystem("memory").pipe_file(f"{url}/{template.format(layer=0, unit=1)}", b"{}")
        source = Source(url)
        assert [one.status for one in source.fetch(dataset, 0, range(3))] == ["absent", "ok", "absent"]
        assert source.path == template


def test_the_first_variant_that_answers_is_taken_and_the_commit_says_which(tmp_path: Path, xl_mirror: Mirror) -> None:
    for template in LATENTS.paths[1:3]:
        spec = xl_mirror.spec
        make_mirror(tmp_path, type(spec)((LATENTS,), units=(0, 1), counts=spec.counts, n_excerpts=50, path=template))
    lake = Lake(tmp_path / "lake")
    (summary,) = build(lake, tmp_path, [LATENTS.key], Selection((0,), (0, 1)))
    assert summary.ok == 2
    commit = lake.read_commit(lake.shards()[0])
    assert commit is not None
    assert commit.path == LATENTS.paths[1]
    assert file_rows(lake)[1]["uri"].endswith(LATENTS.paths[1].format(layer=0, unit=1))


def test_where_no_variant_answers_the_files_are_absent_under_the_first(tmp_path: Path, web: Web) -> None:
    for url in (str(web.root), web.url):
        source = Source(url)
        assert {one.status for one in source.fetch(LATENTS, 5, range(4))} == {"absent"}
        assert source.path == ""
    lake = Lake(tmp_path / "lake")
    (summary,) = build(lake, web.url, [LATENTS.key], Selection((5,), (0, 1)))
    assert summary.absent == 2
    assert file_rows(lake)[1]["uri"] == f"{web.url}/{LATENTS.paths[0].format(layer=5, unit=1)}"


def test_a_variant_is_found_by_any_one_file_that_is_there(web: Web) -> None:
    write(web.root, 123, b"{}", LATENTS.paths[2])
    for url in (str(web.root), web.url):
        source = Source(url)
        assert [one.unit for one in source.fetch(LATENTS, 0, range(200)) if one.status == "ok"] == [123]
        assert source.path == LATENTS.paths[2]


@pytest.mark.parametrize("fault", ["500", "403", "close"])
def test_a_variant_that_cannot_be_looked_up_now_is_not_called_absent(tmp_path: Path, web: Web, fault: str) -> None:
    for unit in range(3):
        write(web.root, unit, b"{}", LATENTS.paths[2])
        web.faults[LATENTS.paths[2].format(layer=0, unit=unit)] = fault  # type: ignore[assignment]
    lake = Lake(tmp_path / "lake")
    (summary,) = build(lake, web.url, [LATENTS.key], Selection((0,), (0, 1, 2)))
    assert (summary.failed, summary.absent) == (3, 0)
    web.faults.clear()
    (summary,) = build(lake, web.url, [LATENTS.key], Selection((0,), (0, 1, 2)))
    assert (summary.rejected, summary.absent) == (3, 0)


def test_every_file_of_the_mirror_lies_where_its_dataset_is_looked_up(nine_mirror: Mirror) -> None:
    source = Source(nine_mirror.root)
    for unit_id in nine_mirror.report.forms:
        dataset = find_dataset(unit_id)
        (found,) = source.fetch(dataset, unit_id.layer, [unit_id.unit])
        assert (found.status, source.path) == ("ok", dataset.paths[0])
    assert UnitId("gpt2-xl", "mlp_post_act", 0, 0) in nine_mirror.report.forms
