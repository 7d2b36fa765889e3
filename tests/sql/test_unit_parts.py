"""Questions about one unit, which look at its shard's parts alone."""

from __future__ import annotations

from pathlib import Path

import pytest

import warehouse
from tests.sql.lakes import HEADS, NEURONS, XL
from warehouse.errors import QueryError
from warehouse.lake import Lake
from warehouse.reader import LakeReader
from warehouse.records import UnitId
from warehouse.schema import TABLES

HERE = "model = $model AND component = $component AND layer = $layer AND unit = $unit"


def place_of(name: UnitId) -> dict[str, object]:
    return {"model": name.model, "component": name.component, "layer": name.layer, "unit": name.unit}


@pytest.mark.parametrize("view", [table for table in TABLES if table != "raw"])
def test_a_narrowed_view_has_all_that_the_view_has_of_every_unit(reader: LakeReader, view: str) -> None:
    names = [UnitId(*row) for row in reader.sql(f"SELECT DISTINCT model, component, layer, unit FROM {view}").rows()]
    assert names
    for name in names:
        query, params = f"FROM {view} WHERE {HERE} ORDER BY ALL", place_of(name)
        assert reader.sql_of_units([view], [name], query, params).equals(reader.sql(query, params))


@pytest.mark.parametrize("view", ["files", "units", "records", "token_stats"])
def test_a_narrowed_view_has_no_units_of_other_shards_and_is_gone_afterwards(reader: LakeReader, view: str) -> None:
    query = f"SELECT DISTINCT model, layer, unit FROM {view}"
    name = UnitId.parse(f"{XL}/2/1")
    everywhere = set(reader.sql(query).rows())
    narrowed = set(reader.sql_of_units([view], [name], query).rows())
    assert (name.model, name.layer, name.unit) in narrowed < everywhere
    assert {(model, layer) for model, layer, _ in narrowed} == {(name.model, name.layer)}
    assert set(reader.sql(query).rows()) == everywhere


def test_several_units_can_be_asked_about_at_once(reader: LakeReader) -> None:
    names = [UnitId.parse(f"{XL}/2/1"), UnitId.parse(f"{NEURONS}/0/3")]
    query = "SELECT DISTINCT unit_id FROM records"
    assert set(map(str, names)) <= set(reader.sql_of_units(["records"], names, query)["unit_id"])


def test_what_macros_say_of_a_unit_is_what_the_methods_say(reader: LakeReader) -> None:
    for unit in (f"{XL}/2/1", f"{NEURONS}/0/3"):
        assert reader.top_tokens(unit, 7).equals(reader.sql("FROM top_tokens($u, k := 7)", {"u": unit}))
        assert reader.records(unit, "random").equals(
            reader.sql("FROM unit_records($u, section := 'random')", {"u": unit})
        )
    head = f"{HEADS}/0/1"
    assert reader.top_pairs(head, 7).equals(reader.sql("FROM top_pairs($u, k := 7)", {"u": head}))
    assert reader.records(head).equals(reader.sql("FROM unit_records($u)", {"u": head}))


def test_a_part_that_is_gone_is_said_with_what_to_do(own_lake: Lake) -> None:
    with warehouse.open(own_lake.root) as reader:
        reader.unit(f"{XL}/2/1")
        for part in Path(own_lake.root, "records").rglob("model=gpt2-xl/**/layer=2/*.parquet"):
            part.unlink()
        with pytest.raises(QueryError, match="run 'warehouse catalogue'"):
            reader.records(f"{XL}/2/1")
