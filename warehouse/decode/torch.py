"""`.pt` files, as torch.save and pickle.dump write them, read without torch.

Source: torch/serialization.py, `_load` and `_legacy_load` (torch 2.13)
"""

from __future__ import annotations

import struct

from warehouse.decode.archive import read_directory, read_entry
from warehouse.decode.describe import describe, quote
from warehouse.decode.inert import Storage
from warehouse.decode.names import ITEM_SIZES
from warehouse.decode.pickle import load_pickle
from warehouse.errors import MalformedFile
from warehouse.records import Limits

_LEGACY_PROTOCOL = 1001
_LENGTH = struct.Struct("<q")


def load_zip(data: bytes, limits: Limits) -> object:
    """Read what torch.save wrote: a zip of `data.pkl` and one file for each storage.

    Args:
        data: the archive.
        limits: bounds what comes out of it.

    Returns:
        The object that was saved, of lists, dicts, strings, numbers and the stand-ins of `inert`.

    Raises:
        MalformedFile: a broken archive or pickle, or one that is not torch's.
    """
    entries = read_directory(data, limits)
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        found = ", ".join(map(quote, list(entries)[:8])) or "nothing"
        raise MalformedFile(f"a zip archive without one data.pkl, as torch writes it: it holds {found}")
    folder = pickles[0].removesuffix("data.pkl")
    contents = {name: read_entry(data, name, entry) for name, entry in entries.items()}
    if bytes(contents.get(f"{folder}byteorder", b"little")) != b"little":
        raise MalformedFile("a torch archive of another byte order than little")

    def open_storage(dtype: str, key: str, n_elements: int) -> Storage:
        content = contents.get(f"{folder}data/{key}")
        if content is None:
            raise MalformedFile(f"a torch archive without the storage {quote(key)} it refers to")
        return Storage(dtype, n_elements * ITEM_SIZES[dtype], content)

    pickled = bytes(contents[f"{folder}data.pkl"])
    root, end = load_pickle(pickled, 0, limits, open_storage)
    if end != len(pickled):
        raise MalformedFile(f"a torch archive with {len(pickled) - end} bytes after the pickle in data.pkl")
    return root


def load_legacy(data: bytes, limits: Limits) -> object:
    """Read what torch.save wrote before torch 1.6: five pickles, and the storages behind them.

    Args:
        data: the file.
        limits: bounds what comes out of it.

    Returns:
        As `load_zip`.

    Raises:
        MalformedFile: a broken file, or one of another version or byte order.
    """
    _, end = load_pickle(data, 0, limits, None)  # the magic number, which `sniff` knows
    protocol, end = load_pickle(data, end, limits, None)
    if protocol != _LEGACY_PROTOCOL:
        raise MalformedFile(f"a legacy torch file of protocol {describe(protocol)}, not {_LEGACY_PROTOCOL}")
    system, end = load_pickle(data, end, limits, None)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise MalformedFile(f"a legacy torch file that was not written little-endian: {describe(system)}")

    storages: dict[str, list[Storage]] = {}

    def open_storage(dtype: str, key: str, n_elements: int) -> Storage:
        storage = Storage(dtype, n_elements * ITEM_SIZES[dtype], None)
        storages.setdefault(key, []).append(storage)
        return storage

    root, end = load_pickle(data, end, limits, open_storage)
    keys, end = load_pickle(data, end, limits, None)
    if type(keys) is not list or not all(type(key) is str and key in storages for key in keys):
        raise MalformedFile(f"a legacy torch file whose storages are named by {describe(keys)}")
    for key in keys:
        start = end + _LENGTH.size
        n_elements = _LENGTH.unpack_from(data, end)[0] if start <= len(data) else -1
        end = start + n_elements * ITEM_SIZES[storages[key][0].dtype]
        if n_elements < 0 or end > len(data):
            raise MalformedFile(f"a legacy torch file that ends within the storage {quote(key)}")
        for storage in storages[key]:
            storage.data = memoryview(data)[start:end]
    if end != len(data):
        raise MalformedFile(f"a legacy torch file with {len(data) - end} bytes after its storages")
    return root
