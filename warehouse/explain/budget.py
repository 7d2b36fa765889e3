"""What a run may cost: tokens are counted, prices are the user's, and nothing is sent that might exceed the budget.

Before a request is sent, the most that it can cost is reserved; when its answer is there, what it did cost takes the
place of that. So neither many requests at once nor a talkative model can exceed a budget, whatever they answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from warehouse.errors import WarehouseError
from warehouse.explain.chat import Message, OutOfBudget

_TOKENS_A_MESSAGE = 16
_TOKENS_A_PROMPT = 64
"""More than what chat templates add: marks around each message, and a system prompt where a model has its own."""
_BYTES_A_TOKEN = 3.0
"""Of prompts about activations, by GPT-2's own tokens; prose alone has more."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that were sent and that came back."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens)

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.prompt_tokens - other.prompt_tokens, self.completion_tokens - other.completion_tokens)


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of a million tokens, in any currency."""

    prompt: float
    completion: float

    def cost(self, usage: Usage) -> float:
        """Give the price of tokens."""
        return (usage.prompt_tokens * self.prompt + usage.completion_tokens * self.completion) / 1e6


def bound_usage(messages: Sequence[Message], max_tokens: int) -> Usage:
    """Give the most tokens that a request can cost, whatever the model's tokenizer: no token is less than a byte."""
    n_bytes = sum(len(message.content.encode("utf-8", "replace")) for message in messages)
    return Usage(n_bytes + _TOKENS_A_MESSAGE * len(messages) + _TOKENS_A_PROMPT, max_tokens)


def estimate_prompt_tokens(messages: Sequence[Message]) -> int:
    """Give about how many tokens a prompt has, to within a fifth or so."""
    return round(sum(len(message.content.encode("utf-8", "replace")) for message in messages) / _BYTES_A_TOKEN)


class Reservation:
    """What is set aside for one request, until it is known what it cost."""

    def __init__(self, bound: Usage) -> None:
        self.bound = bound
        self.is_doubtful = False
        self.spent: Usage | None = None

    def settle(self, spent: Usage | None) -> None:
        """Say what it cost, None where the endpoint does not: then it is reckoned as if it had cost the most."""
        self.spent = spent
        self.is_doubtful = spent is None


class Budget:
    """Counts what a run costs, and lets no request be sent that might cost more than what is left.

    All of it runs on one event loop.

    Attributes:
        prices: of the model, None where they are not known.
        spent: tokens that were paid for.
        doubtful: at most so many more: of answers that were lost on their way, or came without their count.
    """

    def __init__(self, prices: Prices | None = None, money: float | None = None, tokens: int | None = None) -> None:
        """Begin with nothing spent.

        Args:
            prices: of the model.
            money: the most that this run may cost, in the currency of the prices.
            tokens: the most tokens that it may use, both ways together.

        Raises:
            WarehouseError: there is a limit in money, but no prices.
        """
        if money is not None and prices is None:
            raise WarehouseError(
                "a budget needs prices: give --price-in and --price-out, of a million tokens each, "
                "or limit tokens by --max-tokens-total"
            )
        self.prices, self._money, self._tokens = prices, money, tokens
        self.spent = self.doubtful = self._held = Usage()
        self._n_under_way = 0
        self._has_changed = asyncio.Condition()

    def cost(self, usage: Usage) -> float | None:
        """Give the price of tokens, None without prices."""
        return None if self.prices is None else self.prices.cost(usage)

    @asynccontextmanager
    async def reserve(self, bound: Usage) -> AsyncIterator[Reservation]:
        """Set aside the most that a request can cost, for the time that it is under way.

        Where that is not left, but requests under way may leave it, wait for them. A request of which nothing is said
        by the end costs nothing.

        Raises:
            OutOfBudget: not so much is left.
        """
        reservation = Reservation(bound)
        async with self._has_changed:
            while not self._has_room(bound):
                if not self._n_under_way:
                    raise OutOfBudget(self._explain(bound))
                await self._has_changed.wait()
            self._held += bound
            self._n_under_way += 1
        try:
            yield reservation
        finally:
            self._held -= bound
            self._n_under_way -= 1
            self.spent += reservation.spent or Usage()
            self.doubtful += bound if reservation.is_doubtful else Usage()
            async with self._has_changed:
                self._has_changed.notify_all()

    def _has_room(self, bound: Usage) -> bool:
        after = self.spent + self.doubtful + self._held + bound
        if self._tokens is not None and after.tokens > self._tokens:
            return False
        return self._money is None or self.prices is None or self.prices.cost(after) <= self._money

    def _explain(self, bound: Usage) -> str:
        used = self.spent + self.doubtful
        if self._tokens is not None and (used + bound).tokens > self._tokens:
            return (
                f"stopped by --max-tokens-total: {used.tokens:,} of {self._tokens:,} tokens are used, "
                f"and the next request may take {bound.tokens:,}"
            )
        return (
            f"stopped by --budget: {self.cost(used) or 0:,.4g} of {self._money:,.4g} is spent, "
            f"and the next request may cost {self.cost(bound) or 0:,.4g}"
        )
