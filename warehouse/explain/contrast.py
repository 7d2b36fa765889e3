"""Contrasting examples: texts on which a unit is not known to be active, to tell what it responds to from the rest.

What is known of a unit is what its own records say. Its activations on another unit's text are unknown, so `is_active`
is None and every activation NaN there: it may well be active. Where the same text is among its own records, its
activations are those, and a text on which it is active is no contrast. No text of a job's splits is a contrast, and
none is in both contrast splits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice, zip_longest

import numpy as np

from warehouse.explain.examples import Example, SplitName, SplitOptions
from warehouse.explain.prompts import to_scale
from warehouse.explain.samplers import seeded
from warehouse.explain.splits import UnfitUnit
from warehouse.explain.units import UnitRecords, iterate_units
from warehouse.reader import LakeReader
from warehouse.records import FloatArray, Section, UnitId

Text = tuple[str, ...]
Found = tuple[UnitRecords, int]
"""A unit's record by its index."""
Near = tuple[tuple[str, ...], list[UnitId]]
"""Tokens that a text must hold, and units of which it is to be."""

_POOL_UNITS = 64
"""Units of a layer from whose random samples all jobs of the layer draw, and that are held in memory."""
_SIMILAR_UNITS = 8
_TOKENS = 3
_UNITS_ON_TOKEN = 4
_PAIR = ("query_token", "key_token")


class ContrastFinder:
    """Finds contrasting examples for the jobs of a lake, and keeps the texts of the layer it is in."""

    def __init__(self, reader: LakeReader, how: SplitOptions) -> None:
        self._reader = reader
        self._how = how
        self._sources: dict[str, Callable[[UnitRecords], Iterator[Found]]] = {
            "inactive": self._own_records,
            "random": self._random_records,
            "similar": self._near_records,
            "tokens": self._near_records,
        }
        self._pool_of: tuple[str, int] | None = None
        self._pool: list[Found] = []
        self._near: dict[UnitId, list[Near]] = {}
        self._others: dict[UnitId, list[Found]] = {}

    def prepare(self, units: Sequence[UnitRecords]) -> None:
        """Read the other units that these need, all at once: they lie all over their layer's parts."""
        if self._how.contrast in ("similar", "tokens"):
            list_near = self._list_similar if self._how.contrast == "similar" else self._list_on_its_tokens
            self._near = {unit.unit_id: list_near(unit) for unit in units}
            names = {name for near in self._near.values() for _, others in near for name in others}
            ordered = sorted(names, key=lambda name: (name.model, name.component, name.layer, name.unit))
            others = iterate_units(self._reader, ordered)
            self._others = {other.unit_id: [(other, i) for i in range(len(other))] for other in others}

    def find(
        self, unit: UnitRecords, used: Sequence[int], max_activation: float
    ) -> dict[SplitName, tuple[Example, ...]]:
        """Find contrasting examples of a job, half of them for an explainer and half for a scorer.

        Args:
            unit: whose job.
            used: indices of the records in its splits.
            max_activation: the job's.

        Raises:
            UnfitUnit: there are too few.
        """
        own = {tuple(unit.tokens(i)): i for i in reversed(range(len(unit)))}
        taken = {tuple(unit.tokens(i)) for i in used}
        wanted = 2 * self._how.n_contrast
        found = list(islice(self._select(unit, own, taken, max_activation), wanted))
        if len(found) < wanted:
            raise UnfitUnit(
                f"needs {wanted} contrasting texts of the kind {self._how.contrast} that are in no split, "
                f"has {len(found)}"
            )
        return {"contrast_train": tuple(found[::2]), "contrast": tuple(found[1::2])}

    def _select(
        self, unit: UnitRecords, own: dict[Text, int], taken: set[Text], max_activation: float
    ) -> Iterator[Example]:
        for source, index in self._sources[self._how.contrast](unit):
            text = tuple(source.tokens(index))
            if text in taken:
                continue
            taken.add(text)
            known = unit.activations[own[text]] if text in own else None
            if known is None or not is_active(known, max_activation):
                yield make_example(source, index, text, known, max_activation)

    def _own_records(self, unit: UnitRecords) -> Iterator[Found]:
        """Give the unit's own records, those of its random sample first."""
        draw = seeded(self._how.seed, "inactive", unit.unit_id)
        drawn = [i for i, section in enumerate(unit.sections) if section == "random"]
        others = [i for i, section in enumerate(unit.sections) if section != "random"]
        return ((unit, i) for i in chain(draw.sample(drawn, len(drawn)), draw.sample(others, len(others))))

    def _random_records(self, unit: UnitRecords) -> Iterator[Found]:
        """Give records of the random samples of other units of the layer."""
        layer = (unit.dataset.key, unit.unit_id.layer)
        if self._pool_of != layer:
            self._pool_of, self._pool = layer, self._fill_pool(unit.unit_id)
        others = [found for found in self._pool if found[0].unit_id != unit.unit_id]
        draw = seeded(self._how.seed, "random", unit.unit_id)
        return iter(draw.sample(others, len(others)))

    def _fill_pool(self, name: UnitId) -> list[Found]:
        query = (
            "SELECT unit FROM units WHERE model = $model AND component = $component AND layer = $layer "
            "AND n_random > 0 ORDER BY unit"
        )
        place = {"model": name.model, "component": name.component, "layer": name.layer}
        units: list[int] = self._reader.sql(query, place)["unit"].to_list()
        draw = seeded(self._how.seed, "pool", f"{name.model}/{name.component}/{name.layer}")
        chosen = sorted(draw.sample(units, min(len(units), _POOL_UNITS)))
        names = [UnitId(name.model, name.component, name.layer, unit) for unit in chosen]
        return [found for other in iterate_units(self._reader, names) for found in _of_section(other, "random")]

    def _near_records(self, unit: UnitRecords) -> Iterator[Found]:
        """Give the records of near units that hold what they are near by, the strongest of each before any second."""
        for tokens, names in self._near[unit.unit_id]:
            for same_rank in zip_longest(*(self._others.get(name, []) for name in names)):
                yield from (found for found in same_rank if found and set(tokens) <= set(found[0].tokens(found[1])))

    def _list_similar(self, unit: UnitRecords) -> list[Near]:
        name = unit.unit_id
        ranked = self._reader.similar_units(name, _SIMILAR_UNITS, name.model, name.component, name.layer)
        return [((), [UnitId.parse(other) for other in ranked["unit_id"]])]

    def _list_on_its_tokens(self, unit: UnitRecords) -> list[Near]:
        return [(tokens, self._list_units_on(unit.unit_id, tokens)) for tokens in _strongest_tokens(unit)]

    def _list_units_on(self, name: UnitId, tokens: tuple[str, ...]) -> list[UnitId]:
        filters = {"k": _UNITS_ON_TOKEN + 1, "model": name.model, "component": name.component, "layer": name.layer}
        if len(tokens) == 1:
            query, on = "FROM top_units($token, ", {"token": tokens[0]}
        else:
            query, on = "FROM top_units_by_pair($query_token, $key_token, ", dict(zip(_PAIR, tokens, strict=True))
        query += "k := $k, model := $model, component := $component, layer := $layer)"
        ranked = self._reader.sql(query, on | filters)
        return [other for other in map(UnitId.parse, ranked["unit_id"]) if other != name][:_UNITS_ON_TOKEN]


