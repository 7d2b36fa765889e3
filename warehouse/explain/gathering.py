"""Many questions at once: those without a usable answer are counted, and what stops a run stops the rest of them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from warehouse.explain.chat import AskError

Answered = TypeVar("Answered")


async def gather_answers(questions: Iterable[Coroutine[Any, Any, Answered]]) -> list[Answered | None]:
    """Wait for all answers; how many are under way at once is the chat's affair.

    Returns:
        One for each question, in their order; None where it has no usable answer.

    Raises:
        AskError: not one of them has; the first one's reason.
        WarehouseError: something that stops the run; the other questions are then given up.
    """
    tasks = [asyncio.create_task(_catch(question)) for question in questions]
    if not tasks:
        return []
    try:
        results = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    reasons = [result for result in results if isinstance(result, AskError)]
    if reasons and len(reasons) == len(results):
        raise reasons[0]
    return [None if isinstance(result, AskError) else result for result in results]


async def _catch(question: Coroutine[Any, Any, Answered]) -> Answered | AskError:
    try:
        return await question
    except AskError as e:
        return e
