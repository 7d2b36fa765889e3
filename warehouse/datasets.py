"""The registry of datasets: what files there are, where they lie, and what must be known of them.

The nine published datasets of activations are in `datasets.toml` beside this file, and with them their siblings on the
same root, which say something about the same units. A dataset of another model in the same file format is registered
in a lake by a TOML file of the same shape, and from then on is like a built-in one.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import resources
from typing import Literal, TypeAlias

import msgspec

from warehouse.errors import InvalidRegistration, UnknownDataset
from warehouse.records import UnitId

PUBLIC_BUCKET = "https://openaipublic.blob.core.windows.net/neuron-explainer"
Holds: TypeAlias = Literal["activations", "explanations", "related_units", "related_tokens"]
_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PATH = re.compile(r"[^\x00-\x1f\\]{1,500}")


class Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A fact or caveat of a dataset, and who says so."""

    text: str
    source: str


class Dataset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One component of one model: a tree of files, one for each unit.

    Attributes:
        model: slug, as gpt2-small.
        component: slug, as mlp_post_act.
        kind: what a unit is.
        per: what an activation belongs to.
        n_layers: layers, from 0.
        units_per_layer: units expected in each layer, from 0.
        paths: templates under the source's root with {layer} and {unit}, in the order they are tried.
        source: who documents the paths and ranges.
        tokenizer: how token ids become text; None where files with ids cannot be read.
        shard_units: units of one shard, the grain of work and of commit.
        notes: caveats, each with its source.
        holds: what a file says of its unit; all but activations are siblings of a dataset of activations.
        about: the component whose units a sibling's files are about; "" where the files are the component's own.
    """

    model: str
    component: str
    kind: Literal["neuron", "head", "latent"]
    per: Literal["token", "token_pair"]
    n_layers: int
    units_per_layer: int
    paths: tuple[str, ...]
    source: str = ""
    tokenizer: Literal["gpt2"] | None = None
    shard_units: int = 512
    notes: tuple[Note, ...] = ()
    holds: Holds = "activations"
    about: str = ""

    def __post_init__(self) -> None:
        for name, slug in (("model", self.model), ("component", self.component)):
            if not _SLUG.fullmatch(slug):
                raise ValueError(f"{name} {slug!r} must be letters, digits, '.', '_' or '-'")
        if self.about and not _SLUG.fullmatch(self.about):
            raise ValueError(f"about {self.about!r} must be letters, digits, '.', '_' or '-'")
        if self.holds == "activations" and self.about_component != self.component:
            raise ValueError(f"about is {self.about!r}: activations are about their own component, {self.component}")
        if not 1 <= self.n_layers <= 10_000:
            raise ValueError(f"n_layers is {self.n_layers}: it must be 1 to 10,000")
        if not 1 <= self.units_per_layer <= 100_000_000:
            raise ValueError(f"units_per_layer is {self.units_per_layer}: it must be 1 to 100,000,000")
        if not 1 <= self.shard_units <= 65_536:
            raise ValueError(f"shard_units is {self.shard_units}: it must be 1 to 65,536")
        if not self.paths:
            raise ValueError("paths is empty: give at least one template with {layer} and {unit}")
        for path in self.paths:
            _check_path(path)

    @property
    def key(self) -> str:
        """The dataset's name, model/component."""
        return f"{self.model}/{self.component}"

    @property
    def about_component(self) -> str:
        """The component whose units the files are about: for activations the dataset's own."""
        return self.about or self.component

    def unit_id(self, layer: int, unit: int) -> UnitId:
        """Name one unit of the dataset."""
        return UnitId(self.model, self.component, layer, unit)


def _check_path(path: str) -> None:
    literal = path.replace("{layer}", "", 1).replace("{unit}", "", 1)
    if "{layer}" not in path or "{unit}" not in path or "{" in literal or "}" in literal:
        raise ValueError(f"path {path!r} must hold {{layer}} and {{unit}}, once each, and no other braces")
    if not _PATH.fullmatch(path) or path.startswith("/") or ".." in path.split("/") or "://" in path:
        raise ValueError(f"path {path!r} must be relative to the source's root, without '..'")


class _Registration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dataset: tuple[Dataset, ...]


def parse_registration(text: str, origin: str) -> tuple[Dataset, ...]:
    """Read the `[[dataset]]` tables of a TOML text.

    Args:
        text: the TOML.
        origin: what to call it in an error, as the file's name.

    Raises:
        InvalidRegistration: not TOML, a key is missing or unknown, or a value is out of range.
    """
    try:
        registration = msgspec.convert(tomllib.loads(text), _Registration)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as e:
        raise InvalidRegistration(f"{origin}: {e}") from e
    if not registration.dataset:
        raise InvalidRegistration(f"{origin}: no [[dataset]] in it")
    return registration.dataset


@functools.cache
def builtin_datasets() -> Mapping[str, Dataset]:
    """Give every published dataset by name: the nine of activations, and their siblings."""
    text = resources.files("warehouse").joinpath("datasets.toml").read_text("utf-8")
    return {d.key: d for d in parse_registration(text, "datasets.toml")}


@functools.cache
def activation_datasets() -> Mapping[str, Dataset]:
    """Give the nine published datasets of activations by name."""
    return {key: d for key, d in builtin_datasets().items() if d.holds == "activations"}


def select_datasets(names: Iterable[str], known: Mapping[str, Dataset]) -> list[Dataset]:
    """Find datasets by name; a bare model, as gpt2-small, means all of its datasets of activations.

    Raises:
        UnknownDataset: a name that is neither.
    """
    selected: dict[str, Dataset] = {}
    for name in names:
        name = name.strip("/")
        matches = {k: d for k, d in known.items() if name == k or (name == d.model and d.holds == "activations")}
        if not matches:
            near = get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UnknownDataset(f"no dataset {name!r}: {hint}known are {', '.join(sorted(known))}")
        selected |= matches
    return list(selected.values())
