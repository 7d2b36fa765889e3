"""A run: jobs to an explainer, its explanations to scorers, and what came of each unit to the lake.

Nothing here knows how a run is started or shown: a flow hands over batches of units, and is told of each answer.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from warehouse.errors import WarehouseError
from warehouse.explain.answers import Answer, AnswerScore, find_fault, write_answers
from warehouse.explain.asking import PaidChat
from warehouse.explain.budget import Budget, Usage
from warehouse.explain.chat import AskError, Completion, OutOfBudget
from warehouse.explain.client import Client
from warehouse.explain.jobs import Job, Unfit, iterate_jobs
from warehouse.explain.ledger import Ledger
from warehouse.explain.plugins import PluginFailure, ask_explainer, ask_scorer
from warehouse.explain.protocols import Explainer, Score, Scorer, load_explainer, load_scorer
from warehouse.explain.run_plan import RunOptions, RunPlan
from warehouse.reader import LakeReader
from warehouse.records import UnitId

_SECONDS_BETWEEN_FILES = 60.0
_LONGEST_ERROR = 500
_MOST_REASONS = 100
_MOST_BROKEN = 10
"""Units in a row on which an explainer or scorer breaks, before the run stops."""


@dataclass(slots=True)
class Tally:
    """What came of a run so far.

    Attributes:
        n_asked: answers that were paid for.
        n_known: answers that were paid for before.
        statuses: units by what came of them.
        n_unscored: of the ok ones, those for which a scorer had no answer.
        reasons: by what went wrong (numbers aside), at most a hundred different ones: units, and the first one's.
    """

    n_asked: int = 0
    n_known: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    n_unscored: int = 0
    reasons: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, answer: Answer) -> None:
        """Take in what came of a unit."""
        self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
        if answer.error is None:
            return
        self.n_unscored += answer.status == "ok"
        kind = re.sub(r"\d+", "N", answer.error)
        if kind in self.reasons or len(self.reasons) < _MOST_REASONS:
            n_units, first = self.reasons.get(kind, (0, f"{answer.unit_id}: {answer.error}"))
            self.reasons[kind] = n_units + 1, first


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What came of a run.

    Attributes:
        n_units: units that it was to explain.
        n_done_before: units that had an answer already.
        n_done_elsewhere: of these, how many had it from another base URL.
        tally: what came of those that it came to.
        spent: tokens that were paid for.
        doubtful: at most so many more: of answers that were lost on their way, or came without their count.
        cost: of what was spent, None without prices.
        doubtful_cost: likewise.
        stopped_by: why it ended before its time, None where it did not.
    """

    n_units: int
    n_done_before: int
    n_done_elsewhere: int
    tally: Tally
    spent: Usage
    doubtful: Usage
    cost: float | None
    doubtful_cost: float | None
    stopped_by: str | None

    @property
    def n_left(self) -> int:
        """Units that it did not come to."""
        return self.n_units - sum(self.tally.statuses.values())


class RunStopped(WarehouseError):
    """A run ended before its time; what was done is in the lake.

    Attributes:
        summary: what came of it.
    """

    def __init__(self, summary: RunSummary) -> None:
        super().__init__(f"{summary.stopped_by}; what was done is kept, and the same command goes on from there")
        self.summary = summary


