"""What the description of the API says besides the rows of the lake: a NeuronRecord, and who may ask."""

from __future__ import annotations

from typing import Any

_NUMBER, _INDEX = {"type": ["number", "null"]}, {"type": ["integer", "null"]}


def describe_neuron_record() -> dict[str, Any]:
    """Give the JSON schema of a NeuronRecord, as `NeuronRecord.to_json` writes it.

    Source: TDB neuron_explainer/activations/activations.py
    """
    record = _describe_dataclass(
        "ActivationRecord",
        tokens={"type": "array", "items": {"type": "string"}},
        activations={
            "type": "array",
            "items": _NUMBER,
            "description": "One a token, or for token pairs the flattened lower triangle of queries by keys.",
        },
    )
    records = {"type": "array", "items": record}
    neuron_id = _describe_dataclass("NeuronId", layer_index=_INDEX, neuron_index=_INDEX)
    moments = dict.fromkeys(("mean", "variance", "skewness", "kurtosis"), _NUMBER)
    return _describe_dataclass(
        "NeuronRecord",
        neuron_id=neuron_id,
        random_sample=records,
        random_sample_by_quantile={"type": ["array", "null"], "items": records},
        quantile_boundaries={"type": ["array", "null"], "items": _NUMBER},
        **moments,
        most_positive_activation_records=records,
    )


def describe_security() -> dict[str, Any]:
    """Give the security schemes of a server that wants a token, by name."""
    return {
        "bearer": {"type": "http", "scheme": "bearer", "description": "The token."},
        "basic": {"type": "http", "scheme": "basic", "description": "Any user, with the token as the password."},
    }


def _describe_dataclass(name: str, **members: dict[str, Any]) -> dict[str, Any]:
    properties = {"dataclass_name": {"const": name}, **members}
    return {"type": "object", "properties": properties, "required": list(properties)}
