"""Each check passes on a good lake, and fails on one with that thing broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.sql.lakes import EXPLANATIONS, HEADS, NEURONS, RELATED_TOKENS, RELATED_UNITS, Row, file_row
from warehouse.catalogue import read_sql
from warehouse.checks import CATALOGUE_CHECKS, run_checks
from warehouse.errors import LakeError
from warehouse.lake import Lake
from warehouse.parts import Shard, shard_of
from warehouse.records import UnitId
from warehouse.schema import arrow_schema

Break = Callable[[list[Row]], object]
NEURON = UnitId.parse(f"{NEURONS}/0/3")
HEAD = UnitId.parse(f"{HEADS}/0/1")
EXPLAINED = UnitId.parse(f"{EXPLANATIONS}/2/1")
RELATED = UnitId.parse(f"{RELATED_UNITS}/2/1")
TOKENS = UnitId.parse(f"{RELATED_TOKENS}/2/1")


def shard(lake: Lake, name: UnitId) -> Shard:
    return shard_of(lake.datasets()[f"{name.model}/{name.component}"], name.layer, name.unit)


def rewrite(lake: Lake, table: str, name: UnitId, change: Break) -> None:
    """Change the rows of one unit in its part of a table, and leave the rest as it was."""
    path = lake.part_path(table, shard(lake, name))
    part = pq.ParquetFile(path).read()
    rows = part.to_pylist()
    own = [row for row in rows if row["unit"] == name.unit]
    others = [row for row in rows if row["unit"] != name.unit]
    change(own)
    changed = pa.Table.from_pylist(others + own, schema=arrow_schema(table))
    pq.write_table(changed.replace_schema_metadata(part.schema.metadata), path)


def double(row: Row, column: str) -> None:
    row[column] = 2 * row[column]  # type: ignore[operator]


def lengthen(row: Row) -> None:
    row["activations"] = [*row["activations"], -99.0]  # type: ignore[misc]


def drop_random(rows: list[Row]) -> None:
    rows.remove(next(row for row in rows if row["section"] == "random" and row["rank"] == 2))


def repeat_rank(rows: list[Row]) -> None:
    next(row for row in rows if row["section"] == "top" and row["rank"] == 1)["rank"] = 2


def leave_buckets(rows: list[Row]) -> None:
    for row in rows:
        row["quantile"] = 9 if row["quantile"] == 4 else row["quantile"]


def give_bucket_to_top(rows: list[Row]) -> None:
    for row in rows:
        row["quantile"] = 0 if row["section"] == "top" else row["quantile"]


def add_unit(rows: list[Row], **row: object) -> None:
    rows.append({"unit": 77, **row})


def set_17(column: str) -> Break:
    return lambda rows: rows[0].update({column: 17})


BREAKS: list[tuple[str, str, UnitId, Break]] = [
    ("files_match_units", "units", NEURON, lambda rows: rows.clear()),
    ("files_match_units", "units", NEURON, lambda rows: rows.append(dict(rows[0]))),
    ("files_match_units", "units", NEURON, lambda rows: add_unit(rows, n_top=0, n_random=0, n_quantile=0)),
    ("units_match_records", "records", NEURON, drop_random),
    ("units_match_records", "units", HEAD, lambda rows: double(rows[0], "n_top")),
    ("ranks_without_gaps", "records", NEURON, repeat_rank),
    ("ranks_without_gaps", "records", HEAD, lambda rows: rows[0].update(rank=50)),
    ("quantile_within_buckets", "records", NEURON, leave_buckets),
    ("quantile_within_buckets", "records", NEURON, give_bucket_to_top),
    ("quantile_within_buckets", "units", NEURON, lambda rows: rows[0].update(n_buckets=None)),
    ("lengths_match", "records", NEURON, lambda rows: lengthen(rows[0])),
    ("pairs_fit", "records", HEAD, lambda rows: lengthen(rows[0])),
    ("pairs_fit", "records", HEAD, lambda rows: rows[0].update(activations=[])),
    ("pairs_fit", "records", HEAD, lambda rows: rows[0].update(activations=[0.5] * 37)),
    ("no_orphan_records", "records", NEURON, lambda rows: add_unit(rows, section="top", rank=0)),
    ("no_orphan_token_stats", "token_stats", NEURON, lambda rows: add_unit(rows, token=" x")),
    ("no_orphan_pair_stats", "pair_stats", HEAD, lambda rows: add_unit(rows, query_token=" x", key_token=" y")),
    ("positives_sum_up", "token_stats", NEURON, lambda rows: double(rows[0], "sum_positive")),
    ("positives_sum_up", "token_stats", NEURON, lambda rows: rows.pop()),
    ("positives_sum_up", "token_stats", NEURON, lambda rows: rows.clear()),
    ("token_stats_agree", "token_stats", NEURON, lambda rows: rows[0].update(token="a token of no record")),
    ("token_stats_agree", "token_stats", NEURON, lambda rows: rows.clear()),
    *(("token_stats_agree", "token_stats", NEURON, set_17(column)) for column in arrow_schema("token_stats").names[2:]),
    ("pair_stats_complete", "pair_stats", HEAD, lambda rows: rows.clear()),
    ("pair_stats_complete", "pair_stats", HEAD, lambda rows: rows.pop()),
    ("max_agrees", "records", NEURON, lambda rows: double(rows[0], "max_activation")),
    ("max_agrees", "records", NEURON, lambda rows: rows[0].update(argmax=(rows[0]["argmax"] + 1) % 8)),  # type: ignore[operator]
    ("max_agrees", "units", HEAD, lambda rows: double(rows[0], "max_activation")),
    ("max_agrees", "units", NEURON, lambda rows: rows[0].update(max_activation=None)),
    ("no_duplicate_files", "files", NEURON, lambda rows: rows.append(file_row(3, "absent"))),
    ("statuses_have_reasons", "files", NEURON, lambda rows: rows[0].update(sha256=None)),
    ("statuses_have_reasons", "files", NEURON, lambda rows: rows[0].update(bytes=None)),
    ("statuses_have_reasons", "files", NEURON, lambda rows: rows[0].update(status="failed")),
    ("statuses_have_reasons", "files", NEURON, lambda rows: rows[0].update(status="rejected", error="")),
    ("statuses_have_reasons", "files", NEURON, lambda rows: rows[0].update(status="fine")),
    ("pair_stats_bounded", "pair_stats", HEAD, lambda rows: rows.append(dict(rows[0]))),
    (
        "pair_stats_bounded",
        "pair_stats",
        HEAD,
        lambda rows: rows.extend({**rows[0], "query_token": f"q{i}"} for i in range(1001)),
    ),
    ("pair_stats_agree", "pair_stats", HEAD, lambda rows: rows[0].update(key_token="a token of no record")),
    *(("pair_stats_agree", "pair_stats", HEAD, set_17(column)) for column in arrow_schema("pair_stats").names[3:]),
    ("no_orphan_explanations", "explanations", EXPLAINED, lambda rows: add_unit(rows, rank=0, explanation="x")),
    ("no_orphan_explanation_scores", "explanation_scores", EXPLAINED, lambda rows: add_unit(rows, rank=0)),
    ("no_orphan_related_units", "related_units", RELATED, lambda rows: add_unit(rows, rank=0)),
    ("no_orphan_related_tokens", "related_tokens", TOKENS, lambda rows: add_unit(rows, rank=0)),
    ("explanation_ranks_without_gaps", "explanations", EXPLAINED, lambda rows: rows.pop(0)),
    ("explanation_ranks_without_gaps", "explanations", EXPLAINED, lambda rows: rows.append(dict(rows[1]))),
    ("explanation_scores_agree", "explanations", EXPLAINED, lambda rows: double(rows[0], "score")),
    ("explanation_scores_agree", "explanations", EXPLAINED, lambda rows: rows[0].update(score_kind="rsquared")),
    ("explanation_scores_agree", "explanations", EXPLAINED, lambda rows: rows.pop(0)),
    ("explanation_scores_agree", "explanation_scores", EXPLAINED, lambda rows: rows.pop(0)),
    ("explanation_scores_agree", "explanation_scores", EXPLAINED, lambda rows: rows[1].update(score=None)),
    ("explanation_scores_agree", "explanation_scores", EXPLAINED, lambda rows: rows.append(dict(rows[1]))),
]


def test_every_check_passes_on_a_good_lake(lake: Lake) -> None:
    results = run_checks(lake)
    assert {result.name: result.sample for result in results} == {
        name: [] for name in [*read_sql("checks"), "no_uncommitted_parts"]
    }
    assert all(result.n_failing == 0 and len(result.title) > 20 for result in results)


def test_every_check_has_a_way_to_break_it() -> None:
    # Those of the catalogue's own tables are broken in the tests of these tables.
    assert {name for name, *_ in BREAKS} == set(read_sql("checks")) - set(CATALOGUE_CHECKS)


@pytest.mark.parametrize(
    ("name", "table", "unit", "change"), BREAKS, ids=lambda value: None if callable(value) else str(value)[:40]
)
def test_a_check_finds_what_is_broken_and_shows_it(
    own_lake: Lake, monkeypatch: pytest.MonkeyPatch, name: str, table: str, unit: UnitId, change: Break
) -> None:
    rewrite(own_lake, table, unit, change)
    monkeypatch.setattr(
        "warehouse.checks.read_sql", lambda folder: {name: read_sql(folder)[name]}
    )  # it alone, for time
    (result,) = [result for result in run_checks(own_lake) if result.name == name]
    assert result.n_failing >= 1
    shown = result.sample[0]
    assert (shown["model"], shown["component"], shown["layer"]) == (unit.model, unit.component, unit.layer)
    assert shown["unit"] in (unit.unit, 77)


def test_the_sample_is_short_and_the_count_whole(own_lake: Lake) -> None:
    rewrite(own_lake, "records", NEURON, lambda rows: [row.update(argmax=99) for row in rows])
    (result,) = [result for result in run_checks(own_lake) if result.name == "max_agrees"]
    assert (result.n_failing, len(result.sample)) == (15, 5)


def test_parts_without_a_commit_are_named_with_what_to_do(own_lake: Lake) -> None:
    neurons = shard(own_lake, NEURON)
    Path(own_lake.part_path("files", neurons)).unlink()
    (result,) = [result for result in run_checks(own_lake) if result.name == "no_uncommitted_parts"]
    assert result.n_failing == 3
    assert [row["path"] for row in result.sample] == [
        own_lake.part_path(table, neurons) for table in ("records", "units", "token_stats")
    ]
    assert {row["advice"] for row in result.sample} == {"run the build of this shard again"}


def test_checks_leave_the_lake_as_it_is(own_lake: Lake) -> None:
    before = sorted(path for path in Path(own_lake.root).rglob("*"))
    run_checks(own_lake)
    assert sorted(path for path in Path(own_lake.root).rglob("*")) == before


def test_a_damaged_part_is_named(own_lake: Lake) -> None:
    path = Path(own_lake.part_path("records", shard(own_lake, HEAD)))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(LakeError, match="cannot check .*units-000000-000511"):
        run_checks(own_lake)


def test_every_check_passes_on_what_the_build_makes_of_files(built_lake: Lake) -> None:
    assert {result.name: result.sample for result in run_checks(built_lake) if result.n_failing} == {}