class Run:
    """A run under way, on one event loop; `open_run` gives one.

    Attributes:
        budget: what was spent.
        tally: what came of units so far.
    """

    def __init__(
        self,
        reader: LakeReader,
        plan: RunPlan,
        options: RunOptions,
        client: Client,
        budget: Budget,
        ledger: Ledger,
        on_answer: Callable[[Answer], None],
    ) -> None:
        self.budget, self.tally = budget, Tally()
        self._reader, self._plan, self._options = reader, plan, options
        self._client, self._ledger, self._on_answer = client, ledger, on_answer
        self._explainer: Explainer = load_explainer(options.explainer)
        self._scorers: list[Scorer] = [load_scorer(name) for name in options.scorers]
        self._under_way = asyncio.Semaphore(options.endpoint.concurrency)
        self._slots = asyncio.Semaphore(options.endpoint.concurrency)
        self._waiting: list[Answer] = []
        self._n_files = self._n_broken = 0
        self._written_at = time.monotonic()

    @property
    def stopped_by(self) -> WarehouseError | None:
        """Why the run ends before its time, None where it does not."""
        return self._client.stopped_by

    def summarise(self) -> RunSummary:
        """Say what came of it so far."""
        budget, reason = self.budget, self.stopped_by
        return RunSummary(
            n_units=len(self._plan.unit_ids),
            n_done_before=self._plan.n_done,
            n_done_elsewhere=self._plan.n_done_elsewhere,
            tally=self.tally,
            spent=budget.spent,
            doubtful=budget.doubtful,
            cost=budget.cost(budget.spent),
            doubtful_cost=budget.cost(budget.doubtful),
            stopped_by=None if reason is None else str(reason),
        )

    async def do_batch(self, unit_ids: Collection[UnitId]) -> int:
        """Explain and score units, and write what came of them; some at once.

        Returns:
            How many units have an answer, or a reason why they have none. Where something stops the run, the units
            after it have neither.

        Raises:
            LakeError: the lake cannot be read or written.
        """
        jobs = iterate_jobs(self._reader, list(unit_ids), self._options.splits)
        tasks: list[asyncio.Task[None]] = []
        try:
            known = await asyncio.to_thread(self._ledger.load, unit_ids)
            while (job := await asyncio.to_thread(next, jobs, None)) is not None:
                await self._under_way.acquire()
                if self.stopped_by is not None:
                    self._under_way.release()
                    break
                tasks.append(asyncio.create_task(self._do_unit(job, known)))
        except WarehouseError as e:
            self._client.stop(e)
            raise
        finally:
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await self._write()
        for result in results:
            if isinstance(result, BaseException):
                self._client.stop(WarehouseError(f"stopped by an error: {result}"))
                raise result
        return len(tasks)

    async def _do_unit(self, job: Job | Unfit, known: Mapping[str, Completion]) -> None:
        try:
            answer = self._explain_unfit(job) if isinstance(job, Unfit) else await self._answer(job, known)
        finally:
            self._under_way.release()
        self._waiting.append(answer)
        self.tally.add(answer)
        self._on_answer(answer)
        if time.monotonic() - self._written_at > _SECONDS_BETWEEN_FILES:
            await self._write()

    async def _answer(self, job: Job, known: Mapping[str, Completion]) -> Answer:
        """Explain and score one unit."""
        options = self._options
        who = job.unit_id, self._plan.run_id, options.endpoint
        chat = PaidChat(*who, self._client, self.budget, self._ledger, known, self._slots)
        answer = self._begin(job.unit_id)
        errors: list[BaseException] = []
        try:
            explanation = await ask_explainer(self._explainer, job, chat, self._client.hide)
            scores, errors = await self._score(job, explanation, chat)
            answer = replace(answer, status="ok", explanation=explanation, scores=scores, error=_join(errors))
        except AskError as e:
            errors = [e]
            answer = replace(answer, status="refused" if e.status == "refused" else "failed", error=_join(errors))
        except OutOfBudget as e:
            answer = replace(answer, status="over_budget", error=_join([e]))
        except WarehouseError as e:
            self._client.stop(e)
            answer = replace(answer, status="failed", error=_join([e]))
        finally:
            await chat.finish()
        self._count_broken(errors)
        self.tally.n_asked += chat.n_asked
        self.tally.n_known += chat.n_known
        answer = replace(
            answer,
            created_at=datetime.now(UTC),
            prompt_tokens=chat.usage.prompt_tokens,
            completion_tokens=chat.usage.completion_tokens,
            cost=self.budget.cost(chat.usage),
        )
        if fault := find_fault(answer):
            return replace(answer, status="failed", explanation=None, scores=(), error=fault)
        return answer

    async def _score(
        self, job: Job, explanation: str, chat: PaidChat
    ) -> tuple[tuple[AnswerScore, ...], list[BaseException]]:
        """Score an explanation by all scorers at once; one that has no answer costs its own scores only.

        Raises:
            WarehouseError: something that stops the run.
        """
        results = await asyncio.gather(
            *(ask_scorer(scorer, job, explanation, chat, self._client.hide) for scorer in self._scorers),
            return_exceptions=True,
        )
        scores: dict[str, Score] = {}
        errors: list[BaseException] = []
        for result in results:
            if isinstance(result, AskError):
                errors.append(result)
            elif isinstance(result, BaseException):
                raise result
            else:
                for score in result:
                    scores.setdefault(score.kind, score)  # of a kind that two scorers give, the first one's
        return tuple(AnswerScore(s.kind, s.value, s.low, s.high, s.n) for s in scores.values()), errors

    def _count_broken(self, errors: Sequence[BaseException]) -> None:
        """Stop the run where nothing but errors in an explainer's or scorer's own code comes any more."""
        broken = [error for error in errors if isinstance(error, PluginFailure)]
        self._n_broken = self._n_broken + 1 if broken else 0
        if self._n_broken >= _MOST_BROKEN:
            self._client.stop(WarehouseError(f"{self._n_broken} units in a row broke on an error: {_join(broken)}"))

    def _begin(self, unit_id: UnitId) -> Answer:
        options = self._options
        explainer = f"{self._explainer.name}/{options.endpoint.model}"
        return Answer(unit_id, options.origin, explainer=explainer, status="failed", run_id=self._plan.run_id)

    def _explain_unfit(self, job: Unfit) -> Answer:
        return replace(self._begin(job.unit_id), status="unfit", error=job.reason, created_at=datetime.now(UTC))

    async def _write(self) -> None:
        """Write the answers that wait."""
        if self._waiting:
            answers, self._waiting = self._waiting, []
            self._n_files += 1
            self._written_at = time.monotonic()
            name = f"run-{self._plan.run_id}-{self._n_files:06d}"
            await asyncio.to_thread(write_answers, self._reader.lake, answers, name)


@asynccontextmanager
async def open_run(
    reader: LakeReader, plan: RunPlan, options: RunOptions, on_answer: Callable[[Answer], None]
) -> AsyncIterator[Run]:
    """Open a run's endpoint and ledger for the time of the context.

    Args:
        reader: of the lake, which must be writable.
        plan: as `plan_run` gave it.
        options: of the run.
        on_answer: told of each unit as it is done.

    Raises:
        EndpointError: the key can be none, or the variable that was named for it is not set.
        WarehouseError: no such explainer or scorer.
    """
    budget = Budget(options.prices, options.money, options.tokens)
    ledger = Ledger(reader.lake)
    async with Client(options.endpoint, budget) as client:
        try:
            yield Run(reader, plan, options, client, budget, ledger, on_answer)
        finally:
            await ledger.close()


def _join(errors: Sequence[BaseException]) -> str | None:
    return "; ".join(dict.fromkeys(" ".join(str(e).split()) for e in errors))[:_LONGEST_ERROR] or None
