"""What an explainer and a scorer are, and how one of your own is found: by entry point, by module or by file."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from warehouse.errors import WarehouseError
from warehouse.explain.chat import AskError, Chat, Message, Refused

if TYPE_CHECKING:
    from warehouse.explain.jobs import Job

EXPLAINERS = "activation_warehouse.explainers"
SCORERS = "activation_warehouse.scorers"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question for a language model, before it is asked.

    Attributes:
        messages: the conversation, oldest first.
        max_tokens: tokens that the answer may have; with it a dry run knows what the answer may cost.
        top_logprobs: how many of the likeliest tokens are asked for at each place of the answer.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True)
class Score:
    """One figure about an explanation.

    Attributes:
        kind: what was measured, as `score_kind` has it: ev_correlation, detection_balanced_accuracy, ….
        value: the figure, or None where it is undefined (as a correlation with a constant).
        low: the 95 % interval's lower end, or None where there is no interval.
        high: its upper end.
        n: what it was measured on: records for simulation, examples for detection and fuzzing, pairs for heads.
        n_missing: of those that were asked about, how many had no usable answer; they are not in `n`.
    """

    kind: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    n_missing: int = 0


@runtime_checkable
class Explainer(Protocol):
    """Says in words what a unit responds to."""

    @property
    def name(self) -> str:
        """What `explanations.explainer` says of its answers."""
        ...

    def prompts(self, job: Job) -> Sequence[Prompt]:
        """Give what would be asked about a unit, for a dry run: nothing is sent."""
        ...

    async def explain(self, job: Job, chat: Chat) -> str:
        """Explain a unit.

        Raises:
            ExplanationRefused: the model declines.
            UnusableAnswer: what it answers is no explanation.
            AskError: one of the chat's own errors.
        """
        ...


@runtime_checkable
class Scorer(Protocol):
    """Measures how well an explanation fits a unit, on records that the explainer has not seen."""

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        ...

    def prompts(self, job: Job, explanation: str) -> Sequence[Prompt]:
        """Give what would be asked to score an explanation, for a dry run: nothing is sent."""
        ...

    async def score(self, job: Job, explanation: str, chat: Chat) -> tuple[Score, ...]:
        """Score an explanation.

        Returns:
            One figure or several; none where the scorer is not for such a unit.

        Raises:
            AskError: no question had a usable answer. Where some had one, the others are counted in
                `Score.n_missing` instead.
            WarehouseError: something that stops the run, as the chat says.
        """
        ...


class ExplanationRefused(Refused):
    """A model declines, in words of an answer, to explain a unit."""


class UnusableAnswer(AskError):
    """A model's answer is empty or not in the form that was asked for; the message shows how it begins."""


class UnknownPlugin(WarehouseError):
    """An explainer or scorer is not there, or is not one; the message says what there is, or what it lacks."""


def load_explainer(name: str) -> Explainer:
    """Find an explainer and make one.

    Args:
        name: the name of an entry point in the group `activation_warehouse.explainers`, or `package.module:Class`, or
            `path/to/file.py:Class`. The class is called without arguments.

    Raises:
        UnknownPlugin: there is none, it cannot be imported, or it lacks what an explainer has.
    """
    return _load(name, EXPLAINERS, Explainer, "explain")  # type: ignore[type-abstract]


def load_scorer(name: str) -> Scorer:
    """Find a scorer and make one, as `load_explainer` does, from the group `activation_warehouse.scorers`.

    Raises:
        UnknownPlugin: there is none, it cannot be imported, or it lacks what a scorer has.
    """
    return _load(name, SCORERS, Scorer, "score")  # type: ignore[type-abstract]


def identify_plugin(name: str) -> str:
    """Give what tells explainers and scorers apart: of a class in a file the file's hash and the class, else the name.

    Raises:
        UnknownPlugin: the file cannot be read.
    """
    path, _, attribute = name.rpartition(":")
    if not path.endswith(".py"):
        return name
    try:
        return f"{hashlib.sha256(Path(path).read_bytes()).hexdigest()}:{attribute}"
    except OSError as error:
        raise UnknownPlugin(f"{name!r} cannot be read: {error.strerror or error}") from error


Plugin = TypeVar("Plugin", Explainer, Scorer)


def _load(name: str, group: str, protocol: type[Plugin], method: str) -> Plugin:
    kind = protocol.__name__.lower()
    factory = _find_factory(name, group, kind)
    if not callable(factory):
        raise UnknownPlugin(f"{kind} {name!r} is a {type(factory).__name__}, not a class: name the {kind}'s class")
    try:
        plugin = factory()
    except TypeError as error:
        raise UnknownPlugin(f"{kind} {name!r} cannot be made without arguments: {error}") from error
    if not isinstance(plugin, protocol) or not inspect.iscoroutinefunction(getattr(plugin, method)):
        raise UnknownPlugin(
            f"{kind} {name!r} is no {kind}: it needs a `name`, a method `prompts` and an `async def {method}`"
        )
    return plugin


def _find_factory(name: str, group: str, kind: str) -> object:
    """Give what a name stands for, which may be anything."""
    module_name, colon, attribute = name.rpartition(":")
    try:
        if colon:
            module = _import_file(Path(module_name)) if module_name.endswith(".py") else _import_module(module_name)
            return getattr(module, attribute)
        found = {entry.name: entry for entry in entry_points(group=group)}
        if name in found:
            return found[name].load()
    except (ImportError, SyntaxError, AttributeError, NameError, TypeError, ValueError, OSError) as error:
        raise UnknownPlugin(f"{kind} {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
    raise UnknownPlugin(
        f"no {kind} is called {name!r}: there are {', '.join(sorted(found)) or 'none'}; "
        f"or name one of yours as path/to/file.py:Class or package.module:Class"
    )


def _import_module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ImportError(f"{name!r} is neither a module's name nor a .py file")
    return importlib.import_module(name)


def _import_file(path: Path) -> ModuleType:
    """Import a file that is on no import path, under a name made from its whole path."""
    full_path = path.resolve()
    if not full_path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    module_name = f"warehouse_plugin_{full_path.as_posix().encode().hex()}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, full_path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Registered before it runs, as dataclasses look their module up by name.
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module
