"""What a run is to do: the options that tell it from others, and the units that are not done yet."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
import pyarrow as pa

from warehouse.errors import LakeError
from warehouse.explain.budget import Budget, Prices
from warehouse.explain.endpoint import Endpoint, identify
from warehouse.explain.jobs import SplitOptions, select_units
from warehouse.explain.protocols import identify_plugin, load_explainer, load_scorer
from warehouse.lake import Lake
from warehouse.reader import LakeReader
from warehouse.records import UnitId

BATCH_UNITS = 128
_PLACE_DIGITS = 6
"""Hexadecimal digits of a run id that stand for the base URL."""
_DONE = ("ok", "refused", "unfit")
"""What is not tried again: the same would come of it."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run asks, of whom, and what it may cost.

    Attributes:
        endpoint: the model, and how it is asked.
        explainer: as `load_explainer` takes it.
        scorers: as `load_scorer` takes them; none for explanations alone.
        splits: how the examples are chosen.
        origin: the name under which the answers stand in the lake.
        prices: of the model, None where they are not known.
        money: the most that this run may cost, None for no limit.
        tokens: the most tokens that it may use, likewise.
        force: whether to go through units that are done too; what was asked for them comes from the ledger.
    """

    endpoint: Endpoint
    explainer: str = "openai"
    scorers: tuple[str, ...] = ()
    splits: SplitOptions = SplitOptions()
    origin: str = "local"
    prices: Prices | None = None
    money: float | None = None
    tokens: int | None = None
    force: bool = False

    def identify(self) -> str:
        """Give what tells runs with other answers apart, as ten hexadecimal digits: all but where and how fast.

        An explainer or scorer that is a file counts by what the file says.

        Raises:
            UnknownPlugin: such a file cannot be read.
        """
        code = (identify_plugin(self.explainer), sorted(map(identify_plugin, self.scorers)))
        return _hash((self.origin, *code, self.endpoint.model, self.splits))[:10]


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run is to do.

    Attributes:
        run_id: its name: the options' identity, when it began, a hash of the base URL, and chance.
        unit_ids: the units to explain, in order of model, component, layer and unit.
        n_done: units that were done before.
        n_done_elsewhere: of these, how many another base URL was asked about, and not this one.
    """

    run_id: str
    unit_ids: Sequence[UnitId]
    n_done: int
    n_done_elsewhere: int

    def batches(self) -> list[Sequence[UnitId]]:
        """Give the units in batches."""
        return [self.unit_ids[i : i + BATCH_UNITS] for i in range(0, len(self.unit_ids), BATCH_UNITS)]


def check_options(options: RunOptions) -> None:
    """Check what can be known of a run's options before anything is read or asked.

    Raises:
        WarehouseError: a budget without prices, no such explainer or scorer, or a key that can be none.
    """
    Budget(options.prices, options.money, options.tokens)
    identify(options.endpoint)
    load_explainer(options.explainer)
    for name in options.scorers:
        load_scorer(name)


def plan_run(reader: LakeReader, where: str, options: RunOptions, limit: int | None = None) -> RunPlan:
    """Choose the units of a run, without those that have an answer of the same origin, model and options.

    Args:
        reader: of the lake.
        where: SQL condition over the view `units`.
        options: of the run.
        limit: units at most, of those that are not done.

    Raises:
        QueryError: the condition is wrong SQL, or does more than read.
        LakeError: the lake cannot be read.
        UnknownPlugin: the file of an explainer or scorer cannot be read.
    """
    chosen = select_units(reader, where)
    place = _hash(options.endpoint.base_url)[:_PLACE_DIGITS]
    done = {} if options.force else find_done(reader.lake, options)
    left: Sequence[UnitId] = [unit_id for unit_id in chosen if unit_id not in done] if done else chosen
    n_elsewhere = sum(1 for unit_id in chosen if (places := done.get(unit_id)) and place not in places)
    run_id = f"{options.identify()}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{place}{secrets.token_hex(3)}"
    return RunPlan(run_id, left[:limit], len(chosen) - len(left), n_elsewhere)


def _is_done(status: str, error: str | None) -> bool:
    """Say whether a unit with such an answer is not tried again; an ok one with an error lacks scores."""
    return status in _DONE and not (status == "ok" and error)


def find_done(lake: Lake, options: RunOptions) -> dict[UnitId, frozenset[str]]:
    """Find the units that a run with the same options has done, catalogued or not.

    Returns:
        Of each, the hashes of the base URLs that were asked about it, as run ids have them; none where nothing was.

    Raises:
        LakeError: the lake cannot be read.
    """
    done: dict[UnitId, frozenset[str]] = {}
    mark = f"/run-{options.identify()}-"
    try:
        for path in lake.batches("answers"):
            if mark not in path:
                continue
            asked = frozenset({path.rpartition(mark)[2].split("-")[1][:_PLACE_DIGITS]})
            for rows in lake.iterate_batch(path, ["model", "component", "layer", "unit", "status", "error"]):
                *unit_ids, statuses, errors = (column.to_pylist() for column in rows.columns)
                for *unit, status, error in zip(*unit_ids, statuses, errors, strict=True):
                    if _is_done(status, error):
                        unit_id = UnitId(*unit)
                        done[unit_id] = done.get(unit_id, frozenset()) | (frozenset() if status == "unfit" else asked)
    except (pa.ArrowException, OSError) as e:
        raise LakeError(f"cannot read the answers of {lake.url}: {e}") from e
    return done


def _hash(what: object) -> str:
    return hashlib.sha256(msgspec.json.encode(what)).hexdigest()