def make_example(
    source: UnitRecords, index: int, tokens: Text, activations: FloatArray | None, max_activation: float
) -> Example:
    """Make an example of a record.

    Args:
        source: whose record it is.
        index: which.
        tokens: its tokens.
        activations: those of the job's unit on it, None where they are not known.
        max_activation: the job's.
    """
    known = np.full(len(source.activations[index]), np.nan, np.float32) if activations is None else activations
    return Example(
        source.unit_id,
        source.sections[index],
        source.quantiles[index],
        source.ranks[index],
        tokens,
        known,
        None if activations is None else is_active(activations, max_activation),
    )


def is_active(activations: FloatArray, max_activation: float) -> bool:
    """Say whether any activation reaches 1 on the scale of 0 to 10, which is a tenth of the largest."""
    return bool(to_scale(activations, max_activation).any())


def _of_section(unit: UnitRecords, section: Section) -> Iterator[Found]:
    return ((unit, i) for i, of in enumerate(unit.sections) if of == section)


def _strongest_tokens(unit: UnitRecords) -> list[tuple[str, ...]]:
    """Give the tokens, or pairs of query and key token, of a unit's strongest activation in each top record."""
    strongest: dict[tuple[str, ...], float] = {}
    for _, index in _of_section(unit, "top"):
        tokens, values = unit.tokens(index), unit.activations[index]
        if not len(values):
            continue
        place = int(values.argmax())
        if unit.dataset.per == "token":
            on: tuple[str, ...] = (tokens[place],)
        else:
            query, key = unit.pair_positions(index)
            on = (tokens[query[place]], tokens[key[place]])
        strongest[on] = max(float(values[place]), strongest.get(on, -np.inf))
    return sorted(strongest, key=lambda on: (-strongest[on], on))[:_TOKENS]
