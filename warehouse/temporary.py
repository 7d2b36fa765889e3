"""Temporary files that become parts: each named after the process that writes it, so that a dead one's can be told."""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from contextlib import suppress
from pathlib import Path

_STALE_SECONDS = 24 * 3600
_NAME = re.compile(r"(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]+\.tmp")  # and what DuckDB writes beside one


def name_temporary(folder: Path, prefix: str = "") -> Path:
    """Name a new file of this process in a folder.

    Args:
        folder: where.
        prefix: what the names of such files begin with, in a folder that holds other things too.
    """
    return folder / f"{prefix}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"


def sweep_temporary(folder: Path, prefix: str = "") -> None:
    """Remove the temporary files of writers that were killed: of a process that is gone, or of long ago."""
    host = socket.gethostname()
    for path in folder.iterdir():
        written_by = _NAME.match(path.name.removeprefix(prefix)) if path.name.startswith(prefix) else None
        if written_by is None:
            continue
        is_here = written_by["host"] == host and Path("/proc").exists()
        is_dead = is_here and not Path("/proc", written_by["pid"]).exists()
        with suppress(FileNotFoundError, PermissionError):  # a live writer has just moved it, or it is another user's
            if is_dead or path.stat().st_mtime < time.time() - _STALE_SECONDS:
                path.unlink()
