"""What a run would ask and cost, without asking: the prompts of its first unit, and an estimate for all of them."""

from __future__ import annotations

from dataclasses import dataclass

from warehouse.explain.budget import Usage, estimate_prompt_tokens
from warehouse.explain.chat import AskError
from warehouse.explain.jobs import Job, Unfit, iterate_jobs
from warehouse.explain.plugins import make_prompts
from warehouse.explain.protocols import Prompt, load_explainer, load_scorer
from warehouse.explain.run_plan import RunOptions, RunPlan
from warehouse.reader import LakeReader

SAMPLED_UNITS = 20
_EXPLANATION = "words and phrases about the explanation that the model gave, which is not known yet"
"""Stands in for an explanation in the prompts of scorers: as long as a usual one."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would cost.

    Attributes:
        n_units: units that it would explain, those without enough records among them.
        n_sampled: units, spread evenly over all, whose prompts were made to reckon with.
        n_unfit: of these, how many have too few records.
        n_requests: about how many requests it would send.
        usage: about how many tokens these have, and at most how many their answers.
        cost: at most, in the currency of the prices; None without prices.
    """

    n_units: int
    n_sampled: int
    n_unfit: int
    n_requests: int
    usage: Usage
    cost: float | None


class DryRun:
    """A run that asks nothing."""

    def __init__(self, reader: LakeReader, plan: RunPlan, options: RunOptions) -> None:
        """Prepare.

        Raises:
            UnknownPlugin: there is no such explainer or scorer.
        """
        self._reader, self._plan, self._options = reader, plan, options
        self._explainer = load_explainer(options.explainer)
        self._scorers = [load_scorer(name) for name in options.scorers]

    def find_first(self) -> Job | Unfit | None:
        """Give the first unit that can be explained; where none of the first 20 can, one that cannot, and why."""
        unfit: Unfit | None = None
        for job in iterate_jobs(self._reader, self._plan.unit_ids[:SAMPLED_UNITS], self._options.splits):
            if isinstance(job, Job):
                return job
            unfit = unfit or job
        return unfit

    def list_prompts(self, job: Job) -> list[tuple[str, Prompt]]:
        """Give all that would be asked about a unit, each with the name of who would ask it.

        Raises:
            AskError: the explainer is not for such a unit, or breaks.
        """
        prompts = [(self._explainer.name, prompt) for prompt in make_prompts(self._explainer.prompts, job)]
        for scorer in self._scorers:
            prompts += [(scorer.name, prompt) for prompt in make_prompts(scorer.prompts, job, _EXPLANATION)]
        return prompts

    def estimate(self) -> Estimate:
        """Estimate what the run would ask and cost, from the prompts of a sample of its units.

        What is in the ledger already is not taken off.
        """
        unit_ids = self._plan.unit_ids
        sampled = unit_ids[:: max(1, -(-len(unit_ids) // SAMPLED_UNITS))]
        n_unfit = n_requests = 0
        usage = Usage()
        for job in iterate_jobs(self._reader, sampled, self._options.splits):
            try:
                prompts = [] if isinstance(job, Unfit) else self.list_prompts(job)
            except AskError:
                prompts = []
            n_unfit += not prompts
            n_requests += len(prompts)
            for _, prompt in prompts:
                usage += Usage(estimate_prompt_tokens(prompt.messages), prompt.max_tokens)
        share = len(unit_ids) / max(1, len(sampled))
        total = Usage(round(usage.prompt_tokens * share), round(usage.completion_tokens * share))
        cost = None if self._options.prices is None else self._options.prices.cost(total)
        return Estimate(len(unit_ids), len(sampled), n_unfit, round(n_requests * share), total, cost)
