"""A walk over a pickle's opcodes, before the C unpickler sees them.

The C unpickler trusts what it reads: a memo index of four bytes allocates tens of gigabytes, a declared length is
allocated before it is read, a nested tuple as a key overflows the C stack, and keys with equal hashes take quadratic
time. The walk keeps, instead of each object, only its kind, and so knows that the opcodes are a closed list of data
opcodes, that every argument lies in the file, that the memo is filled in order, that what is called is a name (which
`find_class` then judges), that a state is set on an object that a call made, and that every key is a string.
"""

from __future__ import annotations

import pickletools

import numpy as np
from numba import njit
from numpy.typing import NDArray

from warehouse.decode.machine import inlined
from warehouse.errors import MalformedFile
from warehouse.records import Limits

# How an opcode's argument is written: a number of bytes, or one of these.
_REFUSED, _COUNTED_1, _COUNTED_4, _COUNTED_8, _LINE, _LONG_LINE, _TWO_LINES = -1, -2, -3, -4, -5, -6, -7
_LONGEST_LINE = 256
_MOST_MARKS = 512

# What an object is; _NOTHING marks a memo entry that was never filled.
_NOTHING, _SCALAR, _STRING, _LIST, _DICT, _TUPLE, _NAME, _OBJECT = range(8)

# What an opcode does: push a new object of one of the kinds above, or one of these.
_PASS, _STOP, _MARK, _PUT, _MEMOIZE, _GET, _FRAME = range(10, 17)
_TUPLE_1, _TUPLE_2, _TUPLE_3, _TUPLE_MARK, _LIST_MARK, _DICT_MARK = range(20, 26)
_APPEND, _APPENDS, _SETITEM, _SETITEMS = range(30, 34)
_STACK_GLOBAL, _CALL, _BUILD, _PERSISTENT = range(40, 44)

_OPCODES: dict[str, tuple[int, int]] = {
    "PROTO": (1, _PASS), "FRAME": (8, _FRAME), "STOP": (0, _STOP), "MARK": (0, _MARK),
    "NONE": (0, _SCALAR), "NEWTRUE": (0, _SCALAR), "NEWFALSE": (0, _SCALAR),
    "BININT": (4, _SCALAR), "BININT1": (1, _SCALAR), "BININT2": (2, _SCALAR), "BINFLOAT": (8, _SCALAR),
    "LONG1": (_COUNTED_1, _SCALAR), "INT": (_LINE, _SCALAR), "LONG": (_LINE, _SCALAR), "FLOAT": (_LINE, _SCALAR),
    "BINBYTES": (_COUNTED_4, _SCALAR), "SHORT_BINBYTES": (_COUNTED_1, _SCALAR), "BYTEARRAY8": (_COUNTED_8, _SCALAR),
    "BINUNICODE": (_COUNTED_4, _STRING), "SHORT_BINUNICODE": (_COUNTED_1, _STRING), "UNICODE": (_LONG_LINE, _STRING),
    "EMPTY_LIST": (0, _LIST), "EMPTY_DICT": (0, _DICT), "EMPTY_TUPLE": (0, _TUPLE),
    "TUPLE1": (0, _TUPLE_1), "TUPLE2": (0, _TUPLE_2), "TUPLE3": (0, _TUPLE_3),
    "TUPLE": (0, _TUPLE_MARK), "LIST": (0, _LIST_MARK), "DICT": (0, _DICT_MARK),
    "APPEND": (0, _APPEND), "APPENDS": (0, _APPENDS), "SETITEM": (0, _SETITEM), "SETITEMS": (0, _SETITEMS),
    "BINPUT": (1, _PUT), "LONG_BINPUT": (4, _PUT), "PUT": (_LINE, _PUT), "MEMOIZE": (0, _MEMOIZE),
    "BINGET": (1, _GET), "LONG_BINGET": (4, _GET), "GET": (_LINE, _GET),
    "GLOBAL": (_TWO_LINES, _NAME), "STACK_GLOBAL": (0, _STACK_GLOBAL),
    "REDUCE": (0, _CALL), "NEWOBJ": (0, _CALL), "BUILD": (0, _BUILD), "BINPERSID": (0, _PERSISTENT),
}  # fmt: skip
_NAMES: dict[int, str] = {ord(op.code): op.name for op in pickletools.opcodes}


