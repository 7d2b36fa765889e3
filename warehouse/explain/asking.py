"""A unit's own `Chat`: answers that were paid for before come from the ledger, and new ones go there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Protocol

from warehouse.errors import LakeError, WarehouseError
from warehouse.explain.budget import Budget, Usage
from warehouse.explain.chat import Chat, Completion, Message
from warehouse.explain.endpoint import Endpoint
from warehouse.explain.ledger import Ledger, Paid, hash_request
from warehouse.records import UnitId


class StoppableChat(Chat, Protocol):
    """An endpoint that can be told to send nothing more."""

    @property
    def stopped_by(self) -> WarehouseError | None:
        """Why nothing more is sent, None where it is."""
        ...

    def stop(self, reason: WarehouseError) -> None:
        """Send nothing more."""
        ...


class PaidChat:
    """What is asked about one unit.

    A request is answered once, however often it is made. One that was sent is waited for and kept, even where whoever
    asked no longer wants it, as it is paid for.

    Attributes:
        usage: tokens of the answers that were paid for now.
        n_asked: answers that were paid for now.
        n_known: answers that were in the ledger.
    """

    def __init__(
        self,
        unit_id: UnitId,
        run_id: str,
        endpoint: Endpoint,
        client: StoppableChat,
        budget: Budget,
        ledger: Ledger,
        known: Mapping[str, Completion],
        slots: asyncio.Semaphore,
    ) -> None:
        """Begin, with nothing asked.

        Args:
            unit_id: which unit it is about.
            run_id: who pays.
            endpoint: who is asked, for the ledger.
            client: asks it.
            budget: knows prices.
            ledger: keeps what is paid for.
            known: what the ledger has about the unit, by request.
            slots: one is held by each request from when it is sent until its answer is kept, so that no more answers
                than there are slots are lost where the process is killed.
        """
        self._unit_id, self._run_id, self._endpoint = unit_id, run_id, endpoint
        self._client, self._budget, self._ledger, self._known = client, budget, ledger, known
        self._slots = slots
        self._answers: dict[str, asyncio.Task[Completion]] = {}
        self.usage = Usage()
        self.n_asked = self.n_known = 0

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        top_logprobs: int = 0,
        purpose: str = "",
    ) -> Completion:
        """Give the answer of the ledger, or of the endpoint; errors are those of `Chat`, and LakeError."""
        endpoint = self._endpoint
        request = hash_request(endpoint.base_url, endpoint.model, messages, max_tokens, temperature, top_logprobs)
        if request not in self._answers:
            if known := self._known.get(request):
                answer = self._recall(known)
            else:
                asking = self._client.complete(
                    messages, max_tokens=max_tokens, temperature=temperature, top_logprobs=top_logprobs, purpose=purpose
                )
                answer = self._pay(request, purpose, asking)
            self._answers[request] = asyncio.create_task(answer)
        return await asyncio.shield(self._answers[request])

    async def finish(self) -> None:
        """Wait for what is under way; an error is for who asked, if anybody still waits for it."""
        await asyncio.gather(*self._answers.values(), return_exceptions=True)

    async def _recall(self, known: Completion) -> Completion:
        self.n_known += 1
        return known

    async def _pay(self, request: str, purpose: str, asking: Coroutine[Any, Any, Completion]) -> Completion:
        async with self._slots:
            completion = await asking
            used = Usage(completion.prompt_tokens, completion.completion_tokens)
            self.n_asked += 1
            self.usage += used
            cost, url = self._budget.cost(used), self._endpoint.base_url
            try:
                await self._ledger.keep(Paid(self._unit_id, request, completion, purpose, url, cost, self._run_id))
            except LakeError as e:
                self._client.stop(e)  # what cannot be kept is not bought
                raise
        return completion
