"""Lakes on object stores: the same content, commits and answers as on a disk, and nothing of the store's keys."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pytest

import warehouse
from tests.builds import LAYER_0, XL, Mirror, build, plan, read_lake, register_small, write_units
from tests.stores import Store, anonymous_connection, publish, run_azurite, run_moto
from warehouse.box import open_boxed, query_boxed
from warehouse.catalogue import build_catalogue, is_current
from warehouse.checks import run_checks
from warehouse.errors import LakeError, QueryError, WarehouseError
from warehouse.explain.answers import Answer, write_answers
from warehouse.lake import Lake
from warehouse.plan import Selection
from warehouse.reader import LakeReader
from warehouse.records import NeuronRecord, UnitId
from warehouse.shard import extract_shard, flatten_shard

_RUN: dict[str, Callable[[], Any]] = {"s3": run_moto, "az": run_azurite}
_NUMBERS = count()


@dataclass(frozen=True)
class Place:
    """A store and a bucket in it that is this test's own."""

    store: Store
    bucket: str

    @property
    def lake(self) -> Lake:
        return Lake(f"{self.store.scheme}://{self.bucket}/some/lake")

    def objects(self) -> set[str]:
        return self.store.keys(self.bucket)


@pytest.fixture(scope="module", params=["s3", "az"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with _RUN[request.param]() as store, store.reachable(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("WAREHOUSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield store


@pytest.fixture
def place(store: Store) -> Place:
    bucket = f"bucket-{next(_NUMBERS)}"
    store.make_bucket(bucket)
    return Place(store, bucket)


@dataclass(frozen=True)
class Twins:
    """The same mirror built on a store and on a disk; read only."""

    remote: Lake
    local: Lake
    place: Place


@pytest.fixture(scope="module")
def twins(store: Store, nine_mirror: Mirror, built_lake: Lake) -> Twins:
    bucket = "twins"
    store.make_bucket(bucket)
    place = Place(store, bucket)
    build(place.lake, nine_mirror.root, ["gpt2-small", "gpt2-xl"], nine_mirror.selection)
    return Twins(place.lake, built_lake, place)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of this test's own for this machine's temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


# building ------------------------------------------------------------------------------------------------------------


def test_a_lake_on_a_store_has_the_content_of_the_local_one(twins: Twins) -> None:
    assert read_lake(twins.remote) == read_lake(twins.local)


def test_a_store_holds_the_parts_and_nothing_else(twins: Twins) -> None:
    names = {f"{table}/" for table in ("records", "units", "token_stats", "pair_stats", "files")}
    keys = twins.place.objects()
    assert all(
        re.match(r"some/lake/[a-z_]+/model=[^/]+/component=[^/]+/layer=\d/units-\d+-\d+\.parquet$", k) for k in keys
    )
    assert {k.removeprefix("some/lake/").partition("/")[0] + "/" for k in keys} == names


def test_a_second_build_has_nothing_to_do(place: Place, xl_mirror: Mirror) -> None:
    assert len(build(place.lake, xl_mirror.root, selection=xl_mirror.selection)) == 2
    assert build(place.lake, xl_mirror.root, selection=xl_mirror.selection) == []


@pytest.mark.parametrize("table", ["records", "units", "token_stats", "files"])
def test_a_put_that_fails_leaves_no_commit_and_a_second_build_completes(
    place: Place, xl_mirror: Mirror, temporary: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    lake = place.lake
    put = lake.fs.put_file

    def fail(local: str, path: str, **how: Any) -> None:
        if f"/{table}/" in path:
            raise ConnectionResetError("the connection was reset")
        put(local, path, **how)

    monkeypatch.setattr(lake.fs, "put_file", fail)
    with pytest.raises(LakeError, match=rf"^cannot write to the lake {lake.url}: the store does not answer [^\n]+$"):
        build(lake, xl_mirror.root, selection=LAYER_0)
    assert lake.shards() == []
    assert not [key for key in place.objects() if "/files/" in key]
    assert list(temporary.iterdir()) == []
    monkeypatch.setattr(lake.fs, "put_file", put)
    assert len(build(lake, xl_mirror.root, selection=LAYER_0)) == 1
    assert lake.parts("records")


def test_the_commit_is_removed_before_a_part_is_replaced_and_put_last(
    place: Place, xl_mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = place.lake
    build(lake, xl_mirror.root, selection=LAYER_0)
    steps: list[str] = []
    put, remove = lake.fs.put_file, lake.fs.rm_file

    def putting(local: str, path: str, **how: Any) -> None:
        steps.append("+" + path.split("/")[3])
        put(local, path, **how)

    def removing(path: str, **how: Any) -> None:
        steps.append("-" + path.split("/")[3])
        remove(path, **how)

    monkeypatch.setattr(lake.fs, "put_file", putting)
    monkeypatch.setattr(lake.fs, "rm_file", removing)
    build(lake, xl_mirror.root, selection=LAYER_0, force=True)
    steps = [step for step in steps if "probe" not in step]
    assert steps[0] == "-files"
    assert steps[-1] == "+files"
    assert {step for step in steps if step[0] == "+"} == {"+files", "+records", "+units", "+token_stats"}


def test_a_killed_writers_temporary_files_go_when_the_lake_is_next_made(place: Place, temporary: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    name = place.lake.temporary_path().name
    dead = temporary / name.replace(f"-{os.getpid()}-", f"-{child.pid}-")
    living, other = temporary / name, temporary / "other.tmp"
    for path in (dead, living, other):
        path.touch()
    place.lake.create()
    assert set(temporary.iterdir()) == {living, other}


def test_what_another_process_commits_is_seen_by_a_lake_that_has_listed_before(place: Place, xl_mirror: Mirror) -> None:
    lake = place.lake
    build(lake, xl_mirror.root, selection=LAYER_0)
    assert [shard.layer for shard in lake.shards()] == [0]
    assert lake.read_commits(lake.shards()).keys() == set(lake.shards())
    script = (
        "import sys; from pathlib import Path; from tests.builds import build; from warehouse.lake import Lake; "
        "from warehouse.plan import Selection; "
        "build(Lake(sys.argv[1]), Path(sys.argv[2]), selection=Selection((1,), (0,)))"
    )
    subprocess.run(
        [sys.executable, "-c", script, lake.url, str(xl_mirror.root)], check=True, cwd=Path(__file__).parent.parent
    )
    assert [shard.layer for shard in lake.shards()] == [0, 1]
    assert len(lake.read_commits(lake.shards())) == 2


def test_commits_read_together_are_those_read_one_by_one(twins: Twins) -> None:
    shards = twins.remote.shards()
    assert twins.remote.read_commits(shards) == {shard: twins.remote.read_commit(shard) for shard in shards}
    assert twins.remote.read_commits(shards) == twins.local.read_commits(shards)


def test_a_damaged_commit_is_none(place: Place, xl_mirror: Mirror) -> None:
    lake = place.lake
    build(lake, xl_mirror.root, selection=LAYER_0)
    (shard,) = lake.shards()
    lake.fs.pipe_file(lake.part_path("files", shard), b"PAR1 and then nothing")
    assert lake.read_commit(shard) is None
    assert lake.read_commits([shard]) == {}


def test_a_dataset_registered_on_a_store_can_be_built_from_raw_packs(place: Place, tmp_path: Path) -> None:
    lake = place.lake
    dataset = register_small(lake)
    assert lake.datasets()[dataset.key] == dataset
    write_units(tmp_path, dataset, [(0, unit, NeuronRecord(mean=unit / 2)) for unit in range(6)])
    lake.create()
    jobs = plan(lake, tmp_path, [dataset.key], Selection((0,), tuple(range(6))), table="raw").jobs
    assert sum(extract_shard(job).ok for job in jobs) == 6
    assert sum(flatten_shard(job).ok for job in jobs) == 6
    with warehouse.open(lake.url) as reader:
        assert reader.sql("SELECT mean FROM units ORDER BY unit")["mean"].to_list() == [0, 0.5, 1, 1.5, 2, 2.5]


# reading -------------------------------------------------------------------------------------------------------------

QUESTIONS: dict[str, Callable[[LakeReader], pl.DataFrame]] = {
    "coverage": LakeReader.coverage,
    "top_units": lambda reader: reader.top_units(" the"),
    "top_units_by_pair": lambda reader: reader.top_units_by_pair(),
    "unit": lambda reader: reader.unit("gpt2-xl/mlp_post_act/1/3"),
    "records": lambda reader: reader.records("gpt2-small/attn_write_norm/0/1"),
    "top_tokens": lambda reader: reader.top_tokens("gpt2-xl/mlp_post_act/1/3"),
    "a scan of every record": lambda reader: reader.sql(
        "SELECT model, sum(len(tokens)) FROM records GROUP BY ALL ORDER BY ALL"
    ),
    "files": lambda reader: reader.sql("SELECT unit_id, status, sha256 FROM files ORDER BY ALL"),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_has_the_answer_that_it_has_on_a_disk(twins: Twins, question: str) -> None:
    ask = QUESTIONS[question]
    with warehouse.open(twins.remote.url) as remote, warehouse.open(twins.local.url) as local:
        answer = ask(remote)
        assert answer.height > 0
        assert answer.equals(ask(local))


def test_a_units_record_and_every_check_are_as_on_a_disk(twins: Twins) -> None:
    with warehouse.open(twins.remote.url) as remote, warehouse.open(twins.local.url) as local:
        name = "gpt2-small/mlp_post_act/0/1"
        assert remote.neuron_record(name).to_json() == local.neuron_record(name).to_json()
    assert [(result.name, result.n_failing) for result in run_checks(twins.remote)] == [
        (result.name, 0) for result in run_checks(twins.local)
    ]


def test_a_copy_of_the_objects_is_a_lake_on_a_disk(twins: Twins, tmp_path: Path) -> None:
    twins.remote.fs.get(f"{twins.remote.root}/", f"{tmp_path}/", recursive=True)
    assert read_lake(Lake(tmp_path)) == read_lake(twins.local)
    with warehouse.open(tmp_path) as copy, warehouse.open(twins.local.url) as local:
        assert copy.top_units(" the").equals(local.top_units(" the"))


def test_nothing_of_the_credentials_is_kept_on_this_machine(twins: Twins) -> None:
    build_catalogue(twins.remote)
    with warehouse.open(twins.remote.url) as reader:
        reader.top_units(" the")
        settings = reader.sql("SELECT name, value FROM duckdb_settings()").rows()
    secret = twins.place.store.secret
    kept = [path for path in twins.remote.home.rglob("*") if path.is_file()]
    assert twins.remote.catalogue_path in kept
    assert not [path for path in kept if secret.encode() in path.read_bytes()]
    assert secret not in repr(settings)


@pytest.mark.parametrize(
    "path",
    [
        "URL/secret.parquet",
        "URL/some/lake/secret.parquet",
        "URL/some/lake/units/secret.parquet",
        "URL/some/lake/units/**/*.parquet",
        "URL/*",
        "PART/../../../../../../secret.parquet",
        "s3://elsewhere/secret.parquet",
        "https://example.com/secret.parquet",
        "CACHE/parts/**/*.parquet",
        "/etc/passwd",
    ],
)
def test_the_box_reads_parts_and_no_other_object_or_file(twins: Twins, path: str) -> None:
    lake, bucket = twins.remote, twins.place.bucket
    for key in ("secret.parquet", "some/lake/secret.parquet", "some/lake/units/secret.parquet"):
        lake.fs.pipe_file(f"{bucket}/{key}", b"PAR1 secret PAR1")
    part = f"{lake.prefix}{lake.parts('units')[0]}"
    names = {"URL": f"{lake.prefix}{bucket}", "PART": part, "CACHE": str(lake.home)}
    try:
        with open_boxed(lake) as connection:
            assert query_boxed(connection, f"SELECT count(*) FROM read_parquet('{part}')").item() > 0
            for name, value in names.items():
                path = path.replace(name, value)
            for reader in ("read_parquet", "read_blob", "parquet_metadata", "glob"):
                with pytest.raises(QueryError, match="Permission Error"):
                    query_boxed(connection, f"FROM {reader}('{path}')")
    finally:
        for key in ("secret.parquet", "some/lake/secret.parquet", "some/lake/units/secret.parquet"):
            lake.fs.rm_file(f"{bucket}/{key}")


def test_the_box_writes_nothing_to_the_store(twins: Twins) -> None:
    part = f"{twins.remote.prefix}{twins.remote.parts('units')[0]}"
    before = twins.place.objects()
    with open_boxed(twins.remote) as connection:
        with pytest.raises(QueryError, match="only reads"):
            query_boxed(connection, f"COPY (SELECT 1) TO '{part}' (FORMAT parquet)")
        with pytest.raises(Exception, match="only read here"):  # past the box's own check
            connection.execute(f"COPY (SELECT 1) TO '{part}' (FORMAT parquet, USE_TMP_FILE false)")
    assert twins.place.objects() == before


# a lake that changes -------------------------------------------------------------------------------------------------


def test_a_new_commit_is_in_the_answers_of_who_opens_the_lake_then(place: Place, xl_mirror: Mirror) -> None:
    build(place.lake, xl_mirror.root, selection=LAYER_0)
    with warehouse.open(place.lake.url) as reader:
        assert reader.sql("SELECT count(*) FROM units").item() == 8
        build(place.lake, xl_mirror.root, selection=xl_mirror.selection)
        assert reader.sql("SELECT count(*) FROM units").item() == 8
        assert not is_current(place.lake)
    with warehouse.open(place.lake.url) as reader:
        assert reader.sql("SELECT count(*) FROM units").item() == 16
        assert is_current(place.lake)


def test_a_shard_that_is_built_again_is_read_anew_by_who_opens_the_lake_then(place: Place, xl_tree: Path) -> None:
    lake = place.lake
    build(lake, xl_tree, selection=LAYER_0)
    with warehouse.open(lake.url) as reader:
        before = reader.sql("SELECT mean FROM units WHERE unit = 0").item()
    file = xl_tree / XL.paths[0].format(layer=0, unit=0)
    file.write_bytes(NeuronRecord(0, 0, mean=before + 1).to_json())
    build(lake, xl_tree, selection=LAYER_0, force=True)
    with warehouse.open(lake.url) as reader:
        assert reader.sql("SELECT mean FROM units WHERE unit = 0").item() == before + 1
    copies = sorted(path.name.split(".")[0] for path in lake.home.rglob("units/**/*.parquet"))
    assert copies == ["units-000000-000511"]


def test_records_that_change_under_a_reader_are_an_error_and_then_the_new_ones(place: Place, xl_tree: Path) -> None:
    lake = place.lake
    build(lake, xl_tree, selection=LAYER_0)
    query = "SELECT count(*), max(max_activation), sum(len(tokens)) FROM records"
    with warehouse.open(lake.url) as reader:
        reader.sql(query)
        file = xl_tree / XL.paths[0].format(layer=0, unit=0)
        file.write_bytes(NeuronRecord(0, 0).to_json())
        build(lake, xl_tree, selection=LAYER_0, force=True)
        with pytest.raises(WarehouseError, match=r"was built again while it was read: ask again$"):
            reader.sql("SELECT sum(len(activations)), max(rank), count(DISTINCT section) FROM records")
        after = reader.sql(query).row(0)
    with warehouse.open(lake.url) as reader:
        assert reader.sql(query).row(0) == after


def test_a_published_container_can_be_read_by_anyone_and_listed_by_nobody(store: Store, tmp_path: Path) -> None:
    """The store that tests of sources read is like the real bucket."""
    if store.scheme != "az":
        pytest.skip("S3 is not where the real bucket is")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "0.json").write_bytes(b"{}")
    url = publish(store, "published", tmp_path)
    with urllib.request.urlopen(f"{url}/data/0.json") as answer:
        assert answer.read() == b"{}"
        assert answer.headers["Content-MD5"]
    with pytest.raises(urllib.error.HTTPError, match="404|403|401"):
        urllib.request.urlopen(f"{url}?restype=container&comp=list")
    anonymous = fsspec.filesystem(
        "az", connection_string=anonymous_connection(store.endpoint), skip_instance_cache=True
    )
    assert anonymous.cat_file("published/data/0.json") == b"{}"


# what goes wrong -----------------------------------------------------------------------------------------------------


def test_a_bucket_that_is_not_there_is_one_line(store: Store) -> None:
    lake = Lake(f"{store.scheme}://no-such-bucket/lake")
    with pytest.raises(LakeError, match=rf"^cannot write to the lake {lake.url}: there is no such bucket or container"):
        lake.create()
    with pytest.raises(LakeError, match=rf"^no lake at {lake.url}: build one with") as caught:
        lake.require()
    assert "\n" not in str(caught.value)


def test_wrong_credentials_are_one_line_without_them(store: Store, place: Place, xl_mirror: Mirror) -> None:
    """Moto lets everyone in, so for S3 the refusal is made up where the real one would come from."""
    wrong = "d3Jvbmcta2V5"
    changed = {name: value.replace(store.secret, wrong) for name, value in store.environment.items()}
    url = place.lake.url
    with Store(store.scheme, store.endpoint, changed, wrong).reachable(), pytest.MonkeyPatch.context() as patch:
        lake = Lake(url)
        if store.scheme == "s3":

            def refuse(*_: Any, **__: Any) -> None:
                raise PermissionError("Access Denied")

            patch.setattr(lake.fs, "pipe_file", refuse)
        with pytest.raises(
            LakeError, match=rf"^cannot write to the lake {url}: the store refuses .*: check the"
        ) as caught:
            lake.create()
    assert "\n" not in str(caught.value)
    assert wrong not in str(caught.value)


def test_a_store_that_does_not_answer_is_one_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    port = re.search(r":(\d+)", store.endpoint)
    assert port is not None
    changed = {name: value.replace(f":{port[1]}", ":1") for name, value in store.environment.items()}
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with Store(store.scheme, store.endpoint, changed, store.secret).reachable():
        lake = Lake(f"{store.scheme}://bucket/lake")
        if store.scheme == "az":
            _retry_never(lake.fs)
        with pytest.raises(LakeError, match=r"^cannot write to the lake [^\n]*: the store does not answer [^\n]*$"):
            lake.create()


def _retry_never(fs: Any) -> None:
    for policy in fs.service_client._pipeline._impl_policies:
        if hasattr(policy, "total_retries"):
            policy.total_retries = 0


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIAX:hunter2@bucket/lake",
        "az://user:hunter2@container/lake",
        "abfss://c:hunter2@account.dfs.core.windows.net/lake",
        "az://container/lake?sv=2024&sig=hunter2",
        "s3://bucket/lake?X-Amz-Signature=hunter2",
    ],
)
def test_a_url_that_holds_a_secret_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(LakeError, match="credentials in the environment") as caught:
        Lake(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://host/lake", "http://host/lake", "s3://"])
def test_a_url_where_no_lake_can_be_is_one_line(url: str) -> None:
    with pytest.raises(LakeError, match=rf"^no lake can be at {url}: [^\n]+$"):
        Lake(url)


@pytest.mark.parametrize(("url", "extra"), [("s3://b/l", "s3"), ("az://c/l", "azure"), ("gs://b/l", "gcs")])
def test_a_plugin_that_is_missing_is_named_by_its_extra(url: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def miss(*_: Any, **__: Any) -> None:
        raise ImportError("no plugin")

    monkeypatch.setattr("fsspec.core.url_to_fs", miss)
    with pytest.raises(LakeError, match=rf"pip install 'activation-warehouse\[{extra}\]'"):
        Lake(url)


# explanations --------------------------------------------------------------------------------------------------------


def test_explanations_that_were_brought_to_a_store_are_searched_from_it(place: Place) -> None:
    lake = place.lake
    lake.create()
    unit = UnitId("gpt2-xl", "mlp_post_act", 3, 14)
    batches = [[Answer(unit, "me", "words about royalty")], [Answer(unit, "you", "kings")]]
    for found, batch in enumerate(batches, start=1):
        name = write_answers(lake, batch)
        assert f"some/lake/answers/{name}.parquet" in place.objects()
        assert not is_current(lake)
        with warehouse.open(lake.url) as reader:  # which brings a remote lake's catalogue up to date
            assert reader.sql("SELECT origin FROM explanations").height == found
            assert reader.search_explanations("royalties")["unit_id"].to_list() == [str(unit)]
            assert reader.search_explanations("king", "regex").height == found - 1
        assert is_current(lake)
    assert len(list((lake.home / "parts" / "answers").iterdir())) == 2
