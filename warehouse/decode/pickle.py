"""Pickles, read by the C unpickler into inert stand-ins: a closed list of names, and nothing that runs.

Two walls, each enough by itself: `check_opcodes` lets only data opcodes through, and `find_class` gives only the
stand-ins of `names`, which cannot be changed and do no more than hold what they are called with.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from io import BytesIO
from typing import Any, TypeAlias

from warehouse.decode.describe import one_line, quote
from warehouse.decode.inert import Storage
from warehouse.decode.names import NAMES, StorageType
from warehouse.decode.opcodes import check_opcodes
from warehouse.errors import MalformedFile
from warehouse.records import Limits

OpenStorage: TypeAlias = Callable[[str, str, int], Storage]
"""Makes a storage from its type of number, its key and its number of elements."""

_PERSISTENT_ID = (str, StorageType, str, str, int)

# What reading a pickle can raise: the unpickler's own errors, and those of a stand-in called in a wrong way.
_PICKLE_ERRORS = (pickle.UnpicklingError, ValueError, TypeError, AttributeError, LookupError, EOFError, OverflowError)


def load_pickle(data: bytes, start: int, limits: Limits, open_storage: OpenStorage | None) -> tuple[object, int]:
    """Read one pickle.

    Args:
        data: the file, or a part of it.
        start: where the pickle begins.
        limits: bounds the objects it makes.
        open_storage: makes the storages it refers to; None where there are none.

    Returns:
        Lists, tuples, dicts, strings, numbers and the stand-ins of `inert`, and where the pickle ends.

    Raises:
        MalformedFile: not a pickle, or one with other opcodes or names than data needs.
    """
    end = check_opcodes(data, start, limits)
    # One frame around the whole lets the unpickler take it in one read instead of one for each opcode.
    framed = b"".join((pickle.FRAME, (end - start).to_bytes(8, "little"), memoryview(data)[start:end]))
    try:
        return _Unpickler(framed, open_storage).load(), end
    except _PICKLE_ERRORS as e:
        raise MalformedFile(f"a pickle that cannot be read: {one_line(e)}") from e


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, open_storage: OpenStorage | None) -> None:
        super().__init__(BytesIO(data))
        self._open_storage = open_storage

    def find_class(self, module: str, name: str) -> Any:
        found = NAMES.get((module, name))
        if found is None:
            raise pickle.UnpicklingError(f"it names {quote(f'{module}.{name}')}, which is not on the list of names")
        return found

    def persistent_load(self, pid: object) -> Storage:
        # ("storage", type, key, location, n_elements), and in legacy files a sixth, None, for a view's place
        if type(pid) is not tuple or tuple(map(type, pid[:5])) != _PERSISTENT_ID or pid[0] != "storage":
            raise pickle.UnpicklingError("a persistent id is not that of a storage")
        if pid[5:] not in ((), (None,)) or pid[4] < 0:
            raise pickle.UnpicklingError("a storage is a view of another, or has a negative size")
        if self._open_storage is None:
            raise pickle.UnpicklingError("it refers to a tensor's storage, which a bare pickle does not have")
        return self._open_storage(pid[1].dtype, pid[2], pid[4])
