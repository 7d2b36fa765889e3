"""Mirrors of the bucket with made data: for the demo, the tests and the benchmarks."""

from warehouse.mirror.text import Vocabulary
from warehouse.mirror.tree import MirrorReport, MirrorSpec, demo_spec, make_mirror
from warehouse.mirror.units import FAMOUS_TOKEN, Plant, RecordCounts

__all__ = [
    "FAMOUS_TOKEN",
    "MirrorReport",
    "MirrorSpec",
    "Plant",
    "RecordCounts",
    "Vocabulary",
    "demo_spec",
    "make_mirror",
]
