"""The closed list of names that a pickle may use, each with the stand-in that answers to it.

This is the one place where a name is admitted. What a stand-in does is to check what it is called with, and hold it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pickle import UnpicklingError
from types import MappingProxyType
from typing import Any

from warehouse.decode.describe import quote
from warehouse.decode.inert import MAX_DIMENSIONS, Inert, Latin1, PickledObject, Storage, Tensor

ITEM_SIZES: Mapping[str, int] = MappingProxyType(
    {
        "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "bool": 1,
        "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint64": 8, "uint32": 4, "uint16": 2, "uint8": 1,
    }
)  # fmt: skip
"""Types of numbers that a tensor may have, with their size in bytes."""

_TORCH_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip
_NUMPY_CODES = {
    "f8": "float64", "f4": "float32", "f2": "float16", "b1": "bool", "i8": "int64", "i4": "int32", "i2": "int16",
    "i1": "int8", "u8": "uint64", "u4": "uint32", "u2": "uint16", "u1": "uint8",
}  # fmt: skip
_NUMPY_TEXT = re.compile(r"U([1-9][0-9]{0,3})")


class _Name(Inert):
    """A name that is only passed on, as `numpy.ndarray`."""

    __slots__ = ()


class StorageType(Inert):
    """A type of storage, or of number."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype


class _Call(Inert):
    """A name that is called: an object with slots, since a function has attributes that could be set."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *args: object) -> object:
        return self._function(*args)


class _NumpyType(Inert):
    """A numpy.dtype: its code, and its byte order once a state is set."""

    __slots__ = ("dtype", "item_size")

    def __init__(self, code: str) -> None:
        if (text := _NUMPY_TEXT.fullmatch(code)) is not None:
            self.dtype, self.item_size = code, 4 * int(text[1])
        elif code in _NUMPY_CODES:
            self.dtype = _NUMPY_CODES[code]
            self.item_size = ITEM_SIZES[self.dtype]
        else:
            raise UnpicklingError(f"a numpy array of type {quote(code)}")

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), "<" | "|" | "=", None, None, None, *_):
                pass
            case _:
                raise UnpicklingError("a numpy type that is not little-endian, or has fields")


class _NumpyArray(Tensor):
    """A numpy.ndarray: empty until its state is set."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(Storage("uint8", 0, b""), "uint8", 0, (0,), (1,))

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), tuple(size), _NumpyType() as kind, bool(is_fortran), raw):
                self._fill(raw, kind, size, is_fortran)
            case _:
                raise UnpicklingError("the state of a numpy array is not as numpy writes it")

    def _fill(self, raw: object, kind: _NumpyType, size: tuple[Any, ...], is_fortran: bool) -> None:
        _check_sizes(0, size, size)
        n_elements = 1
        stride = []
        for length in size if is_fortran else reversed(size):
            stride.append(n_elements)
            n_elements *= length
        self.storage = Storage(kind.dtype, n_elements * kind.item_size, _check_raw(raw))
        self.dtype, self.offset, self.size = kind.dtype, 0, size
        self.stride = tuple(stride if is_fortran else reversed(stride))


def _check_raw(raw: object) -> bytes | memoryview | Latin1:
    if type(raw) is bytes or type(raw) is Latin1:
        return raw
    if type(raw) is bytearray:
        return memoryview(raw).toreadonly()
    raise UnpicklingError(f"a numpy array's numbers are a {type(raw).__name__}, not bytes")


def _check_sizes(offset: object, size: object, stride: object) -> None:
    """Check the types of what places a tensor in its storage; `Tensor.to_array` checks that it lies within."""
    if type(size) is not tuple or type(stride) is not tuple or not len(size) == len(stride) <= MAX_DIMENSIONS:
        raise UnpicklingError("a tensor's size and stride are not two short tuples of equal length")
    for number in (offset, *size, *stride):
        if type(number) is not int:
            raise UnpicklingError("a tensor's offset, size or stride is not an integer")


def _rebuild_tensor(storage: object, offset: Any, size: Any, stride: Any, *_: object) -> Tensor:
    if type(storage) is not Storage:
        raise UnpicklingError("a tensor without a storage")
    _check_sizes(offset, size, stride)
    return Tensor(storage, storage.dtype, offset, size, stride)


