"""Pickles that want to run something, or to take the machine down: refused, and nothing runs."""

from __future__ import annotations

import builtins
import functools
import os
import pickle
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.decode.files import peak_memory, read, record, save_legacy, text, unit, zip_pickle
from warehouse.decode import inert, names, opcodes
from warehouse.decode import pickle as restricted
from warehouse.errors import MalformedFile
from warehouse.records import LIMITS, Limits

FLOAT_STORAGE = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x03tQ"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


class Calling:
    """Pickles as the call of a function."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def refuse(pickled: bytes, named: str = "") -> str:
    """Check that a pickle is refused bare, in a torch archive and in a legacy file; give the bare one's reason."""
    legacy = save_legacy(None)
    main = legacy.index(b"\x80\x02N.")
    reasons = []
    for data in (pickled, zip_pickle(pickled, bytes(12)), legacy[:main] + pickled + legacy[main + 4 :]):
        with pytest.raises(MalformedFile) as e:
            read(data)
        reasons.append(str(e.value))
        assert str(e.value).isprintable() and len(str(e.value)) < 1500
    assert any(named in reason for reason in reasons), reasons
    return reasons[0]


@pytest.mark.parametrize("protocol", range(6))
def test_no_function_is_called(protocol: int, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    calls: list[tuple[Callable[..., object], tuple[object, ...]]] = [
        (os.system, (f"touch {marker}",)),
        (os.mkdir, (str(marker),)),
        (exec, (f"open({str(marker)!r}, 'w')",)),
        (eval, (f"open({str(marker)!r}, 'w')",)),
        (builtins.__import__, ("antigravity",)),
        (getattr, ("", "join")),
        (open, (str(marker), "w")),
        (subprocess.Popen, (["touch", str(marker)],)),
        (np.fromfile, (str(marker),)),
        (bytearray, (10**9,)),
        (bytes, (10**9,)),
        (print, ("ran",)),
    ]
    for function, args in calls:
        for root in (Calling(function, *args), unit(random_sample=Calling(function, *args))):
            refuse(pickle.dumps(root, protocol), "not on the list of names" if function is not bytes else "")
    assert not marker.exists() and "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch", "storage._load_from_bytes"),
        ("torch.storage", "_load_from_bytes"),
        ("torch", "load"),
        ("torch", "FloatStorage.__init__"),
        ("collections", "OrderedDict.__init_subclass__"),
        ("collections", "abc.sys.modules"),
        ("numpy", "ndarray.tofile"),
        ("numpy.core.multiarray", "fromfile"),
        ("_codecs", "lookup"),
        ("copyreg", "__newobj__"),
        ("warehouse.decode.names", "NAMES"),
        ("warehouse.decode.inert", "PickledObject"),
        ("neuron_explainer.activations.activations", "os"),
        ("neuron_explainer.activations.activations", "NeuronRecord.__init__"),
        ("neuron_explainer.explanations.explanations", "ScoredSimulation"),
        ("builtins", "object.__subclasses__"),
        ("__main__", "NeuronRecord"),
        ("x" * 200, "y" * 200),
    ],
)
def test_a_name_outside_the_list_is_refused_and_named(module: str, name: str) -> None:
    for spelt in (f"c{module}\n{name}\n".encode(), text(module) + text(name) + b"\x93"):
        refuse(b"\x80\x04" + spelt + b"N\x85R.", f"{module}.{name}"[:20])


def test_an_unknown_class_of_openais_is_refused_by_name(tdb: Any) -> None:
    refuse(pickle.dumps(tdb.Explanation("x")), "neuron_explainer.activations")


