"""What a run may cost: tokens are counted, prices are the user's, and nothing is sent that might exceed the budget.

Before a request is sent, the most that it can cost is reserved; when its answer is there, what it did cost takes the
place of that. So many requests at once cannot exceed a budget, as long as the endpoint counts no more tokens than were
asked for. One that does is known by its first answer: from then on, it is taken to exceed all bounds as far.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import ceil

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
        self._prompt_excess = self._completion_excess = 1.0
        self._exceeded: tuple[Usage, Usage] | None = None

    def cost(self, usage: Usage) -> float | None:
        """Give the price of tokens, None without prices."""
        return None if self.prices is None else self.prices.cost(usage)

    @asynccontextmanager
    async def reserve(self, bound: Usage) -> AsyncIterator[Reservation]:
        """Set aside the most that a request can cost, for the time that it is under way.

        Where that is not left, but requests under way may leave it, wait for them. A request of which nothing is said
        by the end costs nothing.

        Raises:
            OutOfBudget: not so much is left. What requests have cost more than their bounds, this one may too.
        """
        reservation = Reservation(bound)
        async with self._has_changed:
            while not self._has_room(bound):
                if not self._n_under_way:
                    raise OutOfBudget(self._explain(self._stretch(bound)))
                await self._has_changed.wait()
            self._held += bound
            self._n_under_way += 1
        try:
            yield reservation
        finally:
            self._held -= bound
            self._n_under_way -= 1
            if reservation.spent is not None:
                self.spent += reservation.spent
                self._compare(bound, reservation.spent)
            self.doubtful += self._stretch(bound) if reservation.is_doubtful else Usage()
            async with self._has_changed:
                self._has_changed.notify_all()

    def find_overdraft(self) -> OutOfBudget | None:
        """Say that more is spent than there was, None where it is not: what an endpoint counts is known afterwards."""
        return None if self._covers(self.spent) else OutOfBudget(self._explain(None))

    def _compare(self, bound: Usage, spent: Usage) -> None:
        """Learn from a request that cost more than it can."""
        prompt, completion = (
            used / max(most, 1)
            for used, most in (
                (spent.prompt_tokens, bound.prompt_tokens),
                (spent.completion_tokens, bound.completion_tokens),
            )
        )
        if prompt > self._prompt_excess or completion > self._completion_excess:
            self._exceeded = bound, spent
        self._prompt_excess = max(self._prompt_excess, prompt)
        self._completion_excess = max(self._completion_excess, completion)

    def _stretch(self, bound: Usage) -> Usage:
        """Give the most that a request can cost at an endpoint that exceeds bounds as far as it did."""
        return Usage(
            ceil(bound.prompt_tokens * self._prompt_excess), ceil(bound.completion_tokens * self._completion_excess)
        )

    def _has_room(self, bound: Usage) -> bool:
        return self._covers(self.spent + self.doubtful + self._stretch(self._held + bound))

    def _covers(self, usage: Usage) -> bool:
        if self._tokens is not None and usage.tokens > self._tokens:
            return False
        return self._money is None or self.prices is None or self.prices.cost(usage) <= self._money

    def _explain(self, bound: Usage | None) -> str:
        """Say why there is no more: there is not enough for the next request, or less than nothing."""
        used = self.spent + self.doubtful
        why = ""
        if self._exceeded is not None:
            most, counted = self._exceeded
            why = f"; the endpoint counted {counted.tokens:,} tokens for a request of at most {most.tokens:,}"
        after = used if bound is None else used + bound
        if self._tokens is not None and after.tokens > self._tokens:
            said = f"stopped by --max-tokens-total: {used.tokens:,} of {self._tokens:,} tokens are used"
            return said + (f", and the next request may take {bound.tokens:,}" if bound else "") + why
        said = f"stopped by --budget: {self.cost(used) or 0:,.4g} of {self._money:,.4g} is spent"
        return said + (f", and the next request may cost {self.cost(bound) or 0:,.4g}" if bound else "") + why
