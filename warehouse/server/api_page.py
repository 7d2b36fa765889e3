"""What the page of the JSON API shows, read from the same OpenAPI document that programs read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an operation, with its type in words."""

    name: str
    place: str
    is_required: bool
    type: str
    about: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked."""

    method: str
    path: str
    about: str
    parameters: list[Parameter]


def list_operations(document: Mapping[str, Any]) -> list[Operation]:
    """List what an OpenAPI document describes, in its order."""
    return [
        Operation(
            method.upper(),
            path,
            operation.get("description") or operation.get("summary") or "",
            [_read_parameter(parameter) for parameter in operation.get("parameters", ())],
        )
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def _read_parameter(parameter: Mapping[str, Any]) -> Parameter:
    schema = parameter["schema"]
    kind = _say_type(schema)
    if schema.get("default") is not None:
        kind += f", by default {schema['default']}"
    required = bool(parameter.get("required"))
    return Parameter(parameter["name"], parameter["in"], required, kind, parameter.get("description", ""))


def _say_type(schema: Mapping[str, Any]) -> str:
    """Say a schema in words: its type, or the values that there are; that it may be left out is said elsewhere."""
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(_say_type(option) for option in schema["anyOf"] if option.get("type") != "null")
    if schema.get("type") == "array":
        return f"list of {_say_type(schema['items'])}"
    return str(schema.get("const") or schema.get("type") or "any")
