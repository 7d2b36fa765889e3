"""What a pickle is read into: stand-ins that hold data and can do nothing.

No class of torch, numpy or TDB is ever made from a file. Each stand-in has slots, so that it has no `__dict__` to
write to, and a `__setstate__`, so that the unpickler's BUILD cannot set attributes by itself.
"""

from __future__ import annotations

import functools
from pickle import UnpicklingError
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warehouse.errors import MalformedFile
from warehouse.records import Limits

AnyArray: TypeAlias = NDArray[Any]

MAX_DIMENSIONS = 8
BFLOAT16 = "bfloat16"


class Inert:
    """A stand-in that takes no state."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise UnpicklingError(f"it sets a state on a {type(self).__name__}")


class PickledObject(Inert):
    """An object of one of TDB's dataclasses: the mapping of its fields, and nothing else."""

    __slots__ = ("fields",)
    fields: dict[str, object]

    def __new__(cls) -> PickledObject:
        """Make an object without fields, as NEWOBJ does before it sets them."""
        made = object.__new__(cls)
        made.fields = {}
        return made

    def __setstate__(self, state: object) -> None:
        if type(state) is not dict:
            raise UnpicklingError("an object's state is not a mapping of its fields")
        self.fields = state


def as_mapping(value: object) -> dict[str, object] | None:
    """Give the fields of a mapping or of a TDB object; None for anything else."""
    if isinstance(value, PickledObject):
        return value.fields
    return value if isinstance(value, dict) else None


class Latin1(Inert):
    """Bytes that protocol 2 writes as text, kept as text until they are wanted."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def encode(self) -> bytes:
        """Give the bytes.

        Raises:
            MalformedFile: a character that is no byte.
        """
        try:
            return self.text.encode("latin-1")
        except UnicodeEncodeError as e:
            raise MalformedFile("bytes written as text have characters beyond 255") from e


class Storage(Inert):
    """A run of numbers in the file.

    Attributes:
        dtype: name of the numbers' type.
        n_bytes: its size.
        data: its bytes; None until they are met, since a legacy file has them behind the pickle.
    """

    __slots__ = ("data", "dtype", "n_bytes")

    def __init__(self, dtype: str, n_bytes: int, data: bytes | memoryview | Latin1 | None) -> None:
        self.dtype = dtype
        self.n_bytes = n_bytes
        self.data = data


@functools.cache
def _element(dtype: str) -> np.dtype[Any]:
    return np.dtype("u2" if dtype == BFLOAT16 else dtype).newbyteorder("<")


class Tensor(Inert):
    """A view of a storage, of torch or numpy: offset and stride are in elements, not bytes."""

    __slots__ = ("dtype", "offset", "size", "storage", "stride")

    def __init__(
        self, storage: Storage, dtype: str, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
    ) -> None:
        self.storage = storage
        self.dtype = dtype
        self.offset = offset
        self.size = size
        self.stride = stride

    def to_array(self, limits: Limits) -> AnyArray:
        """View the tensor's numbers, without a copy except that bfloat16 is widened to float32.

        Args:
            limits: bounds the elements, which a stride of 0 can multiply.

        Raises:
            MalformedFile: it has too many elements, or reaches outside its storage.
        """
        element = _element(self.dtype)
        n_elements = 1
        last = self.offset
        strides = []
        for length, step in zip(self.size, self.stride, strict=True):
            if length < 0 or step < 0:
                raise MalformedFile("a tensor with a negative size or stride")
            n_elements *= length or 1
            last += (length - 1) * step
            # A dimension of one element may have any stride, even one that no index can hold.
            strides.append(step * element.itemsize if length > 1 else 0)
        if self.offset < 0:
            raise MalformedFile("a tensor with a negative offset")
        if n_elements > limits.unit_values:
            raise MalformedFile(f"a tensor of more than {limits.unit_values} elements")
        if 0 in self.size:
            return np.empty(self.size, element)
        data = self.storage.data
        if isinstance(data, Latin1):
            data = data.encode()
        if data is None:
            raise MalformedFile("a tensor whose storage is not in the file")
        if len(data) != self.storage.n_bytes:
            raise MalformedFile(f"a tensor whose storage has {len(data)} bytes, not what its type and size say")
        if (last + 1) * element.itemsize > len(data):
            raise MalformedFile(f"a tensor that reaches outside its storage of {len(data)} bytes")
        view: AnyArray = np.ndarray(self.size, element, data, self.offset * element.itemsize, strides)
        return (view.astype(np.uint32) << 16).view(np.float32) if self.dtype == BFLOAT16 else view
