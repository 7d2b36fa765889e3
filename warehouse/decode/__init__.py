"""From a file's bytes to its NeuronRecord: pure functions, whatever the file's form, whoever wrote it.

    bytes ─ container ─► gzip unpacked, form known ─ json | torch, pickle ─► plain objects ─ layout ─► NeuronRecord

A file's content decides, never its name. Whatever the bytes are, the outcome is a record or a MalformedFile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from warehouse.datasets import Dataset
from warehouse.decode.container import Form, sniff, unpack
from warehouse.decode.describe import quote
from warehouse.decode.inert import Latin1
from warehouse.decode.json import load_json
from warehouse.decode.layout import read_neuron_record
from warehouse.decode.pickle import load_pickle
from warehouse.decode.torch import load_legacy, load_zip
from warehouse.errors import MalformedFile
from warehouse.records import LIMITS, Limits, NeuronRecord

__all__ = ["Decoded", "decode", "sniff", "unpack"]


@dataclass(frozen=True, slots=True)
class Decoded:
    """A unit's record, and the form in which its file holds it.

    Attributes:
        record: with layer_index and unit_index as the file's path says.
        format: json, pickle, torch-zip or torch-legacy, with +gzip where the file was packed.
    """

    record: NeuronRecord
    format: str


def decode(data: bytes, dataset: Dataset, layer: int, unit: int, limits: Limits = LIMITS) -> Decoded:
    """Decode one file.

    Args:
        data: the file as stored.
        dataset: what the file belongs to.
        layer: the layer that its path names.
        unit: the unit that its path names.
        limits: bounds on the file, unpacked, and on what it holds.

    Raises:
        MalformedFile: the file is in no known form or layout, is another unit's, breaks a limit or is broken; with
            what was found, and where. No other error comes from content.
    """
    form = sniff(data)
    packing = ""
    if form == "gzip":
        data = unpack(data, limits)
        form = sniff(data)
        packing = "+gzip"
    if len(data) > limits.file_bytes:
        raise MalformedFile(f"a file of {len(data)} bytes, beyond {limits.file_bytes}")
    root = _load(data, form, limits)
    if isinstance(root, (str, bytes, bytearray, Latin1)):
        root = _load_text(root, limits)
    return Decoded(read_neuron_record(root, dataset, layer, unit, limits), form + packing)


def _load(data: bytes, form: Form, limits: Limits) -> object:
    match form:
        case "json":
            return load_json(data, limits)
        case "torch-zip":
            return load_zip(data, limits)
        case "torch-legacy":
            return load_legacy(data, limits)
        case "pickle":
            root, end = load_pickle(data, 0, limits, None)
            if end != len(data):
                raise MalformedFile(f"a pickle with {len(data) - end} bytes after it")
            return root
        case "gzip":
            raise MalformedFile("a gzip file within a gzip file")
        case _:
            assert_never(form)


def _load_text(text: str | bytes | bytearray | Latin1, limits: Limits) -> object:
    """Read the JSON that a pickle holds as text or bytes."""
    if isinstance(text, Latin1):
        text = text.encode()
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)
    if sniff(data) != "json":
        raise MalformedFile(f"a pickle that holds {quote(data)}, which is not JSON")
    return load_json(data, limits)
