"""The token index against the Parquet that it was made from: whole, added to, and after shards were built anew."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import duckdb
import polars as pl
import pytest

from tests.indexes import failing_units, open_indexed
from tests.sql.lakes import HEADS, PAIR_LATENTS, VOCABULARY, Content, make_content, write_lake
from tests.sql.test_macros import rank_units
from warehouse import index
from warehouse.catalogue import build_catalogue
from warehouse.lake import Lake

PER_PAIR = {HEADS, PAIR_LATENTS}


@pytest.fixture(scope="module")
def content() -> Content:
    return make_content()


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory, content: Content) -> Lake:
    """The lake of every kind of dataset, with an indexed catalogue; do not write to it."""
    lake = write_lake(Lake(tmp_path_factory.mktemp("indexed") / "lake"), content)
    build_catalogue(lake)
    return lake


@pytest.fixture(scope="module")
def catalogue(indexed: Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_indexed(indexed) as connection:
        yield connection


@pytest.fixture
def own(tmp_path: Path, indexed: Lake) -> Lake:
    """A copy of the lake with its catalogue, that a test may change."""
    return Lake(shutil.copytree(indexed.root, tmp_path / "lake"))


def rows_of(connection: duckdb.DuckDBPyConnection, table: str) -> list[tuple[object, ...]]:
    columns = "model, component, layer, unit, unit_id, token, n, n_active, max_activation, sum_activation"
    more = "n_random, sum_random, sum_positive"
    return connection.execute(f"SELECT {columns}, {more} FROM {table} ORDER BY ALL").fetchall()


def require_exact(lake: Lake) -> None:
    """Compare every row of the index, and the vocabulary's counts, with the Parquet."""
    with open_indexed(lake) as connection:
        assert rows_of(connection, "token_index") == rows_of(connection, "token_stats")
        found = connection.execute("SELECT token, n_occurrences, n_units FROM vocabulary ORDER BY token").fetchall()
        counted = "SELECT token, sum(n), count(*) FROM token_stats GROUP BY token ORDER BY token"
        assert found == connection.execute(counted).fetchall()


def runs(lake: Lake) -> Counter[int]:
    with open_indexed(lake) as connection:
        return Counter(run for (run,) in connection.execute("SELECT run FROM index_shards").fetchall())


def drop_shard(lake: Lake) -> None:
    lake.remove_shard(lake.shards("token_stats")[0])


def halve_part(lake: Lake) -> None:
    """Commit a shard anew with the rows of one of its units alone."""
    shard = lake.shards("token_stats")[0]
    parts = {table: list(lake.iterate_part(table, shard)) for table in ("token_stats", "files")}
    (kept, *_) = parts["token_stats"][0]["unit"].to_pylist()
    for table, groups in parts.items():
        with lake.write_part(table, shard) as part:
            for group in groups:
                if table == "files":
                    part.commit_facts = {"source": "memory://later", "path": "{layer}/{unit}.json"}
                    part.write(group)
                else:
                    part.write(group.filter(pl.from_arrow(group)["unit"].eq(kept).to_arrow()))  # type: ignore[index]


def test_the_index_holds_the_rows_of_token_stats(indexed: Lake) -> None:
    require_exact(indexed)


@pytest.mark.parametrize("by", ["max", "mean", "relative", "share"])
@pytest.mark.parametrize("token", VOCABULARY)
def test_top_units_from_the_index_rank_as_a_scan_of_all_records_does(
    catalogue: duckdb.DuckDBPyConnection, content: Content, token: str, by: str
) -> None:
    found = catalogue.execute(
        'SELECT unit_id, score, n, sum_random FROM top_units($t, k := 100, "by" := $by)', {"t": token, "by": by}
    ).fetchall()
    expected = rank_units(content, "token", by, token)
    assert found == [(str(name), score, f.n, f.sum_random) for score, name, _, f in expected]
    assert found


@pytest.mark.parametrize("filters", ["", ", model := 'gpt2-xl'", ", component := 'mlp_post_act', layer := 1"])
@pytest.mark.parametrize("token", VOCABULARY)
def test_without_by_top_units_gives_the_same_rows_as_by_max(
    catalogue: duckdb.DuckDBPyConnection, token: str, filters: str
) -> None:
    asked = f"FROM top_units($t, k := 7{filters}%s)"
    found = catalogue.execute(asked % "", {"t": token}).fetchall()
    assert found == catalogue.execute(asked % ", \"by\" := 'max'", {"t": token}).fetchall()


