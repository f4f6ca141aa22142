"""Blocks of repositories: DAG-CBOR and CIDs, written by hand so that they vouch for whatever library a reader uses."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from libipld import encode_cid

CID_PREFIX = bytes((0x01, 0x71, 0x12, 0x20))  # CIDv1, dag-cbor, sha2-256, 32 bytes
_BLOB_PREFIX = bytes((0x01, 0x55, 0x12, 0x20))  # the same for raw bytes, as blobs have it
NULL = b"\xf6"
_SIMPLE = {False: b"\xf4", True: b"\xf5", None: NULL}


def block_cid(block: bytes) -> bytes:
    """Return the CID of a block, in binary."""
    return CID_PREFIX + sha256(block).digest()


def spell_cid(cid: bytes) -> str:
    """Write a CID as text."""
    return encode_cid(cid)


def make_cid(block: bytes) -> str:
    """Return the CID of a block, as text."""
    return spell_cid(block_cid(block))


def make_cids(blocks: Iterable[bytes]) -> list[str]:
    """Do for many blocks what `make_cid` does for one, in half of the time."""
    return [encode_cid(CID_PREFIX + sha256(block).digest()) for block in blocks]


def make_blob_cid(content: bytes) -> str:
    """Return the CID of a blob, as text."""
    return spell_cid(_BLOB_PREFIX + sha256(content).digest())


def read_cid(text: str) -> bytes:
    """Read a CID that `spell_cid` could have written.

    Raises:
        ValueError: it is in another base.
    """
    if not text.startswith("b"):
        raise ValueError("a CID in another base than base32")
    return base64.b32decode(text[1:].upper() + "=" * (-(len(text) - 1) % 8))


def head(major: int, number: int) -> bytes:
    """Write the head of a DAG-CBOR item, in the only form allowed: the shortest.

    Raises:
        OverflowError: the number needs more than 64 bits.
    """
    if number < 24:
        return bytes((major << 5 | number,))
    for size, info in ((1, 24), (2, 25), (4, 26), (8, 27)):
        if number < 1 << 8 * size:
            return bytes((major << 5 | info,)) + number.to_bytes(size)
    raise OverflowError("DAG-CBOR has no integers of more than 64 bits")


def link(cid: bytes) -> bytes:
    """Write a link: tag 42, and the CID with a zero byte before it."""
    return b"\xd8\x2a" + head(2, len(cid) + 1) + b"\x00" + cid


def to_block(value: Any) -> bytes:
    """Write a value of the data model as DAG-CBOR.

    Args:
        value: as JSON spells it, links as `$link` and byte strings as `$bytes`; byte strings may be `bytes`, too.

    Raises:
        ValueError: DAG-CBOR has no such value (infinities), or its text is no text.
        OverflowError: an integer needs more than 64 bits.
        RecursionError: it is nested deeper than Python's stack is.

    Source: data-model specification of AT Protocol; DAG-CBOR specification.
    """
    kind = type(value)
    if kind is str:
        text = _utf8(value)
        return head(3, len(text)) + text
    if kind is int:
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if kind is dict:
        match value:
            case {"$link": str(cid), **rest} if not rest:
                return link(read_cid(cid))
            case {"$bytes": str(spelled), **rest} if not rest:
                data = base64.b64decode(spelled + "=" * (-len(spelled) % 4))
                return head(2, len(data)) + data
        items = sorted(((_utf8(key), item) for key, item in value.items()), key=lambda pair: (len(pair[0]), pair[0]))
        written = (head(3, len(key)) + key + to_block(item) for key, item in items)
        return head(5, len(items)) + b"".join(written)
    if kind is list:
        return head(4, len(value)) + b"".join(map(to_block, value))
    if kind is bytes:
        return head(2, len(value)) + bytes(value)
    if kind is float:
        if value - value != 0:
            raise ValueError("DAG-CBOR has only finite numbers")
        return b"\xfb" + struct.pack(">d", value)
    return _SIMPLE[value]


def record_block(value: bytes) -> bytes:
    """Return the block of a record whose JSON this is.

    What DAG-CBOR cannot hold (infinities, integers of more than 64 bits) and what is nested too deep for this program
    is in its repository as it is, JSON in a block that claims to be DAG-CBOR: that, too, has a CID and can be served.
    """
    try:
        return to_block(json.loads(value.decode("utf-8", "surrogateescape")))
    except (ValueError, OverflowError, RecursionError):
        return value


def _utf8(text: str) -> bytes:
    """Encode text; what is no text, such as half a surrogate pair, as servers that do not look encode it."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
