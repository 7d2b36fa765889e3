"""A lake of units to be explained, read-only for all tests of explanation jobs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import warehouse
from tests.explain.lakes import make_job_content
from tests.sql.lakes import Content, write_lake
from warehouse.catalogue import build_catalogue
from warehouse.lake import Lake
from warehouse.reader import LakeReader


@pytest.fixture(scope="session")
def job_content() -> Content:
    return make_job_content()


@pytest.fixture(scope="session")
def job_lake(tmp_path_factory: pytest.TempPathFactory, job_content: Content) -> Lake:
    """The lake of `job_content`, with its catalogue; do not write to it."""
    lake = write_lake(Lake(tmp_path_factory.mktemp("jobs") / "lake"), job_content)
    build_catalogue(lake)
    return lake


@pytest.fixture(scope="session")
def job_reader(job_lake: Lake) -> Iterator[LakeReader]:
    with warehouse.open(job_lake.root) as reader:
        yield reader