def _rebuild_tensor_v3(
    storage: object, offset: Any, size: Any, stride: Any, grad: object, hooks: object, kind: object, *_: object
) -> Tensor:
    tensor = _rebuild_tensor(storage, offset, size, stride)
    if type(kind) is not StorageType:
        raise UnpicklingError("a tensor's type is not one of torch's")
    tensor.dtype = kind.dtype
    return tensor


def _rebuild_parameter(tensor: object, *_: object) -> Tensor:
    if type(tensor) is not Tensor:
        raise UnpicklingError("a parameter is made of something that is not a tensor")
    return tensor


def _make_mapping(*args: object) -> dict[str, object]:
    if args:
        raise UnpicklingError("an OrderedDict is made with arguments")
    return {}


def _reconstruct_object(kind: object, base: object, state: object) -> PickledObject:
    if kind is not PickledObject or base is not _OBJECT or state is not None:
        raise UnpicklingError("copyreg._reconstructor is called for another class")
    return PickledObject()


def _encode(text: object, encoding: object) -> Latin1:
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise UnpicklingError("_codecs.encode is called for something that is not latin-1 text")
    return Latin1(text)


def _make_empty_bytes(*args: object) -> Latin1:
    if args:
        raise UnpicklingError("bytes is called with arguments")
    return Latin1("")


def _make_numpy_type(code: object, *_: object) -> _NumpyType:
    if type(code) is not str:
        raise UnpicklingError("a numpy type is not named by its code")
    return _NumpyType(code)


def _make_numpy_array(*_: object) -> _NumpyArray:
    return _NumpyArray()


def _make_numpy_scalar(kind: object, raw: object) -> _NumpyArray:
    array = _NumpyArray()
    array.__setstate__((1, (), kind, False, raw))
    return array


def _make_numpy_from_buffer(raw: object, kind: object, size: object, order: object, *rest: object) -> _NumpyArray:
    if order not in ("C", "F") or any(axis is not None for axis in rest):
        raise UnpicklingError("a numpy array's axes are in neither C nor Fortran order")
    array = _NumpyArray()
    array.__setstate__((1, size, kind, order == "F", raw))
    return array


_OBJECT = _Name()
_NUMPY_MODULES = ("numpy.core", "numpy._core")  # before and since numpy 2

NAMES: Mapping[tuple[str, str], object] = MappingProxyType(
    {
        ("torch._utils", "_rebuild_tensor"): _Call(_rebuild_tensor),
        ("torch._utils", "_rebuild_tensor_v2"): _Call(_rebuild_tensor),
        ("torch._utils", "_rebuild_tensor_v3"): _Call(_rebuild_tensor_v3),
        ("torch._utils", "_rebuild_parameter"): _Call(_rebuild_parameter),
        ("torch.storage", "UntypedStorage"): StorageType("uint8"),
        **{("torch", name): StorageType(dtype) for name, dtype in _TORCH_STORAGES.items()},
        **{("torch", dtype): StorageType(dtype) for dtype in ITEM_SIZES},
        ("collections", "OrderedDict"): _Call(_make_mapping),
        ("_codecs", "encode"): _Call(_encode),
        ("numpy", "ndarray"): _Name(),
        ("numpy", "dtype"): _Call(_make_numpy_type),
        **{(f"{module}.multiarray", "_reconstruct"): _Call(_make_numpy_array) for module in _NUMPY_MODULES},
        **{(f"{module}.multiarray", "scalar"): _Call(_make_numpy_scalar) for module in _NUMPY_MODULES},
        **{(f"{module}.numeric", "_frombuffer"): _Call(_make_numpy_from_buffer) for module in _NUMPY_MODULES},
        ("copyreg", "_reconstructor"): _Call(_reconstruct_object),
        ("copy_reg", "_reconstructor"): _Call(_reconstruct_object),  # protocols 0 to 2 write Python 2's names
        ("builtins", "bytes"): _Call(_make_empty_bytes),
        ("__builtin__", "bytes"): _Call(_make_empty_bytes),
        ("builtins", "object"): _OBJECT,
        ("__builtin__", "object"): _OBJECT,
        **{
            ("neuron_explainer.activations.activations", name): PickledObject
            for name in ("NeuronRecord", "ActivationRecord", "NeuronId")
        },
    }
)
