"""CAR files: blocks found again, and everything that a file can have wrong about it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from parity_dagster.atproto.archive.car import MAX_HEADER_BYTES, CarFile
from parity_dagster.errors import ArchiveIncomplete, ArchiveTooBig, ArchiveTruncated, ArchiveWrong, MalformedAnswer
from parity_dagster.sample_network.archive import car_header, car_section, varint
from parity_dagster.sample_network.blocks import block_cid, link, to_block

ROOT = block_cid(b"root")


@contextmanager
def _opened(data: bytes, max_blocks: int = 10_000, *, in_memory: bool = False) -> Iterator[CarFile]:
    if in_memory:
        yield CarFile(data, max_blocks=max_blocks)
        return
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield CarFile(file, max_blocks=max_blocks)


def _section(block: bytes) -> bytes:
    return car_section(block_cid(block), block)


@pytest.mark.parametrize("in_memory", [False, True])
def test_every_block_is_found_again(in_memory):
    # more than the first table holds, blocks longer than the piece that is read at once, and one that crosses its end
    blocks = [b"block %d" % number * (number % 50 + 1) for number in range(3000)]
    blocks[1500] = b"long" * 500_000
    with _opened(car_header(ROOT) + b"".join(map(_section, blocks)), in_memory=in_memory) as car:
        assert (car.root, car.count, car.used) == (ROOT, 3000, 0)
        for block in reversed(blocks):
            assert car.read(block_cid(block)) == block
            assert car.read_at(car.find(block_cid(block))) == (block_cid(block), block)
        assert car.used == 3000
        with pytest.raises(ArchiveIncomplete):
            car.find(block_cid(b"another"))


def test_blocks_whose_hashes_are_alike_are_told_apart():
    seen: dict[int, bytes] = {}
    for number in range(2_000_000):  # two alike are to be expected among 80,000
        block = b"%d" % number
        other = seen.setdefault(hash(block_cid(block)) & 0xFFFFFFFF, block)
        if other is not block:
            break
    with _opened(car_header(ROOT) + _section(block)) as car, pytest.raises(ArchiveIncomplete):
        car.find(block_cid(other))
    with _opened(car_header(ROOT) + _section(other) + _section(block)) as car:
        assert car.count == 2
        assert (car.read(block_cid(block)), car.read(block_cid(other))) == (block, other)


def test_a_block_that_occurs_twice_counts_once():
    with _opened(car_header(ROOT) + _section(b"a") + _section(b"b") + _section(b"a")) as car:
        assert car.count == 2


def test_blocks_beyond_the_number_accepted():
    data = car_header(ROOT) + _section(b"a") + _section(b"b") + _section(b"a")
    with _opened(data, max_blocks=3) as car:
        assert car.count == 2
    with pytest.raises(ArchiveTooBig), _opened(data, max_blocks=2):
        pass  # one that comes again and again takes as much time as others


def _header(value: object) -> bytes:
    header = to_block(value)
    return varint(len(header)) + header


RAW = b"\x01\x55\x12\x20" + bytes(32)


@pytest.mark.parametrize(
    "data",
    [
        _header({"roots": [], "version": 1}),
        _header({"roots": ["a"], "version": 1}),
        _header({"roots": 5, "version": 1}),
        _header({"roots": [{"$link": "bafkreiccldh766hwcnuxnf2wh6jgzepf2nlu2lvcllt63eww5p6chi4ity"}], "version": 1}),
        car_header(ROOT)[:-1] + b"\x02",
        car_header(ROOT)[:-1] + b"\xf5",
        _header({"version": 1, "rots": []}),
        b"\xba\x00" + car_header(ROOT)[1:],  # 58 in two bytes
        varint(2**30) + b"\xa2",
        b"\xff" * 12,
        varint(MAX_HEADER_BYTES + 1) + b"\xa2" * (MAX_HEADER_BYTES + 1),
        varint(2**60),
    ],
)
def test_what_is_no_car_file(data):
    with pytest.raises(ArchiveWrong), _opened(data + _section(b"a")):
        pass


@pytest.mark.parametrize(
    "data",
    [
        b'{"error":"NotFound","message":"Could not find repo"}',
        b"<html><body>502 Bad Gateway</body></html>",
        b"PK\x03\x04",
        b"\x00",
        _header([]),
        _header("roots"),
    ],
)
def test_what_does_not_even_begin_like_one_may_be_an_archive_the_next_time(data):
    with pytest.raises(MalformedAnswer), _opened(data + _section(b"a")):
        pass


def test_a_header_with_several_roots_names_the_commit_first():
    header = b"\xa2\x65roots\x82" + link(ROOT) + link(block_cid(b"a")) + b"\x67version\x01"
    with _opened(varint(len(header)) + header + _section(b"a")) as car:
        assert car.root == ROOT


@pytest.mark.parametrize(
    "section",
    [
        car_section(RAW, b"raw"),
        car_section(RAW[:4] + block_cid(b"raw")[4:], b"raw"),
        car_section(b"\x12\x20" + bytes(32), b"version 0"),
        car_section(block_cid(b"a"), b"b"),
        car_section(b"", b""),
        car_section(block_cid(b""), b""),
        varint(5) + b"short",
        b"\x80\x80\x00" + block_cid(b"a") + b"a",
        b"\xff" * 12,
        b"\x80" * 9 + b"\x01",
        b"\xa6\x00" + block_cid(b"ab") + b"ab",  # 38 in two bytes
        b"\x00",
    ],
)
def test_a_section_that_is_no_block(section):
    with pytest.raises(ArchiveWrong), _opened(car_header(ROOT) + _section(b"a") + section + _section(b"b")):
        pass


def test_a_file_that_ends_anywhere_but_after_a_block():
    data = car_header(ROOT) + _section(b"a" * 300) + _section(b"b")
    whole = {len(car_header(ROOT)), len(car_header(ROOT) + _section(b"a" * 300)), len(data)}
    for length in range(len(data)):
        if length not in whole:
            with pytest.raises(ArchiveTruncated), _opened(data[:length]):
                pass


def test_a_block_bigger_than_is_read():
    block = bytes(2**24)
    with pytest.raises(ArchiveTooBig), _opened(car_header(ROOT) + _section(block)):
        pass
    with _opened(car_header(ROOT) + _section(block[: 2**24 - 100])) as car:
        assert len(car.read(block_cid(block[: 2**24 - 100]))) == 2**24 - 100


def test_a_file_that_shrinks_while_it_is_read():
    with tempfile.TemporaryFile() as file:
        file.write(car_header(ROOT) + _section(b"a" * 100))
        file.flush()
        car = CarFile(file)
        file.truncate(150)
        with pytest.raises(ArchiveTruncated):
            car.read(block_cid(b"a" * 100))
