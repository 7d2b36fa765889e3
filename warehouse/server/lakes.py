"""The lake that is served now: a rebuilt catalogue takes the place of the old one while requests go on."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TypeAlias

import warehouse
from warehouse.catalogue import is_current
from warehouse.errors import LakeError
from warehouse.lake import Lake
from warehouse.server.access_log import log_event
from warehouse.server.tree import FileTree

Version: TypeAlias = tuple[int, int] | None
_REMOTE_SECONDS = 60.0
"""How often to ask a store whether its lake was built again: each time is a listing of the lake."""


class LiveLake:
    """Hands out the open lake, and opens it anew where its catalogue was replaced.

    A request takes `reader` once and keeps it: the one it has stays open for as long as somebody holds it.

    Attributes:
        reader: the lake as it is now, which threads may share.
        tree: the paths of its datasets.
        version: which catalogue that is.
    """

    def __init__(self, url: str) -> None:
        """Open a lake.

        Raises:
            LakeError: there is no lake, or no catalogue can be had.
        """
        self._url = url
        self._open()

    def _open(self) -> None:
        reader = warehouse.open(self._url)
        reader.sql("SELECT 1")  # opens the catalogue, so that no request waits for it
        version = catalogue_version(reader.lake)
        self.tree = FileTree(reader.lake.datasets().values())
        self.reader, self.version = reader, version

    def refresh(self) -> bool:
        """Open the lake anew if its catalogue was replaced, and say whether it was.

        Raises:
            LakeError: the new one cannot be opened; the old one stays.
        """
        lake = self.reader.lake
        version = catalogue_version(lake)
        if version is None or (version == self.version and (lake.is_local or is_current(lake))):
            return False
        self._open()
        return True

    def check(self) -> None:
        """See whether the lake is still where it was: its catalogue, and a part.

        Raises:
            LakeError: the catalogue is gone.
            StaleCatalogue: the part is gone.
        """
        lake = self.reader.lake
        if catalogue_version(lake) is None:
            raise LakeError(f"{lake.root} has no catalogue any more: is the lake still there?")
        self.reader.sql("SELECT status FROM files LIMIT 1")  # what is open already is read even where it was removed

    async def watch(self, seconds: float) -> None:
        """Refresh again and again, until cancelled.

        Args:
            seconds: the pause between; on a store a minute at least.
        """
        pause = seconds if self.reader.lake.is_local else max(seconds, _REMOTE_SECONDS)
        while True:
            await asyncio.sleep(pause)
            start = time.perf_counter()
            try:
                if await asyncio.to_thread(self.refresh):
                    log_event("catalogue_swapped", milliseconds=round((time.perf_counter() - start) * 1e3, 1))
            except LakeError as e:
                log_event("catalogue_not_swapped", error=str(e))


def catalogue_version(lake: Lake) -> Version:
    """Tell one catalogue file from the one that replaces it; None while there is none."""
    try:
        found = os.stat(lake.catalogue_path)  # noqa: PTH116  (its errors are the answer)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
