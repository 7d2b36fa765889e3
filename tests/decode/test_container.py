"""What a file is, by its content; gzip; zip archives that lie."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import zipfile
import zlib

import orjson
import pytest
import torch

from tests.decode.files import expect, peak_memory, plain, read, record, save, save_legacy, unit, zip_pickle, zip_up
from warehouse.decode import sniff, unpack
from warehouse.errors import MalformedFile
from warehouse.records import Limits


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (orjson.dumps(unit()), "json"),
        (b"\xef\xbb\xbf\n{}", "json"),
        (save(unit()), "torch-zip"),
        (save_legacy(unit()), "torch-legacy"),
        *((pickle.dumps(unit(), protocol), "pickle") for protocol in range(6)),
        (gzip.compress(b"{}", mtime=0), "gzip"),
    ],
)
def test_the_form_is_told_by_content(data: bytes, form: str) -> None:
    assert sniff(data) == form


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "an empty file"),
        (b" \n\t", "nothing but white space"),
        (b"\n<!DOCTYPE html><html><body>Sorry</body></html>", "an HTML page: '<!DOCTYPE html>"),
        (b"<HTML><title>502</title>", "an HTML page"),
        (b'\xef\xbb\xbf<?xml version="1.0"?><Error><Code>BlobNotFound</Code></Error>', "an XML document: '<?xml"),
        (b"Server busy\r\n", "a text that is not a JSON object: 'Server busy"),
        (b"[1, 2]", "a text that is not a JSON object: '[1, 2]'"),
        (b"ca fe.", "pickle"),
        (b"\x00\x01\x02", "3 bytes in no known form, beginning 00 01 02"),
        (b"\xff\xfe{\x00", "no known form"),
    ],
)
def test_anything_else_is_refused_with_what_it_is(data: bytes, named: str) -> None:
    with pytest.raises(MalformedFile) as e:
        read(data)
    assert named in str(e.value)
    assert str(e.value).isprintable()


# gzip -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (orjson.dumps(unit()), "json+gzip"),
        (save(unit()), "torch-zip+gzip"),
        (save_legacy(unit()), "torch-legacy+gzip"),
        (pickle.dumps(unit()), "pickle+gzip"),
    ],
)
def test_a_packed_file_is_unpacked_first(data: bytes, form: str) -> None:
    found = read(gzip.compress(data))
    assert plain(found.record) == expect(unit())
    assert found.format == form


def test_several_members_and_padding_are_one_file() -> None:
    data = orjson.dumps(unit())
    members = [gzip.compress(part) for part in (data[:7], b"", data[7:200], data[200:])]
    assert plain(read(b"".join(members) + b"\0" * 100_000).record) == expect(unit())


def test_gzip_within_gzip_is_refused() -> None:
    with pytest.raises(MalformedFile, match="gzip file within a gzip file"):
        read(gzip.compress(gzip.compress(orjson.dumps(unit()))))


def test_a_packed_file_cut_at_any_byte_is_refused() -> None:
    data = gzip.compress(orjson.dumps(unit()))
    for end in range(len(data)):
        with pytest.raises(MalformedFile):
            read(data[:end])


@pytest.mark.parametrize("tail", [b"x", b"\0x", b"\x1f\x8b"])
def test_bytes_behind_a_packed_file_are_refused(tail: bytes) -> None:
    with pytest.raises(MalformedFile, match="gzip"):
        read(gzip.compress(orjson.dumps(unit())) + tail)


def test_a_gzip_bomb_is_refused_within_bounded_memory() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert peak_memory(lambda: unpack(bomb, Limits(file_bytes=1_000_000)), "more than 1000000 bytes") < 5_000_000


def test_a_gzip_file_of_the_largest_size_is_unpacked() -> None:
    packed = gzip.compress(bytes(1000))
    assert unpack(packed, Limits(file_bytes=1000)) == bytes(1000)
    with pytest.raises(MalformedFile, match="more than 999"):
        unpack(packed, Limits(file_bytes=999))


def test_a_file_of_countless_gzip_members_is_refused() -> None:
    with pytest.raises(MalformedFile, match="members"):
        read(gzip.compress(b"") * 20_000)


# zip --------------------------------------------------------------------------------------------------------------


GOOD = zip_pickle(pickle.dumps(unit()))


def test_an_archive_of_the_standard_library_is_read() -> None:
    assert plain(read(GOOD).record) == expect(unit())


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "x/../../y", "x\\y", "C:x", "x/.."])
def test_a_name_that_leads_out_of_the_archive_is_refused(name: str) -> None:
    with pytest.raises(MalformedFile, match="leads out of it"):
        read(zip_up([("x/data.pkl", pickle.dumps(unit())), (name, b"x")]))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name_are_refused() -> None:
    with pytest.raises(MalformedFile, match="two files of one name"):
        read(zip_up([("x/data.pkl", pickle.dumps(unit()))] * 2))


@pytest.mark.parametrize("names", [[], ["x/other"], ["x/data.pkl", "y/data.pkl"], ["data.pkl"], ["x/y/data.pkl"]])
def test_an_archive_without_one_pickle_is_refused_with_its_names(names: list[str]) -> None:
    with pytest.raises(MalformedFile, match="without one data.pkl") as e:
        read(zip_up([(name, pickle.dumps(unit())) for name in names]))
    assert all(name in str(e.value) for name in names)


def test_a_name_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(MalformedFile, match="not UTF-8"):
        read(GOOD.replace(b"x/data.pkl", b"\xff/data.pkl"))


def test_a_zip_bomb_is_refused_within_bounded_memory() -> None:
    bomb = zip_up([("x/data.pkl", bytes(50_000_000))], zipfile.ZIP_DEFLATED)
    small = Limits(file_bytes=1_000_000)
    assert peak_memory(lambda: read(bomb, limits=small), "holds more than 1000000 bytes") < 5_000_000


def test_a_zip_bomb_that_lies_about_its_size_is_refused_within_bounded_memory() -> None:
    bomb = change_size(zip_up([("x/data.pkl", bytes(50_000_000))], zipfile.ZIP_DEFLATED), 1000)
    assert peak_memory(lambda: read(bomb), "does not have the 1000 bytes it says") < 5_000_000


def change_size(data: bytes, size: int) -> bytes:
    at = data.index(b"PK\x01\x02") + 24
    return data[:at] + struct.pack("<I", size) + data[at + 4 :]


@pytest.mark.parametrize(
    ("offset", "value", "named"),
    [
        (8, struct.pack("<H", 1), "encrypted"),
        (10, struct.pack("<H", 12), "packed in another way"),
        (16, b"abcd", "wrong CRC-32"),
        (20, struct.pack("<I", 7), "sizes that cannot be right"),
        (20, b"\xff" * 8, "sizes that cannot be right"),
        (28, struct.pack("<H", 60_000), "."),
        (42, struct.pack("<I", 5), "not where its directory says"),
        (42, struct.pack("<I", 2**31), "lies outside it"),
        (46, b"y", "not where its directory says"),
    ],
)
def test_a_directory_entry_that_lies_is_refused(offset: int, value: bytes, named: str) -> None:
    at = GOOD.index(b"PK\x01\x02") + offset
    with pytest.raises(MalformedFile, match=named):
        read(GOOD[:at] + value + GOOD[at + len(value) :])


@pytest.mark.parametrize(
    ("offset", "value", "named"),
    [(4, b"\1\0", "split"), (12, b"\xff" * 4, "outside"), (16, b"\xff" * 4, "outside"), (20, b"\1\0", "after its end")],
)
def test_an_end_of_directory_that_lies_is_refused(offset: int, value: bytes, named: str) -> None:
    at = GOOD.rindex(b"PK\x05\x06") + offset
    with pytest.raises(MalformedFile, match=named):
        read(GOOD[:at] + value + GOOD[at + len(value) :])


def test_files_that_overlap_are_refused() -> None:
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 0, 0, 0, 0, 0, 0, 1, 0)
    inner = local + b"b" + b"content"
    outer = local + b"a" + inner

    def central(name: bytes, content: bytes, start: int) -> bytes:
        sizes = (zlib.crc32(content), len(content), len(content))
        return struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, *sizes, 1, 0, 0, 0, 0, 0, start) + name

    directory = central(b"a", inner, 0) + central(b"b", b"content", len(local) + 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2, 2, len(directory), len(outer), 0)
    with pytest.raises(MalformedFile, match="files overlap"):
        read(outer + directory + end)


def test_a_storage_that_is_missing_or_of_another_size_is_refused() -> None:
    data = save(unit(random_sample=[record(activations=torch.ones(3))]))
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        files = {name: z.read(name) for name in z.namelist()}
    without = {name: content for name, content in files.items() if not name.endswith("data/0")}
    with pytest.raises(MalformedFile, match="without the storage '0'"):
        read(zip_up(without.items()))
    for content in (bytes(11), bytes(16)):
        with pytest.raises(
            MalformedFile, match=rf"random_sample\[0\]\.activations: .*storage has {len(content)} bytes"
        ):
            read(zip_up((files | {"archive/data/0": content}).items()))