@pytest.mark.parametrize(
    "opcodes_",
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n}" + text("__defaults__") + b"Nsb",
        b"cneuron_explainer.activations.activations\nNeuronRecord\n}" + text("__init__") + b"Nsb",
        b"cneuron_explainer.activations.activations\nNeuronRecord\nN}" + text("__init__") + b"Ns\x86b",
        b"ccollections\nOrderedDict\n)R}" + text("keys") + b"Nsb",
        b"ccollections\nOrderedDict\n)RN}" + text("keys") + b"Ns\x86b",
        b"cneuron_explainer.activations.activations\nNeuronRecord\n)\x81Nb",
        b"cneuron_explainer.activations.activations\nNeuronRecord\n)\x81N}" + text("fields") + b"Ns\x86b",
        b"cneuron_explainer.activations.activations\nNeuronRecord\n)\x81]b",
        b"cneuron_explainer.activations.activations\nNeuronRecord\nK\x01\x85\x81",
        REBUILD + b"(" + FLOAT_STORAGE + b"K\x00K\x03\x85K\x01\x85tR}" + text("size") + b"Nsb",
        REBUILD + b"(" + FLOAT_STORAGE + b"K\x00K\x03\x85K\x01\x85tRN}" + text("size") + b"Ns\x86b",
        FLOAT_STORAGE + b"N}" + text("read") + b"Ns\x86b",
        b"cnumpy\ndtype\n" + text("f4") + b"\x85R}" + text("dtype") + b"Nsb",
        b"cnumpy\nndarray\n)R",
        b"cnumpy\ndtype\n" + text("O8") + b"\x85R",
        b"cnumpy\ndtype\n" + text("V9") + b"\x85R",
        b"cnumpy\ndtype\n]\x85R",
        b"cnumpy\ndtype\n" + text("f4") + b"\x85R(K\x03" + text(">") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
        b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01K\x03\x85N\x89]tb",
        b"ccopy_reg\n_reconstructor\n(ctorch\nFloatStorage\nc__builtin__\nobject\nNtR",
        b"ccopy_reg\n_reconstructor\n(cneuron_explainer.activations.activations\nNeuronRecord\n"
        b"cneuron_explainer.activations.activations\nNeuronRecord\nNtR",
        b"c_codecs\nencode\n" + text("x") + text("rot13") + b"\x86R",
        b"c_codecs\nencode\n]" + text("latin1") + b"\x86R",
        b"ctorch\nFloatStorage\n)R",
        b"ctorch\nFloatStorage\n)\x81",
        b"ctorch._utils\n_rebuild_tensor_v2\n)\x81",
        b"ctorch._utils\n_rebuild_parameter\n]\x85R",
    ],
)
def test_stand_ins_take_no_state_and_no_call_but_their_own(opcodes_: bytes) -> None:
    before = {name: repr(value) for name, value in vars(inert.PickledObject).items()}
    refuse(b"\x80\x02" + opcodes_ + b".")
    assert {name: repr(value) for name, value in vars(inert.PickledObject).items()} == before
    assert read(pickle.dumps(unit())).record.mean == 0.25


@pytest.mark.parametrize("stand_in", [*names.NAMES.values(), inert.PickledObject(), inert.Latin1("")])
def test_no_stand_in_can_be_written_to(stand_in: object) -> None:
    assert not hasattr(stand_in, "__dict__") or stand_in is inert.PickledObject
    assert hasattr(stand_in, "__setstate__")


@pytest.mark.parametrize(
    "pid",
    [
        b"N",
        text("0"),
        b")",
        b"(" + text("storage") + b"t",
        b"(" + text("module") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x03t",
        b"(" + text("storage") + text("torch.FloatStorage") + text("0") + text("cpu") + b"K\x03t",
        b"(" + text("storage") + b"ctorch\nFloatStorage\nK\x00" + text("cpu") + b"K\x03t",
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"G\x40\x08\0\0\0\0\0\0t",
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"J\xff\xff\xff\xfft",
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x03\x88t",
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x03NNt",
        b"(" + text("storage") + b"ctorch._utils\n_rebuild_tensor\n" + text("0") + text("cpu") + b"K\x03t",
        b"]" + text("storage") + b"a",
    ],
)
def test_a_persistent_id_that_names_no_storage_is_refused(pid: bytes) -> None:
    refuse(b"\x80\x02" + pid + b"Q.", "storage")


@pytest.mark.parametrize("key", ["1", "../data.pkl", "/etc/passwd", "", "x" * 1000])
def test_a_storage_that_is_not_in_the_file_is_refused(key: str) -> None:
    storage = FLOAT_STORAGE.replace(text("0"), text(key))
    with pytest.raises(MalformedFile, match="storage .* it refers to"):
        read(zip_pickle(unit_of(storage, b"K\x00", b"K\x03\x85", b"K\x01\x85"), bytes(12)))


