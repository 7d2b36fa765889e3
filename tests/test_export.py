"""From files to the lake and back: every list of every unit, value for value."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import warehouse
from tests.builds import XL, Mirror, build, find_dataset, good_units, register_small, spell, write_units
from warehouse.catalogue import build_catalogue
from warehouse.datasets import Dataset, activation_datasets, builtin_datasets
from warehouse.decode import decode
from warehouse.errors import LakeError, UnknownDataset
from warehouse.export import export_neuron_records, iterate_neuron_records
from warehouse.lake import Lake
from warehouse.plan import Selection
from warehouse.records import ActivationRecord, NeuronRecord, UnitId

ALL = Selection()
KEYS = sorted(activation_datasets())


def give_back(lake: Lake, dataset: Dataset, selection: Selection = ALL) -> dict[tuple[int, int], NeuronRecord]:
    return {(r.layer_index or 0, r.unit_index or 0): r for r in iterate_neuron_records(lake, dataset, selection)}


def record_of(*texts: str, at: float = 0.5) -> ActivationRecord:
    return ActivationRecord(list(texts), np.arange(len(texts), dtype=np.float32) + np.float32(at))


@pytest.mark.parametrize("key", KEYS)
def test_every_list_of_every_unit_comes_back_as_its_file_has_it(
    nine_mirror: Mirror, built_lake: Lake, key: str
) -> None:
    given_back = {u: spell(r) for u, r in give_back(built_lake, builtin_datasets()[key]).items()}
    wanted = [u for u in good_units(nine_mirror) if f"{u.model}/{u.component}" == key]
    assert len(wanted) >= 12
    assert given_back == {(u.layer, u.unit): spell(nine_mirror.decoded(u)) for u in wanted}


@pytest.mark.parametrize("key", KEYS)
def test_the_reader_gives_the_same_record_as_the_file(nine_mirror: Mirror, built_lake: Lake, key: str) -> None:
    with warehouse.open(built_lake.root) as reader:
        for unit_id in good_units(nine_mirror):
            if f"{unit_id.model}/{unit_id.component}" == key:
                assert spell(reader.neuron_record(str(unit_id))) == spell(nine_mirror.decoded(unit_id)), unit_id


def test_the_mirror_has_what_a_round_trip_could_lose(nine_mirror: Mirror) -> None:
    units = [nine_mirror.decoded(u) for u in good_units(nine_mirror)]
    has_records = [bool(u.most_positive_activation_records) for u in units]
    assert {True, False} == set(has_records)
    assert any(u.random_sample_by_quantile and not any(u.random_sample_by_quantile) for u in units)
    assert any(u.random_sample and not any(r.activations.any() for r in u.random_sample) for u in units)
    assert any(u.skewness is None for u in units)
    assert set(nine_mirror.report.forms.values()) >= {"json", "lists", "tensors", "stacked", "object", "legacy"}


SPARSE = {
    "nothing at all": NeuronRecord(),
    "no buckets": NeuronRecord(random_sample_by_quantile=[]),
    "two empty buckets": NeuronRecord(random_sample_by_quantile=[[], []], quantile_boundaries=[]),
    "empty buckets around one": NeuronRecord(
        random_sample_by_quantile=[[], [record_of(" a")], []], quantile_boundaries=[0.25, 0.75]
    ),
    "boundaries without buckets": NeuronRecord(quantile_boundaries=[0.1]),
    "empty records": NeuronRecord(random_sample=[record_of(), record_of("x"), record_of()]),
    "negative zero and extreme moments": NeuronRecord(
        most_positive_activation_records=[record_of("b", at=-0.0)], mean=0.1, kurtosis=-1e300
    ),
    "smallest float32": NeuronRecord(
        random_sample=[ActivationRecord(["x"], np.array([np.nextafter(np.float32(0), 1)], np.float32))]
    ),
}
SHARD_UNITS = 8


@dataclass(frozen=True)
class SparseLake:
    """A lake of sparse units, each in a shard of its own, and the records it was made of by layer and unit."""

    lake: Lake
    dataset: Dataset
    units: dict[tuple[int, int], NeuronRecord]


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> SparseLake:
    """In layer 0 each sparse unit is alone in its shard, in layer 1 it is between two others."""
    folder = tmp_path_factory.mktemp("sparse")
    lake = Lake(folder / "lake")
    dataset = register_small(lake, shard_units=SHARD_UNITS)
    full = NeuronRecord(random_sample=[record_of(" c", " d")], random_sample_by_quantile=[[record_of("e")]])
    made: dict[tuple[int, int], NeuronRecord] = {}
    for place, record in enumerate(SPARSE.values()):
        unit = place * SHARD_UNITS + 3
        made |= {(0, unit): record, (1, unit - 1): full, (1, unit): record, (1, unit + 1): full}
    units = {at: replace(record, layer_index=at[0], unit_index=at[1]) for at, record in made.items()}
    write_units(folder, dataset, [(*at, record) for at, record in units.items()])
    for layer in (0, 1):
        build(lake, folder, [dataset.key], Selection((layer,), tuple(u for at, u in units if at == layer)))
    build_catalogue(lake)
    assert len(lake.shards()) == 2 * len(SPARSE)
    return SparseLake(lake, dataset, units)


@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("layer", [0, 1], ids=["alone", "between others"])
def test_a_sparse_unit_comes_back_as_it_was(sparse: SparseLake, name: str, layer: int) -> None:
    first = list(SPARSE).index(name) * SHARD_UNITS
    shard = range(first, first + SHARD_UNITS)
    wanted = {at: spell(record) for at, record in sparse.units.items() if at[0] == layer and at[1] in shard}
    assert len(wanted) == (3 if layer else 1)
    given_back = give_back(sparse.lake, sparse.dataset, Selection((layer,), tuple(shard)))
    assert {at: spell(record) for at, record in given_back.items()} == wanted
    with warehouse.open(sparse.lake.root) as reader:
        unit_id = f"toy/mlp/{layer}/{first + 3}"
        assert spell(reader.neuron_record(unit_id)) == wanted[layer, first + 3]


TEXTS = st.text(st.characters(codec="utf-8"), max_size=6)
VALUES = st.floats(width=32, allow_nan=False, allow_infinity=False)
NUMBERS = st.none() | st.floats(allow_nan=False, allow_infinity=False)
RECORDS = st.lists(st.tuples(TEXTS, VALUES), max_size=5).map(
    lambda pairs: ActivationRecord([t for t, _ in pairs], np.array([v for _, v in pairs], np.float32))
)
UNITS = st.builds(
    NeuronRecord,
    most_positive_activation_records=st.lists(RECORDS, max_size=3),
    random_sample=st.lists(RECORDS, max_size=3),
    random_sample_by_quantile=st.none() | st.lists(st.lists(RECORDS, max_size=2), max_size=4),
    quantile_boundaries=st.none() | st.lists(VALUES, max_size=4),
    mean=NUMBERS,
    variance=NUMBERS,
    skewness=NUMBERS,
    kurtosis=NUMBERS,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(units=st.lists(UNITS, min_size=1, max_size=5), is_packed=st.booleans())
def test_any_units_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, units: list[NeuronRecord], is_packed: bool
) -> None:
    folder = tmp_path_factory.mktemp("any")
    lake = Lake(folder / "lake")
    dataset = register_small(lake)
    named = [replace(record, layer_index=2, unit_index=unit) for unit, record in enumerate(units)]
    write_units(folder, dataset, [(2, unit, record) for unit, record in enumerate(named)])
    if is_packed:
        for file in (folder / "acts" / "2").iterdir():
            file.write_bytes(gzip.compress(file.read_bytes()))
    build(lake, folder, [dataset.key], Selection((2,), tuple(range(len(units)))))
    assert [spell(record) for record in iterate_neuron_records(lake, dataset, ALL)] == [spell(r) for r in named]


def test_units_of_several_row_groups_come_back(
    tmp_path: Path, xl_mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warehouse.flatten.ROW_GROUP_VALUES", 600)
    lake = Lake(tmp_path)
    build(lake, xl_mirror.root, selection=xl_mirror.selection)
    assert sum(1 for _ in lake.iterate_part("records", lake.shards()[0])) > 2
    expected = {(u.layer, u.unit): spell(xl_mirror.decoded(u)) for u in xl_mirror.report.forms}
    assert {u: spell(r) for u, r in give_back(lake, XL).items()} == expected


def test_a_selection_gives_just_the_units_it_names(built_lake: Lake) -> None:
    assert list(give_back(built_lake, XL, Selection((1,), (0, 5, 6, 4000)))) == [(1, 0), (1, 5), (1, 6)]
    assert list(give_back(built_lake, XL, Selection(None, (2,)))) == [(1, 2)]  # the file of layer 0 is bad
    assert give_back(built_lake, XL, Selection((7,), None)) == {}


def test_a_unit_past_the_expected_end_of_its_layer_comes_back_too(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    dataset = register_small(lake, units_per_layer=2)
    write_units(tmp_path, dataset, [(0, unit, NeuronRecord(0, unit, mean=0.5)) for unit in range(3)])
    build(lake, tmp_path, [dataset.key], Selection((0,), (0, 1, 2)))
    assert list(give_back(lake, dataset)) == [(0, 0), (0, 1), (0, 2)]
    assert list(give_back(lake, dataset, Selection((0,), (2,)))) == [(0, 2)]


def test_a_shard_whose_every_file_is_absent_or_bad_gives_nothing(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    dataset = register_small(lake)
    file = tmp_path / dataset.paths[0].format(layer=0, unit=1)
    file.parent.mkdir(parents=True)
    file.write_bytes(b"{")
    build(lake, tmp_path, [dataset.key], Selection((0,), (0, 1)))
    assert give_back(lake, dataset) == {}
    with pytest.raises(LakeError, match=r"holds none of these units of toy/mlp"):
        export_neuron_records(lake, [dataset.key], ALL, tmp_path / "out")


@pytest.mark.parametrize("key", KEYS)
def test_exported_files_are_json_in_the_bucket_tree_that_decode_to_the_same(
    tmp_path: Path, nine_mirror: Mirror, built_lake: Lake, key: str
) -> None:
    units = [u for u in good_units(nine_mirror) if f"{u.model}/{u.component}" == key and u.layer == 1]
    assert export_neuron_records(built_lake, [key], Selection((1,), None), tmp_path) == len(units)
    expected = {}
    for unit_id in units:
        path = find_dataset(unit_id).paths[0].format(layer=1, unit=unit_id.unit)
        expected[path.removesuffix(".pt").removesuffix(".json") + ".json"] = unit_id
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(expected)
    for path, unit_id in expected.items():
        data = (tmp_path / path).read_bytes()
        assert json.loads(data)["dataclass_name"] == "NeuronRecord"
        assert json.loads(data)["neuron_id"]["neuron_index"] == unit_id.unit
        again = decode(data, find_dataset(unit_id), unit_id.layer, unit_id.unit).record
        assert spell(again) == spell(nine_mirror.decoded(unit_id))


def test_an_export_can_be_built_again_into_the_same_tables(tmp_path: Path, built_lake: Lake) -> None:
    selection = Selection((0, 1), None)
    export_neuron_records(built_lake, ["gpt2-small", "gpt2-xl"], selection, tmp_path / "tree")
    again = Lake(tmp_path / "lake")
    build(again, tmp_path / "tree", ["gpt2-small", "gpt2-xl"], Selection((0, 1), tuple(range(7))))
    for dataset in activation_datasets().values():
        first, second = give_back(built_lake, dataset), give_back(again, dataset)
        assert {u: spell(r) for u, r in first.items()} == {u: spell(r) for u, r in second.items()}
        assert first


def test_every_unit_gets_a_file_of_its_own_when_a_path_ends_in_its_number(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    dataset = register_small(lake, paths='["acts/{layer}.{unit}"]')
    write_units(tmp_path, dataset, [(1, unit, NeuronRecord(1, unit)) for unit in range(3)])
    build(lake, tmp_path, [dataset.key], Selection((1,), (0, 1, 2)))
    assert export_neuron_records(lake, [dataset.key], ALL, tmp_path / "out") == 3
    assert {path.name for path in (tmp_path / "out" / "acts").iterdir()} == {f"1.{unit}.json" for unit in range(3)}


def test_an_export_of_what_is_not_there_says_so(tmp_path: Path, built_lake: Lake) -> None:
    with pytest.raises(LakeError, match=r"holds none of these units of gpt2-xl/mlp_post_act"):
        export_neuron_records(built_lake, [XL.key], Selection((30,), None), tmp_path)
    with pytest.raises(UnknownDataset, match=r"did you mean gpt2-xl/mlp_post_act\?"):
        export_neuron_records(built_lake, ["gpt2-xl/mlp_post_ac"], ALL, tmp_path)


def test_an_export_to_where_nothing_can_be_written_says_so(tmp_path: Path, built_lake: Lake) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LakeError, match=r"^cannot export to [^\n]+: Not a directory$"):
        export_neuron_records(built_lake, [XL.key], Selection((0,), (0,)), tmp_path / "file")


def test_bad_and_absent_files_give_no_unit(nine_mirror: Mirror, built_lake: Lake) -> None:
    missing = {*nine_mirror.report.bad, *nine_mirror.report.absent}
    assert len(missing) == 5
    for unit_id in missing:
        assert (unit_id.layer, unit_id.unit) not in give_back(built_lake, find_dataset(unit_id))
    assert UnitId("gpt2-xl", "mlp_post_act", 0, 2) in missing