def _table(column: int) -> NDArray[np.int8]:
    table = np.full(256, _REFUSED, np.int8)
    for code, name in _NAMES.items():
        table[code] = _OPCODES.get(name, (_REFUSED, _REFUSED))[column]
    return table


_ARGUMENT = _table(0)
_EFFECT = _table(1)

_PROBLEMS = (
    "",
    "the file ends within it",
    "it is none of the opcodes that data needs",
    "its argument is too long, or no number",
    "it fills the memo out of order",
    "it reads a memo entry that was never filled",
    "the stack does not hold what it needs",
    "it sets a key that is no string",
    "it is nested too deeply",
    "there are too many objects",
)
_TRUNCATED, _UNKNOWN, _ARGUMENT_WRONG, _MEMO_ORDER, _MEMO_EMPTY, _STACK, _KEY, _DEEP, _MANY = range(1, 10)


def check_opcodes(data: bytes, start: int, limits: Limits) -> int:
    """Check that the pickle at `start` is safe to give to the C unpickler.

    Args:
        data: the file, or a part of it.
        start: where the pickle begins.
        limits: bounds the objects it makes.

    Returns:
        Where the pickle ends, just after its STOP.

    Raises:
        MalformedFile: with the opcode, its place, and what is wrong with it.
    """
    most_containers = 32 * limits.unit_records
    most_scalars = 2 * limits.unit_values + most_containers
    problem, at = _walk(np.frombuffer(data, np.uint8), start, most_containers, most_scalars)
    if problem:
        opcode = _NAMES.get(data[at], f"{data[at]:#04x}") if at < len(data) else "end of file"
        raise MalformedFile(f"a broken or hostile pickle: {opcode} at byte {at}: {_PROBLEMS[problem]}")
    return int(at)


@inlined
def _read_number(code: NDArray[np.uint8], at: int, n_bytes: int) -> int:
    """Read a little-endian number; -1 where it is beyond 2**40, so that no sum with it overflows."""
    number = 0
    for i in range(n_bytes):
        if i >= 5 and code[at + i] != 0:
            return -1
        if i < 5:
            number |= int(code[at + i]) << (8 * i)
    return number


@inlined
def _find_line(code: NDArray[np.uint8], at: int, longest: int) -> int:
    """Give where the line's newline is; -1 where there is none within `longest` bytes."""
    for i in range(at, min(len(code), at + longest)):
        if code[i] == 10:
            return i
    return -1


@inlined
def _parse_digits(code: NDArray[np.uint8], at: int, end: int) -> int:
    """Read a decimal memo index; -1 where it is not one."""
    if not 1 <= end - at <= 10:
        return -1
    number = 0
    for i in range(at, end):
        if not 48 <= code[i] <= 57:
            return -1
        number = number * 10 + int(code[i]) - 48
    return number


@inlined
def _read_argument(code: NDArray[np.uint8], at: int) -> tuple[int, int, int]:
    """Read the argument of the opcode at `at`: give a problem or 0, its value or length, and where it ends."""
    n = len(code)
    kind = _ARGUMENT[code[at]]
    number = 0
    end = at + 1
    if kind == _REFUSED:
        return _UNKNOWN, 0, at
    if kind >= 0:
        if end + kind > n:
            return _TRUNCATED, 0, at
        number = _read_number(code, end, kind)
        end += kind
    elif kind >= _COUNTED_8:
        width = 1 if kind == _COUNTED_1 else (4 if kind == _COUNTED_4 else 8)
        if end + width > n:
            return _TRUNCATED, 0, at
        number = _read_number(code, end, width)
        end += width
        if number < 0 or number > n - end:
            return _TRUNCATED, 0, at
        end += number
    else:
        for _ in range(2 if kind == _TWO_LINES else 1):
            newline = _find_line(code, end, n if kind == _LONG_LINE else _LONGEST_LINE)
            if newline < 0:
                return _ARGUMENT_WRONG, 0, at
            number = _parse_digits(code, end, newline)
            end = newline + 1
    return 0, number, end


@inlined
def _are_keys(stack: NDArray[np.uint8], first: int, end: int) -> bool:
    """Say whether the stack from `first` holds keys and values in turn, every key a string."""
    strings = 0
    for i in range(first, end, 2):
        strings += stack[i] == _STRING
    return 2 * strings == end - first


