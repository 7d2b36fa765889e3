"""The border to explainers and scorers, which may be anybody's code: what breaks there is one unit's error.

Here alone any exception is caught. What a plug-in gives back is checked here too, as a wrong type would break whoever
reads it later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from traceback import walk_tb

from warehouse.errors import WarehouseError
from warehouse.explain.chat import AskError, Chat
from warehouse.explain.jobs import Job
from warehouse.explain.protocols import Explainer, Prompt, Score, Scorer

Hide = Callable[[str], str]
"""Gives a text without the key, which an exception may hold."""


class PluginFailure(AskError):
    """An explainer or scorer raised what it should not, or gave back what is none; the message says where."""


async def ask_explainer(explainer: Explainer, job: Job, chat: Chat, hide: Hide) -> str:
    """Let an explainer explain a unit.

    Raises:
        PluginFailure: it breaks.
        WarehouseError: as `Explainer.explain` says.
    """
    with _catching(hide):
        text: object = await explainer.explain(job, chat)
    if not isinstance(text, str):
        raise PluginFailure(f"explainer {explainer.name} gave a {type(text).__name__}, not a text")
    return text


async def ask_scorer(scorer: Scorer, job: Job, explanation: str, chat: Chat, hide: Hide) -> tuple[Score, ...]:
    """Let a scorer score an explanation.

    Raises:
        PluginFailure: it breaks.
        WarehouseError: as `Scorer.score` says.
    """
    with _catching(hide):
        scores: object = await scorer.score(job, explanation, chat)
    if not isinstance(scores, (tuple, list)):
        raise PluginFailure(f"scorer {scorer.name} gave a {type(scores).__name__}, not a tuple of scores")
    for score in scores:
        if not isinstance(score, Score) or not _is_sound(score):
            raise PluginFailure(
                f"scorer {scorer.name} gave {hide(repr(score))}, not a score of a kind with its figures"
            )
    return tuple(scores)


def make_prompts(make: Callable[..., Sequence[Prompt]], *of: object) -> list[Prompt]:
    """Let an explainer or scorer say what it would ask: `make` is its method `prompts`, and `of` what that takes.

    Raises:
        PluginFailure: it breaks.
        AskError: it is not for such a unit.
    """
    with _catching(str):
        return list(make(*of))


@contextmanager
def _catching(hide: Hide) -> Iterator[None]:
    """Make a PluginFailure of whatever is raised within but our own errors."""
    try:
        yield
    except WarehouseError:
        raise
    except Exception as e:  # noqa: BLE001  (another's code may raise anything)
        raise PluginFailure(hide(f"{type(e).__name__} in {_find_place(e)}: {e}")) from e


def _find_place(error: Exception) -> str:
    """Give the last line that an exception came through in the plug-in's own file, as mine.py:7."""
    frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    own = next((file for file, _ in frames if file != __file__), __file__)
    line = next(line for file, line in reversed(frames) if file == own)
    return f"{Path(own).name}:{line}"


def _is_sound(score: Score) -> bool:
    figures = (score.value, score.low, score.high)
    return (
        isinstance(score.kind, str)
        and all(figure is None or isinstance(figure, Real) for figure in figures)
        and isinstance(score.n, Integral)
    )
