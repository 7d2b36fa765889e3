"""What is left of a unit's limits while its file is read."""

from __future__ import annotations

from warehouse.errors import MalformedFile
from warehouse.records import Limits


class Budget:
    """What a unit may still hold: its records, tokens, characters and activations are taken from it as they are met."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._left = {
            "records": limits.unit_records,
            "tokens": limits.unit_values,
            "characters": limits.file_bytes,
            "activations": limits.unit_values,
        }

    def take(self, n: int, what: str, where: str) -> None:
        """Take n records, tokens, characters or activations.

        Raises:
            MalformedFile: the unit has more of them than the limits let it.
        """
        self._left[what] -= n
        if self._left[what] < 0:
            raise MalformedFile(f"{where}: the unit has too many {what}, {-self._left[what]} beyond the limit")
