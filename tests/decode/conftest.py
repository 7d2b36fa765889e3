"""Stand-ins for OpenAI's classes, made only to be pickled."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import make_dataclass
from types import ModuleType

import pytest

MODULE = "neuron_explainer.activations.activations"


@pytest.fixture
def tdb() -> Iterator[ModuleType]:
    """A module with NeuronRecord, ActivationRecord and NeuronId, under the name that TDB's have."""
    names = [MODULE.rsplit(".", depth)[0] for depth in (2, 1)] + [MODULE]
    modules = {name: ModuleType(name) for name in names}
    fields = {
        "NeuronId": ["neuron_index", "layer_index"],
        "ActivationRecord": ["activations", "tokens"],
        "NeuronRecord": [
            "neuron_id", "random_sample", "random_sample_by_quantile", "quantile_boundaries", "mean", "variance",
            "skewness", "kurtosis", "most_positive_activation_records",
        ],
        "Explanation": ["text"],
    }  # fmt: skip
    for name, columns in fields.items():
        setattr(modules[MODULE], name, make_dataclass(name, columns, namespace={"__module__": MODULE}))
    sys.modules.update(modules)
    yield modules[MODULE]
    for name in names:
        del sys.modules[name]
