"""A whole repository in one file: verified first, then read collection by collection."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

import msgspec

from parity_dagster.atproto.archive.car import MAX_BLOCKS, CarFile
from parity_dagster.atproto.archive.cbor import NotDagCbor, cid_text, record_json
from parity_dagster.atproto.archive.commit import check_commit, parse_commit
from parity_dagster.atproto.archive.keys import SigningKey
from parity_dagster.atproto.archive.mst import walk_tree
from parity_dagster.atproto.pages import MAX_DEPTH, FailedEntry, Record, parse_entry
from parity_dagster.atproto.split_page import is_utf8
from parity_dagster.errors import ArchiveTooBig, Reason

MAX_COLLECTIONS = 10_000
"""Collections of a repository; of each, a few hundred bytes are in memory."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What a verified archive proves.

    Attributes:
        did: the account that has signed it.
        rev: revision of the repository.
        commit: CID of the commit.
        counts: collection → number of its records, for every collection of the repository.
        surplus_blocks: blocks of the file that nothing links to; servers send some when an account writes meanwhile.
    """

    did: str
    rev: str
    commit: str
    counts: dict[str, int]
    surplus_blocks: int


class RepositoryArchive:
    """An answer of `com.atproto.sync.getRepo`, spooled to disk unless it is small.

    Args:
        source: the CAR file, or what is in it; a file stays open and unchanged as long as this is used, and is not
            closed.
        max_blocks: how many blocks are accepted, and how many records: many may have the same block.
        max_bytes: of all records together, if each had a block of its own.

    Raises:
        ArchiveTruncated, MalformedAnswer, ArchiveWrong, ArchiveTooBig: as `CarFile` says.
    """

    def __init__(self, source: BinaryIO | bytes, *, max_blocks: int = MAX_BLOCKS, max_bytes: int = 2**30) -> None:
        self._car = CarFile(source, max_blocks=max_blocks)
        self._max_records, self._max_bytes = max_blocks, max_bytes
        self._did = ""
        self._found: dict[str, tuple[bytearray, array[int]]] = {}

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._car.size

    @property
    def longest(self) -> int:
        """Bytes of the longest block and its CID."""
        return self._car.longest

    def verify(self, *, did: str, key: SigningKey) -> Proof:
        """Verify the commit and the whole tree, and note where the records are.

        It may be called again with another key, e.g. after `SignatureWrong` and another look at the DID document.

        Raises:
            SignatureWrong, ArchiveForeign, ArchiveWrong: it is not the account's repository.
            ArchiveIncomplete: blocks are missing.
            ArchiveTooBig: a node of the tree is too big to be read, there are too many collections or records, or they
                are too big together.
        """
        car = self._car
        commit = parse_commit(car.read(car.root))
        check_commit(commit, did=did, key=key)
        found: dict[str, tuple[bytearray, array[int]]] = {}
        size = 0
        for number, (collection, rkey, cid) in enumerate(walk_tree(commit.data, car.read), 1):
            place = car.find(cid)
            size += car.length_at(place)
            if collection not in found:  # its records follow each other
                rkeys, places = found[collection] = bytearray(), array("Q")
            if number > self._max_records or size > self._max_bytes or len(found) > MAX_COLLECTIONS:
                raise ArchiveTooBig(
                    f"the repository has more than {self._max_records:,} records, {self._max_bytes:,} bytes of them, or"
                    f" {MAX_COLLECTIONS:,} collections"
                )
            rkeys += b"%b\n" % rkey.encode()
            places.append(place)
        self._did, self._found = did, found
        text = cid_text(car.root)
        assert text is not None
        counts = {collection: len(places) for collection, (_, places) in found.items()}
        return Proof(did, commit.rev, text, counts, car.count - car.used)

    def records(self, collection: str) -> Iterator[Record | FailedEntry]:
        """Read the records of a collection, least record key first, after `verify`.

        Returns:
            Each record as from a page of listRecords, or why it cannot be stored. The body of what cannot be stored is
            the entry that a page would show; if the block is not even DAG-CBOR, it stands there in base64 as `block`.
        """
        rkeys, places = self._found.get(collection, (b"", ()))
        for line, place in zip(BytesIO(rkeys), places, strict=True):
            cid, block = self._car.read_at(place)
            yield _record(self._did, collection, line[:-1].decode(), cid_text(cid) or "", block)


class _KeptBlock(msgspec.Struct):
    uri: str
    cid: str
    block: str


def parse_kept_block(body: bytes, did: str, collection: str) -> Record | FailedEntry:
    """Read again what was kept of a record whose block was not DAG-CBOR.

    Args:
        body: of the failed record, as `RepositoryArchive.records` made it.

    Raises:
        msgspec.MsgspecError: it is something else.
    """
    kept = msgspec.json.decode(body, type=_KeptBlock)
    return _record(did, collection, kept.uri.rpartition("/")[2], kept.cid, base64.b64decode(kept.block))


def _record(did: str, collection: str, rkey: str, cid: str, block: bytes) -> Record | FailedEntry:
    try:
        value = record_json(block)
    except NotDagCbor as exc:
        body = b'%b"block":"%b"}' % (_head(did, collection, rkey, cid), base64.b64encode(block))
        return FailedEntry(rkey, Reason.INVALID_CBOR, f"the record's block is not DAG-CBOR: {exc}", body)
    if _is_sound(block, value):
        return rkey, cid, value
    head = _head(did, collection, rkey, cid)
    entry = parse_entry(b'%b"value":%b}' % (head, value), did, collection)
    return entry if isinstance(entry, FailedEntry) else (rkey, cid, value)


def _head(did: str, collection: str, rkey: str, cid: str) -> bytes:
    return f'{{"uri":"at://{did}/{collection}/{rkey}","cid":"{cid}",'.encode()


def _is_sound(block: bytes, value: bytes) -> bool:
    """Tell at a glance that there is nothing in a record that a page's reader would have to look at."""
    return (
        value[:1] == b"{"
        and b"\\u0000" not in value
        and b"\xfb" not in block  # what floats begin with
        and (len(value) <= 2 * MAX_DEPTH or value.count(b"[") + value.count(b"{") <= MAX_DEPTH)
        and (value.isascii() or is_utf8(value))
    )