def test_an_unknown_order_is_an_error_even_for_a_token_of_no_unit(catalogue: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(duckdb.Error, match="by must be max, mean, relative or share"):
        catalogue.execute("FROM top_units('a token of no unit', \"by\" := 'most')").fetchall()


def test_a_removed_shard_leaves_the_index_and_its_tokens_the_vocabulary(own: Lake) -> None:
    drop_shard(own)
    build_catalogue(own)
    require_exact(own)
    assert set(runs(own)) == {0}


def test_a_shard_built_anew_is_noticed_though_its_name_is_the_same(own: Lake) -> None:
    n_shards = runs(own).total()
    halve_part(own)
    build_catalogue(own)
    require_exact(own)
    assert runs(own) == {0: n_shards - 1, 1: 1}


def test_an_added_shard_becomes_a_further_run(own: Lake, indexed: Lake) -> None:
    drop_shard(own)
    build_catalogue(own)
    shutil.copytree(indexed.root, own.root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.duckdb"))
    build_catalogue(own)
    require_exact(own)
    assert runs(own)[1] == 1


def test_with_nothing_new_nothing_is_read_again(own: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a shard was read again")

    monkeypatch.setattr(index, "_append_shards", refuse)
    build_catalogue(own)
    require_exact(own)


def test_past_the_greatest_number_of_runs_all_is_sorted_into_one(own: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "MAX_RUNS", 1)
    halve_part(own)
    build_catalogue(own)
    require_exact(own)
    assert set(runs(own)) == {0}


def test_an_unreadable_catalogue_is_no_reason_not_to_index(own: Lake) -> None:
    own.catalogue_path.write_bytes(b"no database")
    build_catalogue(own)
    require_exact(own)


def test_a_build_that_dies_leaves_the_catalogue_that_was_there(own: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    before = own.catalogue_path.read_bytes()
    halve_part(own)
    monkeypatch.setattr(index, "_count_vocabulary", die)
    with pytest.raises(KeyboardInterrupt):
        build_catalogue(own)
    assert own.catalogue_path.read_bytes() == before


def test_rows_that_differ_from_the_parquet_fail_the_check(own: Lake) -> None:
    assert failing_units(own, "index_agrees") == []
    with duckdb.connect(str(own.catalogue_path)) as connection:
        ((unit,),) = connection.execute(
            "UPDATE index_rows SET sum_random = 77 WHERE rowid = 3 "
            "RETURNING concat_ws('/', model, component, layer, unit)"
        ).fetchall()
    assert failing_units(own, "index_agrees") == [unit]


def test_no_unit_of_token_pairs_is_in_the_index(catalogue: duckdb.DuckDBPyConnection, content: Content) -> None:
    assert any(f"{name.model}/{name.component}" in PER_PAIR for name in content.units)
    found = catalogue.execute("SELECT DISTINCT model || '/' || component FROM token_index").fetchall()
    assert not PER_PAIR & {key for (key,) in found}


@pytest.mark.parametrize(("token", "gpt2_id"), [(" the", 262), ("\n", 198), ('"', 1), ("\ufffd", None), (" a,b", None)])
def test_a_token_has_its_gpt2_id_where_that_is_one(
    catalogue: duckdb.DuckDBPyConnection, token: str, gpt2_id: int | None
) -> None:
    assert catalogue.execute("SELECT gpt2_id FROM vocabulary WHERE token = $t", {"t": token}).fetchall() == [(gpt2_id,)]


@pytest.mark.parametrize(
    ("pattern", "how", "found"),
    [
        (" the", "exact", {" the"}),
        (" the", "prefix", {" the", " theory"}),
        ("^.?[Tt]he$", "regex", {" the", "the", " The"}),
        ("THE", "loose", {" the", "the", " The"}),
        ("\\", "exact", {"\\"}),
        ("::", "prefix", {"::"}),
    ],
)
def test_find_tokens_gives_the_tokens_that_match(
    catalogue: duckdb.DuckDBPyConnection, pattern: str, how: str, found: set[str]
) -> None:
    rows = catalogue.execute("SELECT token FROM find_tokens($p, how := $how)", {"p": pattern, "how": how}).fetchall()
    assert {token for (token,) in rows} == found