@njit(cache=True, nogil=True)
def _walk(code: NDArray[np.uint8], start: int, most_containers: int, most_scalars: int) -> tuple[int, int]:
    """Walk one pickle; give the number of the problem with the place of its opcode, or 0 with the pickle's end."""
    n = len(code)
    stack = np.empty(n - start + 1, np.uint8)  # an opcode pushes at most one object, and takes at least one byte
    memo = np.zeros(n - start + 2, np.uint8)
    marks = np.empty(_MOST_MARKS, np.int64)
    top = n_marks = n_memo = n_containers = n_scalars = 0
    next_at = start
    while next_at < n:
        at = next_at
        effect = _EFFECT[code[at]]
        problem, number, next_at = _read_argument(code, at)
        if problem:
            return problem, at
        floor = marks[n_marks - 1] if n_marks else 0  # nothing is popped from below the last mark
        pushed = _NOTHING
        if effect <= _OBJECT:
            pushed = effect
        elif effect == _FRAME:
            if not 0 <= number <= n - next_at:
                return _TRUNCATED, at
        elif effect == _MARK:
            if n_marks == _MOST_MARKS:
                return _DEEP, at
            marks[n_marks] = top
            n_marks += 1
        elif effect in (_PUT, _MEMOIZE):
            index = number if effect == _PUT else n_memo
            if top == floor:
                return _STACK, at
            if not 0 <= index <= n_memo + 1:
                return _MEMO_ORDER, at
            n_memo += memo[index] == _NOTHING
            memo[index] = stack[top - 1]
        elif effect == _GET:
            if not 0 <= number < len(memo) or memo[number] == _NOTHING:
                return _MEMO_EMPTY, at
            stack[top] = memo[number]
            top += 1
        elif _TUPLE_1 <= effect <= _TUPLE_3:
            top -= 1 + effect - _TUPLE_1
            pushed = _TUPLE
        elif effect in (_TUPLE_MARK, _LIST_MARK, _DICT_MARK):
            if n_marks == 0:
                return _STACK, at
            if effect == _DICT_MARK and not _are_keys(stack, floor, top):
                return _KEY, at
            n_marks -= 1
            top = floor
            pushed = _TUPLE if effect == _TUPLE_MARK else (_LIST if effect == _LIST_MARK else _DICT)
        elif effect == _APPEND:
            top -= 1
            if top <= floor or stack[top - 1] != _LIST:
                return _STACK, at
        elif effect == _SETITEM:
            top -= 2
            if top <= floor or stack[top - 1] not in (_DICT, _OBJECT):
                return _STACK, at
            if stack[top] != _STRING:
                return _KEY, at
        elif effect in (_APPENDS, _SETITEMS):
            n_marks -= 1
            if n_marks < 0 or floor <= (marks[n_marks - 1] if n_marks else 0):
                return _STACK, at
            target = stack[floor - 1]
            if effect == _APPENDS and target != _LIST:
                return _STACK, at
            if effect == _SETITEMS and target not in (_DICT, _OBJECT):
                return _STACK, at
            if effect == _SETITEMS and not _are_keys(stack, floor, top):
                return _KEY, at
            top = floor
        elif effect == _STACK_GLOBAL:
            top -= 2
            if top < floor or stack[top] != _STRING or stack[top + 1] != _STRING:
                return _STACK, at
            pushed = _NAME
        elif effect == _CALL:
            top -= 2
            if top < floor or stack[top] != _NAME or stack[top + 1] != _TUPLE:
                return _STACK, at
            pushed = _OBJECT
        elif effect == _BUILD:
            top -= 1
            if top <= floor or stack[top - 1] != _OBJECT:
                return _STACK, at
        elif effect == _PERSISTENT:
            top -= 1
            pushed = _OBJECT
        elif effect == _STOP:
            return (0, next_at) if top == 1 and n_marks == 0 else (_STACK, at)

        if top < floor:
            return _STACK, at
        if pushed != _NOTHING:
            stack[top] = pushed
            top += 1
            n_containers += pushed >= _LIST and pushed != _NAME
            n_scalars += pushed < _LIST
            if n_containers > most_containers or n_scalars > most_scalars:
                return _MANY, at
    return _TRUNCATED, n