BIG = b"\x8a\x08" + struct.pack("<q", 2**62)
LARGEST = b"\x8a\xff" + b"\x7f" * 255
HUGE = b"\x8a\x20" + (2**250).to_bytes(32, "little")


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (b"K\x01", b"K\x03\x85", b"K\x01\x85"),
        (b"K\x00", b"K\x03\x85", b"K\x02\x85"),
        (b"K\x00", b"K\x04\x85", b"K\x01\x85"),
        (b"J\xff\xff\xff\xff", b"K\x03\x85", b"K\x01\x85"),
        (b"K\x02", b"K\x03\x85", b"J\xff\xff\xff\xff\x85"),
        (b"K\x00", b"J\xff\xff\xff\xff\x85", b"K\x01\x85"),
        (BIG, b"K\x03\x85", b"K\x01\x85"),
        (b"K\x00", BIG + b"\x85", b"K\x01\x85"),
        (b"K\x00", BIG + b"\x85", b"K\x00\x85"),
        (b"K\x00", b"K\x03\x85", BIG + b"\x85"),
        (HUGE, b"K\x03\x85", b"K\x01\x85"),
        (b"K\x00", HUGE + b"\x85", b"K\x00\x85"),
        (b"K\x00", HUGE + b"K\x00\x86", b"K\x01K\x01\x86"),
        (b"K\x00", b"(" + LARGEST * 8 + b"t", b"(" + b"K\x01" * 8 + b"t"),
        (b"K\x00", b"K\x03K\x01\x86", b"K\x01\x85"),
        (b"K\x00", b"K\x03\x85", b"K\x01K\x01\x86"),
        (b"K\x00", b"(" + b"K\x01" * 40 + b"t", b"(" + b"K\x01" * 40 + b"t"),
        (b"N", b"K\x03\x85", b"K\x01\x85"),
        (b"K\x00", b"N\x85", b"K\x01\x85"),
        (b"K\x00", b"\x88\x85", b"K\x01\x85"),
        (b"K\x00", b"]", b"]"),
        (b"K\x00", b"N", b"N"),
    ],
)
def test_a_tensor_that_does_not_lie_within_its_storage_is_refused(offset: bytes, size: bytes, stride: bytes) -> None:
    with pytest.raises(MalformedFile):
        read(zip_pickle(unit_of(FLOAT_STORAGE, offset, size, stride), bytes(12)))


def test_a_tensor_of_one_element_may_have_any_stride() -> None:
    tensor = unit_of(FLOAT_STORAGE, b"K\x02", b"K\x01\x85", HUGE + b"\x85", n_tokens=1)
    assert read(zip_pickle(tensor, struct.pack("<3f", 1, 2, 3))).record.random_sample[0].activations.tolist() == [3.0]


def unit_of(storage: bytes, offset: bytes, size: bytes, stride: bytes, n_tokens: int = 3) -> bytes:
    """The pickle of a unit of one record, whose activations are a tensor."""
    tokens = b"(" + text("x") * n_tokens + b"l"
    tensor = REBUILD + b"(" + storage + offset + size + stride + b"\x89NtR"
    fields = b"}(" + text("tokens") + tokens + text("activations") + tensor + b"u"
    return b"\x80\x02}" + text("random_sample") + b"]" + fields + b"as."


