"""The bucket's tree: which file of which dataset a path names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from warehouse.datasets import Dataset

Suffix: TypeAlias = Literal["json", "pt"]
ROOT = "neuron-explainer/"
"""The container's folder, which may begin a path: then a tool changes nothing but the host of its URL."""
_NUMBER = "0|[1-9][0-9]{0,8}"
_SUFFIX = re.compile(r"\.(json|pt)$")


@dataclass(frozen=True, slots=True)
class Place:
    """What a path names: the file of a unit, and the form that its suffix says: a sibling's is always JSON."""

    dataset: Dataset
    layer: int
    unit: int
    suffix: Suffix


class FileTree:
    """The paths of some datasets."""

    def __init__(self, datasets: Iterable[Dataset]) -> None:
        self._patterns = [(pattern, dataset) for dataset in datasets for pattern in _spell(dataset)]

    def find(self, path: str) -> Place | None:
        """Find what a path names; every path of a dataset of activations may end in .json or .pt."""
        path = path.removeprefix(ROOT)
        for pattern, dataset in self._patterns:
            if match := pattern.fullmatch(path):
                suffix = match.groupdict().get("suffix")
                return Place(dataset, int(match["layer"]), int(match["unit"]), "pt" if suffix == "pt" else "json")
        return None


def _spell(dataset: Dataset) -> Iterator[re.Pattern[str]]:
    """Give a pattern for each of a dataset's paths, which differ in more than .json and .pt."""
    stems: dict[str, str] = {}
    for path in dataset.paths:
        has_form = dataset.holds == "activations" and _SUFFIX.search(path)
        stems[_SUFFIX.sub("", path) if has_form else path] = r"\.(?P<suffix>json|pt)" if has_form else ""
    for stem, suffix in stems.items():
        text = re.escape(stem)
        for name in ("layer", "unit"):
            text = text.replace(re.escape(f"{{{name}}}"), f"(?P<{name}>{_NUMBER})")
        yield re.compile(text + suffix)
