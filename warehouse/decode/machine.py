"""What compiled code that reads text needs of the machine: three ways to compile it, and three instructions.

Numba counts references to arrays at every call and return. Functions compiled here do not, which more than doubles the
scanner's speed: they may neither make nor keep an array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

Function = TypeVar("Function", bound=Callable[..., Any])
_BARE: dict[str, Any] = {"_nrt": False}


def compiled(function: Function) -> Function:
    """Compile a function when its caller is compiled."""
    return cast(Function, njit(nogil=True, **_BARE)(function))


def inlined(function: Function) -> Function:
    """Compile a function into its callers: one that is called for every token."""
    return cast(Function, njit(nogil=True, forceinline=True, **_BARE)(function))


def cached(function: Function) -> Function:
    """Compile a function that Python calls, and keep the code on disk.

    Numba looks for changes in the function's own file alone, so what it calls must be in that file too.
    """
    return cast(Function, njit(nogil=True, cache=True, **_BARE)(function))


@intrinsic
def load_8(_: Any, data: Any, i: Any) -> Any:
    """Load 8 bytes at any place of a uint8 array, as a little-endian integer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(64).as_pointer())
        load = builder.load(pointer)
        load.align = 1
        return load

    return types.uint64(data, types.intp), generate


@intrinsic
def count_trailing_zeros(_: Any, word: Any) -> Any:
    """Count the zero bits below the lowest one of a uint64; 64 for zero."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


@intrinsic
def bits_of(_: Any, number: Any) -> Any:
    """Give the bits of a float64 as an int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), generate
