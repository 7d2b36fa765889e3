"""Jobs: which records each sampler takes, which texts contrast, and what is said of units of which there is none."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import get_args

import numpy as np
import pytest

from tests.explain.lakes import DEAD, EMPTY, FEW, FIT, HEAD, LATENT, NARROW_HEAD
from tests.sql.lakes import HEADS, LATENTS, NEURONS, Content, list_records
from warehouse.errors import QueryError
from warehouse.explain.examples import Contrast, Sampler
from warehouse.explain.jobs import SPLITS, Example, Job, SplitOptions, Unfit, is_active, iterate_jobs, select_units
from warehouse.reader import LakeReader
from warehouse.records import UnitId


def make(reader: LakeReader, name: UnitId, how: SplitOptions) -> Job:
    (job,) = iterate_jobs(reader, [name], how)
    assert isinstance(job, Job), job
    return job


def spell(job: Job) -> dict[str, list[tuple[object, ...]]]:
    return {
        split: [(str(e.unit_id), e.section, e.quantile, e.rank, e.activations.tobytes()) for e in examples]
        for split, examples in job.splits.items()
    }


def texts(examples: tuple[Example, ...]) -> set[tuple[str, ...]]:
    return {example.tokens for example in examples}


@pytest.mark.parametrize("contrast", ["none", "random"])
@pytest.mark.parametrize("sampler", [sampler for sampler in get_args(Sampler) if sampler != "openai"])
def test_no_text_is_in_two_splits_or_twice_in_one(job_reader: LakeReader, sampler: Sampler, contrast: Contrast) -> None:
    job = make(job_reader, FIT, SplitOptions(sampler, 3, contrast=contrast))
    n_contrast = 0 if contrast == "none" else 5
    sizes = {split: len(examples) for split, examples in job.splits.items()}
    assert sizes == dict.fromkeys(SPLITS, 3) | {"contrast_train": n_contrast, "contrast": n_contrast}
    for (_, one), (_, other) in combinations(job.splits.items(), 2):
        assert not texts(one) & texts(other)
    assert all(len(texts(examples)) == len(examples) for examples in job.splits.values())


@pytest.mark.parametrize(
    "how", [SplitOptions("random"), SplitOptions("stratified", 4), SplitOptions(n=2, contrast="random")]
)
def test_a_unit_has_the_same_job_alone_or_among_others_and_another_by_another_seed(
    job_reader: LakeReader, how: SplitOptions
) -> None:
    alone = make(job_reader, FIT, how)
    among = [job for job in iterate_jobs(job_reader, select_units(job_reader, "true"), how) if job.unit_id == FIT]
    other = make(job_reader, FIT, SplitOptions(how.sampler, how.n, how.seed + 1, how.contrast))
    assert [spell(job) for job in among if isinstance(job, Job)] == [spell(alone)]
    assert spell(other) != spell(alone)


def test_every_example_is_the_record_it_names(job_reader: LakeReader, job_content: Content) -> None:
    records = {
        (str(name), section, quantile, rank): record
        for name, unit in job_content.units.items()
        for section, quantile, rank, record in list_records(unit)
    }
    for name in (FIT, LATENT, HEAD, NARROW_HEAD):
        for sampler in ("top", "random", "stratified"):
            job = make(job_reader, name, SplitOptions(sampler, 1))
            for example in (example for examples in job.splits.values() for example in examples):
                record = records[str(name), example.section, example.quantile, example.rank]
                assert (list(example.tokens), example.activations.tolist()) == (
                    record.tokens,
                    record.activations.tolist(),
                )
                assert example.is_active == is_active(record.activations, job.max_activation)


def test_top_and_random_take_their_own_list(job_reader: LakeReader) -> None:
    for sampler in ("top", "random"):
        job = make(job_reader, FIT, SplitOptions(sampler))
        assert {e.section for split in SPLITS for e in job.splits[split]} == {sampler}
    assert [e.rank for e in make(job_reader, FIT, SplitOptions("top", 2)).splits["valid"]] == [2, 6]


@pytest.mark.parametrize("n", [1, 5, 10])
def test_quantile_takes_as_many_of_each_bucket_for_every_split(job_reader: LakeReader, n: int) -> None:
    job = make(job_reader, FIT, SplitOptions("quantile", n))
    strongest_first = [4, 3, 2, 1, 0]
    for split in SPLITS:
        assert Counter(e.quantile for e in job.splits[split]) == Counter((2 * strongest_first)[:n])


def test_stratified_takes_as_much_of_every_part_of_the_range_for_every_split(job_reader: LakeReader) -> None:
    splits = make(job_reader, FIT, SplitOptions("stratified", 5)).splits
    strengths = [sorted(float(e.activations.max()) for e in splits[split]) for split in SPLITS]
    whole_range = max(map(max, strengths))
    assert all(values[0] < whole_range / 4 and values[-1] > 3 * whole_range / 4 for values in strengths)
    random = make(job_reader, FIT, SplitOptions("random", 3)).splits
    assert max(float(e.activations.max()) for split in SPLITS for e in random[split]) < whole_range / 4


def test_random_contrasts_are_other_units_records_of_which_nothing_is_known(job_reader: LakeReader) -> None:
    job = make(job_reader, FIT, SplitOptions(n=5, contrast="random", n_contrast=7))
    for example in job.splits["contrast"] + job.splits["contrast_train"]:
        assert example.unit_id != FIT
        assert (example.unit_id.component, example.unit_id.layer, example.section) == ("mlp_post_act", 0, "random")
        assert example.is_active is None
        assert np.isnan(example.activations).all() and len(example.activations) == len(example.tokens)


def test_what_is_known_of_a_contrasting_text_is_what_the_units_own_record_says(
    job_reader: LakeReader, job_content: Content
) -> None:
    job = make(job_reader, LATENT, SplitOptions("top", contrast="inactive", n_contrast=6))
    own = {tuple(record.tokens): record for _, _, _, record in list_records(job_content.units[LATENT])}
    for example in job.splits["contrast"] + job.splits["contrast_train"]:
        assert example.unit_id == LATENT
        assert example.is_active is False
        assert example.activations.tolist() == own[example.tokens].activations.tolist() == [0.0] * len(example.tokens)


@pytest.mark.parametrize("contrast", ["similar", "tokens"])
def test_near_contrasts_hold_what_the_unit_responds_to(job_reader: LakeReader, contrast: Contrast) -> None:
    job = make(job_reader, LATENT, SplitOptions("top", contrast=contrast))
    sources = {e.unit_id for split in ("contrast", "contrast_train") for e in job.splits[split]}
    assert LATENT not in sources
    assert {f"{name.model}/{name.component}/{name.layer}" for name in sources} == {f"{LATENTS}/0"}
    assert len(sources) > 1
    assert all(" cat" in example.tokens for example in job.splits["contrast"])


def test_a_head_has_contrasts_of_its_strongest_pairs(job_reader: LakeReader) -> None:
    job = make(job_reader, NARROW_HEAD, SplitOptions(n=1, contrast="tokens", n_contrast=1))
    for example in job.splits["contrast"] + job.splits["contrast_train"]:
        assert example.unit_id == HEAD and {" the", " king"} <= set(example.tokens)
    (unfit,) = iterate_jobs(job_reader, [HEAD], SplitOptions(n=1, contrast="similar"))
    assert isinstance(unfit, Unfit) and unfit.reason.endswith("of the kind similar that are in no split, has 0")
    assert f"{HEAD.model}/{HEAD.component}" == HEADS


def test_no_text_on_which_the_unit_is_known_to_be_active_is_a_contrast(job_reader: LakeReader) -> None:
    (unfit,) = iterate_jobs(job_reader, [LATENT], SplitOptions("top", contrast="inactive", n_contrast=8))
    reason = "needs 16 contrasting texts of the kind inactive that are in no split, has 15"
    assert unfit == Unfit(LATENT, reason)


def test_units_of_which_there_is_no_job_say_why_and_the_rest_goes_on(job_reader: LakeReader) -> None:
    found = list(iterate_jobs(job_reader, [FEW, FIT, DEAD, EMPTY], SplitOptions("top", 4)))
    assert [type(job) for job in found] == [Unfit, Job, Unfit, Unfit]
    assert [job.reason for job in found if isinstance(job, Unfit)] == [
        "needs 16 texts for the sampler top, has 12",
        "needs 16 texts for the sampler top, has 1",
        "needs 16 texts for the sampler top, has 0",
    ]
    (dead,) = iterate_jobs(job_reader, [DEAD], SplitOptions())
    assert dead == Unfit(DEAD, "is not active in its train records: their largest activation is 0")


def test_units_are_selected_by_sql_in_the_order_of_their_names(job_reader: LakeReader, job_content: Content) -> None:
    everything = select_units(job_reader, "true -- all of them")
    names = sorted(job_content.units, key=lambda name: (name.model, name.component, name.layer, name.unit))
    assert list(everything) == names
    assert [everything[i] for i in range(len(everything))] == names == list(everything[:3]) + list(everything[3:])
    explained = "unit_id IN (SELECT unit_id FROM explanations) AND n_top >= 20"
    assert list(select_units(job_reader, explained)) == [UnitId("gpt2-xl", "mlp_post_act", 0, 1)]
    assert len(select_units(job_reader, f"concat(model, '/', component) = '{NEURONS}' AND layer = 1")) == 3


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("no_such_column > 1", "no_such_column"),
        ("layer = ", "it ends where more is expected"),
        ("layer == 5 ANDD unit = 1", 'syntax error at or near "ANDD"'),
        ("true); DROP TABLE x; (", "closes a bracket that it has not opened"),
        ("1 = 1) UNION ALL (SELECT 'a', 'b', 1, 2", "closes a bracket that it has not opened"),
        ("1), (2", "closes a bracket that it has not opened"),
        ("1) FROM (SELECT 2", "closes a bracket that it has not opened"),
        ("layer = 0, unit = 1", "it is a list"),
        ("abs(" * 600 + "1" + ")" * 600, "it is nested too deeply"),
        (" -- nothing", "it is empty: give one as "),
    ],
)
def test_a_condition_that_is_wrong_sql_says_so(job_reader: LakeReader, where: str, says: str) -> None:
    with pytest.raises(QueryError, match=rf"^the condition .* over the view units: .*{says}"):
        select_units(job_reader, where)
