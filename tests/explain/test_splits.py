"""OpenAI's splits, as SQL and in Python, against the slices that their code takes of the same lists."""

from __future__ import annotations

import numpy as np
import pytest

from tests.explain.lakes import EMPTY, FEW, FIT, HEAD, LATENT, REMAINDER
from tests.sql.lakes import Content
from warehouse.errors import QueryError, UnknownUnit
from warehouse.explain.jobs import SPLITS, Job, SplitOptions, Unfit, iterate_jobs
from warehouse.explain.splits import UnfitUnit, slice_list, slice_openai
from warehouse.reader import LakeReader
from warehouse.records import ActivationRecord, NeuronRecord, UnitId

Placed = tuple[str, str, int, list[str], list[float]]


def slice_as_openai_does(record: NeuronRecord, n: int | None) -> dict[str, list[ActivationRecord]]:
    """Slice as TDB's NeuronRecord does, with the slices written out."""
    top, drawn = record.most_positive_activation_records, record.random_sample
    n_top = len(top) // 4 if n is None else n
    n_random = len(drawn) // 3 if n is None else n
    return {
        "train": top[slice(0, n_top * 4, 4)],
        "calibration": top[slice(1, n_top * 4, 4)] + drawn[slice(0, n_random * 3, 3)],
        "valid": top[slice(2, n_top * 4, 4)] + drawn[slice(1, n_random * 3, 3)],
        "test": top[slice(3, n_top * 4, 4)] + drawn[slice(2, n_random * 3, 3)],
    }


def spell(records: list[ActivationRecord]) -> list[tuple[list[str], list[float]]]:
    return [(record.tokens, record.activations.tolist()) for record in records]


@pytest.mark.parametrize(
    ("name", "n"), [(FIT, None), (FIT, 1), (FIT, 5), (REMAINDER, None), (FEW, None), (FEW, 3), (LATENT, 2), (HEAD, 2)]
)
def test_the_macro_and_the_jobs_have_openais_slices(
    job_reader: LakeReader, job_content: Content, name: UnitId, n: int | None
) -> None:
    expected = slice_as_openai_does(job_content.units[name], n)
    found = job_reader.splits(name, n)
    (job,) = iterate_jobs(job_reader, [name], SplitOptions(n=n))
    assert isinstance(job, Job)
    assert found["split"].unique(maintain_order=True).to_list() == list(SPLITS)
    for split in SPLITS:
        rows = found.filter(split=split)
        assert rows.select("tokens", "activations").rows() == spell(expected[split])
        examples = job.splits[split]
        assert [(list(e.tokens), e.activations.tolist()) for e in examples] == spell(expected[split])
        assert [(e.section, e.rank) for e in examples] == rows.select("section", "rank").rows()
        assert all(e.unit_id == name and e.quantile is None for e in examples)
    assert job.max_activation == max(float(record.activations.max()) for record in expected["train"])


def test_a_remainder_of_a_list_is_in_no_split(job_reader: LakeReader) -> None:
    used = job_reader.splits(REMAINDER).group_by("section").len().sort("section").rows()
    assert used == [("random", 15), ("top", 20)]


@pytest.mark.parametrize(
    ("name", "n", "needs"), [(FEW, 5, "12 and 10"), (FIT, 6, "20 and 15"), (EMPTY, None, "0 and 0")]
)
def test_too_few_records_are_an_error_that_says_how_many_there_are(
    job_reader: LakeReader, name: UnitId, n: int | None, needs: str
) -> None:
    said = f"needs {4 * (n or 1)} top records and {3 * (n or 1)} random ones"
    with pytest.raises(QueryError, match=rf"{name} {said} for its splits, has {needs}$"):
        job_reader.splits(name, n)
    assert list(iterate_jobs(job_reader, [name], SplitOptions(n=n))) == [Unfit(name, f"{said}, has {needs}")]


@pytest.mark.parametrize("n", [None, 2])
def test_a_unit_that_is_not_there_is_an_unknown_one_and_has_no_rows_in_sql(
    job_reader: LakeReader, n: int | None
) -> None:
    with pytest.raises(UnknownUnit, match=r"gpt2-xl/mlp_post_act/47/0"):
        job_reader.splits("gpt2-xl/mlp_post_act/47/0", n)
    assert job_reader.sql("FROM splits('gpt2-xl/mlp_post_act/47/0', n := $n)", {"n": n}).is_empty()


@pytest.mark.parametrize("n", [0, -1])
def test_a_split_has_at_least_one_record(job_reader: LakeReader, n: int) -> None:
    with pytest.raises(QueryError, match="n must be at least 1"):
        job_reader.splits(FIT, n)
    (unfit,) = iterate_jobs(job_reader, [FIT], SplitOptions("top", n))
    assert unfit == Unfit(FIT, f"n is {n}: a split needs at least 1 record")


def test_what_is_no_unit_id_is_refused(job_reader: LakeReader) -> None:
    with pytest.raises(UnknownUnit):
        job_reader.splits("5/131")
    with pytest.raises(QueryError, match="unit_id must be"):
        job_reader.sql("FROM splits('5/131')")


def test_slices_are_disjoint_and_cover_all_but_the_remainder() -> None:
    for n_records in range(30):
        for stride in (3, 4):
            slices = slice_list(n_records, stride, None)
            assert sorted(np.concatenate(slices)) == list(range(n_records - n_records % stride))
            assert {len(places) for places in slices} == {n_records // stride}


def test_slices_of_n_need_n_for_each_split() -> None:
    assert {split: len(top) + len(drawn) for split, (top, drawn) in slice_openai(20, 15, 5).items()} == {
        "train": 5,
        "calibration": 10,
        "valid": 10,
        "test": 10,
    }
    for n_top, n_random in [(19, 15), (20, 14)]:
        with pytest.raises(UnfitUnit, match=rf"needs 20 top records and 15 random ones, has {n_top} and {n_random}"):
            slice_openai(n_top, n_random, 5)