@pytest.mark.parametrize(
    ("opcodes_", "named"),
    [
        (b"]r\xff\xff\xff\xff", "LONG_BINPUT at byte 3: it fills the memo out of order"),
        (b"]p4294967295\n", "it fills the memo out of order"),
        (b"]p-1\n", "it fills the memo out of order"),
        (b"]q\x02", "it fills the memo out of order"),
        (b"h\x00", "BINGET at byte 2: it reads a memo entry that was never filled"),
        (b"j\xff\xff\xff\xff", "never filled"),
        (b"g99999999999999999999\n", "never filled"),
        (b"\x8e" + struct.pack("<Q", 2**40), "BINBYTES8 at byte 2: it is none of the opcodes that data needs"),
        (b"\x8d" + struct.pack("<Q", 2**40), "BINUNICODE8"),
        (b"\x96" + struct.pack("<Q", 2**40), "BYTEARRAY8 at byte 2: the file ends within it"),
        (b"\x96" + b"\xff" * 8, "the file ends within it"),
        (b"\x95" + struct.pack("<Q", 2**40), "FRAME"),
        (b"\x95" + b"\xff" * 8, "FRAME"),
        (b"B" + b"\xff" * 4, "BINBYTES"),
        (b"X" + b"\xff" * 4, "BINUNICODE"),
        (b"\x8b" + b"\xff" * 4, "LONG4"),
        (b"L" + b"9" * 5000 + b"L\n", "LONG at byte 2: its argument is too long"),
        (b"I" + b"9" * 5000 + b"\n", "INT"),
        (b"c" + b"o" * 5000 + b"\nx\n", "GLOBAL"),
        (b"(ios\nsystem\n", "INST"),
        (b"(cos\nsystem\no", "OBJ"),
        (b"\x82\x01", "EXT1"),
        (b"\x97", "NEXT_BUFFER"),
        (b"P0\n", "PERSID"),
        (b"\x8f", "EMPTY_SET"),
        (b"]2", "DUP"),
        (b"]]0", "POP"),
        (b"\xff", "0xff"),
        (b"]K\x01b", "BUILD at byte 5: the stack does not hold what it needs"),
        (b"K\x01)R", "REDUCE"),
        (text("os") + text("system") + b"\x86)R", "REDUCE"),
        (b"ctorch\nFloatStorage\n]R", "REDUCE"),
        (b"a", "APPEND"),
        (b"]((a", "APPEND"),
        (b"}K\x01K\x02s", "SETITEM at byte 7: it sets a key that is no string"),
        (b"}(N)u", "it sets a key that is no string"),
        (b"}(" + text("x") + b"u", "SETITEMS"),
        (b"(K\x01K\x02d", "DICT"),
        (b"K\x01\x85\x85\x85" + b"\x87", "TUPLE3"),
        (b"t", "TUPLE"),
        (b"e", "APPENDS"),
        (b"u", "SETITEMS"),
        (b"(e", "APPENDS"),
        (b"](]((e", "APPENDS"),
        (b"(" * 10_000, "MARK at byte 514: it is nested too deeply"),
        (b"]]", "STOP"),
        (b"", "STOP"),
        (b"](", "STOP"),
        (b"\x93", "STACK_GLOBAL"),
        (b"K\x01" + text("x") + b"\x93", "STACK_GLOBAL"),
        (b"Q", "BINPERSID"),
    ],
)
def test_opcodes_that_would_mislead_the_unpickler_never_reach_it(
    opcodes_: bytes, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restricted, "_Unpickler", lambda *_: pytest.fail("reached the unpickler"))
    with pytest.raises(MalformedFile) as e:
        read(b"\x80\x04" + opcodes_ + b".")
    assert named in str(e.value)


@pytest.mark.parametrize("root", [unit(), [], "x", {"a": (1, 2.5, None, True, b"x", 2**70, [()])}])
@pytest.mark.parametrize("protocol", range(6))
def test_the_walk_ends_where_a_pickle_ends(root: object, protocol: int) -> None:
    data = pickle.dumps(root, protocol)
    if protocol < 3 and b"_codecs" in data:
        assert opcodes.check_opcodes(data, 0, LIMITS) == len(data)
    assert opcodes.check_opcodes(b"???" + data + b"more", 3, LIMITS) == 3 + len(data)


@pytest.mark.parametrize(("opener", "closer"), [(b"]", b"a"), (b"", b"\x85"), (b"}" + text("a"), b"s")])
def test_deeply_nested_containers_neither_crash_nor_recurse(opener: bytes, closer: bytes) -> None:
    nested = opener * 100_000 + b"N" + closer * 100_000
    extra = b"}(" + text("extra") + nested + text("random_sample") + b"]u"
    assert read(b"\x80\x02" + extra + b".").record.random_sample == []
    refuse(b"\x80\x02" + nested + b".", "not a NeuronRecord")
    for name in ("random_sample", "mean", "quantile_boundaries"):
        root = b"}(" + text(name) + nested + text("random_sample_by_quantile") + b"]u"
        with pytest.raises(MalformedFile, match=name):
            read(b"\x80\x02" + root + b".")


def test_a_structure_that_holds_itself_is_refused_without_recursion() -> None:
    loop: list[object] = []
    loop.append(loop)
    fields: dict[str, object] = {}
    fields["random_sample"] = fields["neuron_id"] = fields
    for root in (loop, fields, unit(random_sample=loop), unit(random_sample_by_quantile=loop)):
        refuse(pickle.dumps(root))


def test_equal_hashes_cannot_be_made_since_keys_are_strings() -> None:
    refuse(pickle.dumps({i * (2**61 - 1): None for i in range(2000)}), "a key that is no string")
    refuse(pickle.dumps({(-1, -2): None}), "a key that is no string")


