"""The types that travel from bytes to tables: records of text with activations, and the units they belong to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from warehouse.errors import UnknownUnit

FloatArray: TypeAlias = NDArray[np.float32]
IntArray: TypeAlias = NDArray[np.int32]

Section: TypeAlias = Literal["top", "random", "quantile"]
SECTIONS: tuple[Section, ...] = ("top", "random", "quantile")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one file, so that no file can take the machine down.

    The largest file known is a token-pair unit of some 200,000 values; these leave a factor of 40.
    """

    file_bytes: int = 64 * 2**20
    """Bytes of one file, after decompression."""
    nesting: int = 64
    """Depth of containers."""
    record_tokens: int = 65_536
    """Tokens of one record."""
    token_bytes: int = 4_096
    """UTF-8 bytes of one token."""
    unit_values: int = 8_000_000
    """Activations of one unit, over all its records; also bounds its tokens."""
    unit_records: int = 1_000_000
    """Records of one unit, and apart from that its quantile buckets."""
    boundaries: int = 1_000
    """Quantile boundaries of one unit."""


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class UnitId:
    """The name of one neuron, attention head or latent, written `model/component/layer/unit`."""

    model: str
    component: str
    layer: int
    unit: int

    def __str__(self) -> str:
        return f"{self.model}/{self.component}/{self.layer}/{self.unit}"

    @classmethod
    def parse(cls, text: str) -> UnitId:
        """Read a unit_id.

        Raises:
            UnknownUnit: the text is not of the form model/component/layer/unit.
        """
        parts = text.strip().split("/")
        if len(parts) != 4 or not all(parts) or not all(p.isascii() and p.isdigit() for p in parts[2:]):
            raise UnknownUnit(
                f"{text!r} is not a unit_id: write model/component/layer/unit, as gpt2-small/mlp_post_act/5/131"
            )
        return cls(parts[0], parts[1], int(parts[2]), int(parts[3]))


@dataclass(frozen=True, slots=True)
class ActivationRecord:
    """One text excerpt with a unit's activations on it.

    Attributes:
        tokens: [n_tokens] strings.
        activations: [n_tokens] float32, or for token pairs the flattened lower triangle of queries by keys.

    Source: TDB neuron_explainer/activations/activations.py
    """

    tokens: list[str]
    activations: FloatArray


@dataclass(frozen=True, slots=True)
class NeuronRecord:
    """What one source file says of one unit; every list is in the file's order.

    Moments and boundaries are None where the file has null, NaN or nothing. `layer_index` and `unit_index` are None
    where the file does not name its unit.

    Source: TDB neuron_explainer/activations/activations.py
    """

    layer_index: int | None = None
    unit_index: int | None = None
    most_positive_activation_records: list[ActivationRecord] = field(default_factory=list)
    random_sample: list[ActivationRecord] = field(default_factory=list)
    random_sample_by_quantile: list[list[ActivationRecord]] | None = None
    quantile_boundaries: list[float] | None = None
    mean: float | None = None
    variance: float | None = None
    skewness: float | None = None
    kurtosis: float | None = None

    def to_json(self) -> bytes:
        """Give the record in the form of OpenAI's JSON files, which their tools load unchanged."""
        return orjson.dumps(
            {
                "dataclass_name": "NeuronRecord",
                "neuron_id": {
                    "dataclass_name": "NeuronId",
                    "layer_index": self.layer_index,
                    "neuron_index": self.unit_index,
                },
                "random_sample": [_record_to_dict(r) for r in self.random_sample],
                "random_sample_by_quantile": None
                if self.random_sample_by_quantile is None
                else [[_record_to_dict(r) for r in bucket] for bucket in self.random_sample_by_quantile],
                "quantile_boundaries": self.quantile_boundaries,
                "mean": self.mean,
                "variance": self.variance,
                "skewness": self.skewness,
                "kurtosis": self.kurtosis,
                "most_positive_activation_records": [_record_to_dict(r) for r in self.most_positive_activation_records],
            },
            option=orjson.OPT_SERIALIZE_NUMPY,
        )


def _record_to_dict(record: ActivationRecord) -> dict[str, object]:
    return {
        "dataclass_name": "ActivationRecord",
        "activations": np.ascontiguousarray(record.activations),
        "tokens": record.tokens,
    }
