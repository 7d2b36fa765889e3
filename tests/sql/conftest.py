"""A small lake of every kind of dataset, read-only for all tests of SQL."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import warehouse
from tests.sql.lakes import Content, make_content, write_lake
from warehouse.catalogue import build_catalogue
from warehouse.lake import Lake
from warehouse.reader import LakeReader


@pytest.fixture(scope="session")
def content() -> Content:
    return make_content()


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory, content: Content) -> Lake:
    """The lake of `content`, with its catalogue; do not write to it."""
    lake = write_lake(Lake(tmp_path_factory.mktemp("built") / "lake"), content)
    build_catalogue(lake)
    return lake


@pytest.fixture
def own_lake(tmp_path: Path, lake: Lake) -> Lake:
    """A copy of the lake, without its catalogue, that a test may break."""
    copy = Lake(shutil.copytree(lake.root, tmp_path / "lake"))
    copy.catalogue_path.unlink()
    return copy


@pytest.fixture(scope="session")
def reader(lake: Lake) -> Iterator[LakeReader]:
    with warehouse.open(lake.root) as reader:
        yield reader