def test_a_list_named_a_million_times_is_refused_before_it_is_made() -> None:
    shared = record(["x"] * 1000, [1.0] * 1000)
    data = pickle.dumps(unit(random_sample=[shared] * 200_000))
    assert len(data) < 1_000_000
    with pytest.raises(MalformedFile, match="too many tokens"):
        read(data, limits=Limits(unit_values=1_000_000))


def test_a_long_token_named_many_times_is_refused_before_it_is_joined() -> None:
    data = pickle.dumps(unit(random_sample=[record(["x" * 4096] * 60_000, [])] * 100))
    refuse(data, "too many characters")


def test_a_number_repeated_by_a_stride_of_zero_is_refused_before_it_is_made() -> None:
    size = b"J" + struct.pack("<i", 2**31 - 1) + b"\x85"
    data = zip_pickle(unit_of(FLOAT_STORAGE, b"K\x00", size, b"K\x00\x85"), bytes(12))
    with pytest.raises(MalformedFile, match="too many activations"):
        read(data)


@pytest.mark.parametrize("n_tensors", [1, 100])
def test_repeated_numbers_that_must_be_widened_are_refused_before_they_are_made(n_tensors: int) -> None:
    storage = FLOAT_STORAGE.replace(b"FloatStorage", b"BFloat16Storage")
    tensor = REBUILD + b"(" + storage + b"K\x00J" + struct.pack("<i", 900_000) + b"\x85K\x00\x85\x89NtR"
    fields = b"}(" + text("tokens") + b"]" + text("activations") + tensor + b"u"
    root = b"\x80\x02}" + text("random_sample") + b"(" + fields * n_tensors + b"ls."
    small = Limits(unit_values=1_000_000)
    wanted = "900000 values for 0 tokens" if n_tensors == 1 else "too many activations"
    assert peak_memory(lambda: read(zip_pickle(root, bytes(6)), limits=small), wanted) < 20_000_000


def test_countless_empty_rows_are_refused_before_they_are_made() -> None:
    empty = unit_of(FLOAT_STORAGE, b"K\x00", b"J" + struct.pack("<i", 2_000_000) + b"K\x00\x86", b"K\x01K\x01\x86")
    tensor = empty[empty.index(REBUILD) : empty.rindex(b"uas.")]
    for rows in (tensor, b"](" + b")" * 2_000_000 + b"e"):
        stacked = b"}(" + text("tokens") + rows + text("activations") + rows + b"u"
        data = zip_pickle(b"\x80\x02}" + text("random_sample") + stacked + b"s.", bytes(12))
        assert peak_memory(functools.partial(read, data), "2000000 rows") < 100_000_000


def test_a_numpy_text_of_numbers_that_are_no_characters_is_refused() -> None:
    good = np.array(["ab", "c"])
    data = pickle.dumps(unit(random_sample=[record(good, [1, 2])]))
    refuse(data.replace(b"b\0\0\0", b"b\0\x11\0"), "no character")
    assert read(data).record.random_sample[0].tokens == ["ab", "c"]


def test_more_objects_than_a_unit_can_have_are_refused_before_they_are_made() -> None:
    data = b"\x80\x02]" + b"(" + b"]" * 10_000 + b"e."
    assert opcodes.check_opcodes(data, 0, LIMITS) == len(data)
    with pytest.raises(MalformedFile, match="too many objects"):
        read(data, limits=Limits(unit_records=100))


def test_hostile_files_stay_within_a_gigabyte_of_address_space() -> None:
    code = """
import resource, struct, pickle
from tests.decode.files import read, unit
from warehouse.errors import MalformedFile
read(pickle.dumps(unit()))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
for data in (
    b"\\x80\\x04]r\\xff\\xff\\xff\\xff.", b"\\x80\\x04\\x96" + struct.pack("<Q", 2**38) + b".",
    b"\\x80\\x04X\\xff\\xff\\xff\\xff.", b"\\x80\\x04]" + b"r\\xff\\xff\\xff\\x0f" * 9 + b".",
    b"{" + b"[" * 10**7, b"\\x80\\x04" + b"]" * 10**6 + b".",
):
    try:
        read(data)
    except MalformedFile:
        print("refused")
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert (run.stdout.split(), run.stderr) == (["refused"] * 6, "")
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
