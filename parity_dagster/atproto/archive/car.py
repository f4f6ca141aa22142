"""CAR files: the blocks of a repository one after the other, found again by their CIDs.

A large file lies on disk; what is in memory is a hash table of twelve bytes a slot, because a dict would need ten times
as many for a repository of a million records. Every block is hashed as it is met, so that whatever is read later is
what its CID says.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from typing import BinaryIO

import msgspec

from parity_dagster.atproto.archive.cbor import CID_LENGTH, CID_PREFIX, NotDagCbor, cid_bytes, read_varint, to_json
from parity_dagster.errors import ArchiveIncomplete, ArchiveTooBig, ArchiveTruncated, ArchiveWrong, MalformedAnswer

MAX_HEADER_BYTES = 8_192
MAX_BLOCKS = 5_000_000
"""Blocks of an archive: what three million records need, and a hundred megabytes of memory."""
_PIECE = 2**20
# A block and its CID have 16 MiB at most; the reference PDS takes records of 1 MiB.
_SECTION_BITS = 24
_SECTION_MASK = 2**_SECTION_BITS - 1
_MAX_VARINT = 9
_MAP_OF_TWO = b"\xa2"  # the roots and the version


class _Link(msgspec.Struct):
    link: str = msgspec.field(name="$link")


class _Header(msgspec.Struct):
    version: int
    roots: list[_Link]


def _reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda length, offset: data[offset : offset + length]


class CarFile:
    """The blocks of a CAR file of version 1.

    Blocks that occur twice and blocks that nothing links to are no harm (repository specification, "CAR File
    Serialization"): they are hashed like the others, and count.

    Args:
        source: a file on disk, which is left as it is as long as this is used, and not closed; or the bytes of one.
        max_blocks: how many blocks are accepted.

    Raises:
        ArchiveTruncated: it ends within a block.
        MalformedAnswer: it is something else from its first bytes on.
        ArchiveWrong: it is no such file, or a block is not what its CID says.
        ArchiveTooBig: a block, or the number of blocks, is beyond what is accepted.

    Source: CARv1 specification; repository specification of AT Protocol.
    """

    def __init__(self, source: BinaryIO | bytes, *, max_blocks: int = MAX_BLOCKS) -> None:
        if isinstance(source, bytes):
            self._read_some, self.size = _reader(source), len(source)
        else:
            fd = source.fileno()
            self._read_some, self.size = partial(os.pread, fd), os.fstat(fd).st_size
        self._max_blocks = max_blocks
        self.root = b""
        """CID of the first root: the commit."""
        self.count = 0
        """Different blocks."""
        self.used = 0
        """Blocks that were asked for, each once."""
        self.longest = 0
        """Bytes of the longest block and its CID."""
        self._tags = array("I", bytes(4 * 1024))
        self._places = array("Q", bytes(8 * 1024))  # of a block's CID, and its length together with the CID
        self._read_blocks(self._read_header())
        self._is_used = bytearray(len(self._tags))

    def read(self, cid: bytes) -> bytes:
        """Return a block.

        Raises:
            ArchiveIncomplete: the file does not have it.
        """
        return self.read_at(self.find(cid))[1]

    def find(self, cid: bytes) -> int:
        """Return where a block is, for `read_at`.

        Raises:
            ArchiveIncomplete: the file does not have it.
        """
        tags, places, mask = self._tags, self._places, len(self._tags) - 1
        tag = hash(cid) & 0xFFFFFFFF
        slot = tag & mask
        while place := places[slot]:
            if tags[slot] == tag and self._cid_at(place) == cid:
                if not self._is_used[slot]:
                    self._is_used[slot] = True
                    self.used += 1
                return place
            slot = slot + 1 & mask
        raise ArchiveIncomplete("the archive lacks a block that its tree needs; it was cut, or written meanwhile")

    @staticmethod
    def length_at(place: int) -> int:
        """Return the length of the block at a place."""
        length: int = (place & _SECTION_MASK) - CID_LENGTH
        return length

    def read_at(self, place: int) -> tuple[bytes, bytes]:
        """Return the CID and the block at a place."""
        section = self._pread(place & _SECTION_MASK, place >> _SECTION_BITS)
        return section[:CID_LENGTH], section[CID_LENGTH:]

    def _cid_at(self, place: int) -> bytes:
        return self._pread(CID_LENGTH, place >> _SECTION_BITS)

    def _pread(self, length: int, offset: int) -> bytes:
        found = self._read_some(length, offset)
        if len(found) != length:
            raise ArchiveTruncated("the archive has become shorter while it was read")
        return found

    def _read_header(self) -> int:
        start = self._read_some(_MAX_VARINT + MAX_HEADER_BYTES, 0)
        try:
            length, begin = read_varint(start, 0)
        except ValueError as exc:
            raise ArchiveWrong(f"the archive is no CAR file: {exc}") from exc
        except IndexError:
            raise ArchiveTruncated("the archive ends within its header") from None
        if length > MAX_HEADER_BYTES:
            raise ArchiveWrong(f"the archive is no CAR file: its header has {length:,} bytes")
        if start[begin : begin + 1] not in (b"", _MAP_OF_TWO):
            # As a page of what stands before the host, which may be gone in a minute: it makes no archive a wrong one.
            raise MalformedAnswer("instead of an archive, something came that is no CAR file")
        if len(start) < begin + length:
            raise ArchiveTruncated("the archive ends within its header")
        try:
            header = msgspec.json.decode(to_json(start[begin : begin + length]), type=_Header)
        except (NotDagCbor, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            raise ArchiveWrong(f"the archive is no CAR file: {exc}") from exc
        root = cid_bytes(header.roots[0].link) if header.roots else None
        if header.version != 1 or root is None or len(root) != CID_LENGTH or not root.startswith(CID_PREFIX):
            raise ArchiveWrong("the archive is no CAR file of version 1 with the commit as its root")
        self.root = root
        return begin + length

    def _read_blocks(self, position: int) -> None:
        size, left, longest = self.size, self._max_blocks, 0
        piece, base = b"", position
        while position < size:
            if left == 0:
                raise ArchiveTooBig(f"the archive has more than {self._max_blocks:,} blocks")
            left -= 1
            at = position - base
            if len(piece) - at < _MAX_VARINT and base + len(piece) < size:
                piece, base, at = self._pread(min(_PIECE, size - position), position), position, 0
            length, begin = self._section(piece, at)
            end = begin + length
            if base + end > size:
                raise ArchiveTruncated("the archive ends within a block")
            if length > _SECTION_MASK:
                raise ArchiveTooBig(f"the archive has a block of {length:,} bytes; {_SECTION_MASK:,} are read at most")
            if end > len(piece):
                wanted = max(_PIECE, end - at)
                piece, base = self._pread(min(wanted, size - position), position), position
                begin, end = begin - at, end - at
            data = begin + CID_LENGTH
            cid = piece[begin:data]
            if length <= CID_LENGTH or cid[:4] != CID_PREFIX:
                raise ArchiveWrong("the archive has a block whose CID is not version 1, dag-cbor and sha-256")
            if sha256(piece[data:end]).digest() != cid[4:]:
                raise ArchiveWrong("the archive has a block that is not what its CID says")
            self._add(cid, base + begin << _SECTION_BITS | length)
            position = base + end
            if length > longest:
                longest = length
        self.longest = longest

    @staticmethod
    def _section(piece: bytes, at: int) -> tuple[int, int]:
        try:
            return read_varint(piece, at)
        except ValueError as exc:
            raise ArchiveWrong(f"the archive has a block of no sensible length: {exc}") from exc
        except IndexError:
            raise ArchiveTruncated("the archive ends within a block") from None

    def _add(self, cid: bytes, place: int) -> None:
        tags, places, mask = self._tags, self._places, len(self._tags) - 1
        tag = hash(cid) & 0xFFFFFFFF
        slot = tag & mask
        while known := places[slot]:
            if tags[slot] == tag and self._cid_at(known) == cid:
                return
            slot = slot + 1 & mask
        tags[slot], places[slot] = tag, place
        self.count += 1
        if self.count * 3 > len(tags) * 2:
            self._grow()

    def _grow(self) -> None:
        size = len(self._tags) * 2
        tags, places, mask = array("I", bytes(4 * size)), array("Q", bytes(8 * size)), size - 1
        for tag, place in zip(self._tags, self._places, strict=True):
            if place:
                slot = tag & mask
                while places[slot]:
                    slot = slot + 1 & mask
                tags[slot], places[slot] = tag, place
        self._tags, self._places = tags, places
