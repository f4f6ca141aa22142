"""Strict DAG-CBOR to the data model's JSON and back: what a block says, and which block says a JSON value.

libipld is fast but not strict enough to vouch for a signed block: it reads integers and lengths that are longer than
they need to be, reads 32-bit floats, and gives links and byte strings the same Python type. So what it read is encoded
again and must give the same bytes; what does not is read by `to_json`, which is slow, strict and needs no recursion.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from hashlib import sha256
from typing import Any, Literal

import msgspec
from libipld import decode_dag_cbor, decode_multibase, encode_cid, encode_dag_cbor

CID_PREFIX = b"\x01\x71\x12\x20"
"""Of the CIDs of blocks: version 1, dag-cbor, sha2-256, 32 bytes."""
_RAW_PREFIX = b"\x01\x55\x12\x20"
CID_LENGTH = 36

_MAX_FAST = 65_536
"""Bytes of a block that becomes Python objects, of which it may need seventy times as many."""
_SAFE_INTEGER = 2**53
_LEAST = (24, 2**8, 2**16, 2**32)  # that need 1, 2, 4 and 8 bytes
_SIMPLE = {20: b"false", 21: b"true", 22: b"null"}
_TO_ESCAPE = re.compile(rb'["\\\x00-\x1f]')
_SHORT_ESCAPES = {b'"': rb"\"", b"\\": rb"\\", b"\n": rb"\n", b"\r": rb"\r", b"\t": rb"\t"}

_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder().decode

Checked = Literal["equal", "different", "unverifiable"]


class NotDagCbor(ValueError):
    """A block that is not strict DAG-CBOR; the message says where it departs from it."""


def record_json(block: bytes) -> bytes:
    """Return a block as JSON: links as `$link`, byte strings as `$bytes`, keys in the block's order.

    Text that is not UTF-8 is passed on as it is, so that the JSON is none; whoever reads it finds the reason.

    Raises:
        NotDagCbor: the block is not strict DAG-CBOR.

    Source: data-model specification of AT Protocol; DAG-CBOR specification, "Strictness".
    """
    if len(block) <= _MAX_FAST:
        try:
            value = decode_dag_cbor(block)
            if type(value) is dict and encode_dag_cbor(value) == block:
                _spell_out(value)
                return _encode_json(value)
        except (ValueError, RecursionError, OverflowError):
            pass
    return to_json(block)


def _spell_out(value: Any) -> None:
    """Replace the links and byte strings in a dict or list by their JSON form."""
    for key, item in value.items() if type(value) is dict else enumerate(value):
        kind = type(item)
        if kind is str or kind is int:
            continue
        if kind is dict or kind is list:
            _spell_out(item)
        elif kind is bytes:
            # what libipld encodes as a link, and the block has in its place, is one
            is_link = item.startswith((CID_PREFIX, _RAW_PREFIX)) or _is_link(item)
            value[key] = {"$link": _link_text(item)} if is_link else {"$bytes": _base64(item)}


def _link_text(cid: bytes) -> str:
    text = cid_text(cid)
    if text is None:
        raise ValueError("libipld takes this for a CID")
    return text


def _is_link(data: bytes) -> bool:
    return encode_dag_cbor(data)[0] == 0xD8


def to_json(block: bytes) -> bytes:
    """Do what `record_json` does, item by item and without recursion.

    Raises:
        NotDagCbor: the block is not strict DAG-CBOR.
    """
    out = bytearray()
    # what is open: items left, and the last key of a map (None in an array)
    open_items: list[tuple[int, tuple[int, bytes] | None]] = []
    position = 0
    while True:
        position = _skip_item(block, position, out, open_items)
        while open_items and open_items[-1][0] == 0:
            out += b"]" if open_items.pop()[1] is None else b"}"
        if not open_items:
            break
        left, last_key = open_items[-1]
        if out[-1] not in b"[{":
            out += b","
        if last_key is not None:
            key, position = _read_key(block, position)
            if key <= last_key:
                raise NotDagCbor("the keys of a map are not in order, or one occurs twice")
            last_key = key
            out += _quote(key[1]) + b":"
        open_items[-1] = left - 1, last_key
    if position != len(block):
        raise NotDagCbor("something follows the value")
    return bytes(out)


_NO_KEY = (-1, b"")


def _skip_item(
    block: bytes, position: int, out: bytearray, open_items: list[tuple[int, tuple[int, bytes] | None]]
) -> int:
    """Write an item as JSON, or open it if it holds others; return where the next one begins."""
    major, info, number, position = _head(block, position)
    if major == 0:
        out += b"%d" % number
    elif major == 1:
        out += b"%d" % (-1 - number)
    elif major == 2:
        data, position = _bytes(block, position, number)
        out += b'{"$bytes":"%b"}' % _base64(data).encode()
    elif major == 3:
        data, position = _bytes(block, position, number)
        out += _quote(data)
    elif major in (4, 5):
        if number > len(block) - position:
            raise NotDagCbor("a list or map is longer than the block")
        out += b"[" if major == 4 else b"{"
        open_items.append((number, None if major == 4 else _NO_KEY))
    elif major == 6:
        position = _skip_link(block, position, number, out)
    elif info in _SIMPLE:
        out += _SIMPLE[info]
    elif info == 27:
        real: float = struct.unpack(">d", number.to_bytes(8))[0]
        if not math.isfinite(real):
            raise NotDagCbor("a number is not finite")
        out += _encode_json(real)
    else:
        raise NotDagCbor("a simple value or float that DAG-CBOR does not have")
    return position


def _skip_link(block: bytes, position: int, tag: int, out: bytearray) -> int:
    if tag != 42:
        raise NotDagCbor(f"the tag {tag}; only 42, a link, is allowed")
    major, _, length, position = _head(block, position)
    data, position = _bytes(block, position, length)
    text = cid_text(data[1:]) if major == 2 and data[:1] == b"\x00" else None
    if text is None:
        raise NotDagCbor("a link that is not a CID")
    out += b'{"$link":"%b"}' % text.encode()
    return position


def _head(block: bytes, position: int) -> tuple[int, int, int, int]:
    """Read an item's head: major type, its lower five bits, its number, and where its content begins."""
    if position >= len(block):
        raise NotDagCbor("the block ends too early")
    major, info = divmod(block[position], 32)
    position += 1
    if info < 24:
        return major, info, info, position
    if info > 27:
        raise NotDagCbor("a length that is indefinite or reserved")
    size = 1 << (info - 24)
    raw, position = _bytes(block, position, size)
    number = int.from_bytes(raw)
    if major != 7 and number < _LEAST[info - 24]:
        raise NotDagCbor("a number that is longer than it needs to be")
    return major, info, number, position


def _bytes(block: bytes, position: int, length: int) -> tuple[bytes, int]:
    end = position + length
    if end > len(block):
        raise NotDagCbor("the block ends too early")
    return block[position:end], end


def _read_key(block: bytes, position: int) -> tuple[tuple[int, bytes], int]:
    """Read a map's key, as it sorts: by length, then by bytes."""
    major, _, length, position = _head(block, position)
    if major != 3:
        raise NotDagCbor("a key of a map is not text")
    data, position = _bytes(block, position, length)
    return (length, data), position


def _quote(text: bytes) -> bytes:
    return b'"%b"' % _TO_ESCAPE.sub(_escape, text)


def _escape(match: re.Match[bytes]) -> bytes:
    return _SHORT_ESCAPES.get(match[0]) or b"\\u%04x" % match[0][0]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def cid_text(cid: bytes) -> str | None:
    """Spell a CID as text; None if it is none."""
    if len(cid) == CID_LENGTH and cid.startswith((CID_PREFIX, _RAW_PREFIX)):
        return encode_cid(cid)
    if len(cid) == 34 and cid.startswith(b"\x12\x20"):  # version 0
        return encode_cid(cid)
    numbers: list[int] = []
    position = 0
    try:
        while len(numbers) < 4:  # version, codec, hash, length of the digest
            number, position = read_varint(cid, position)
            numbers.append(number)
    except (ValueError, IndexError):
        return None
    if numbers[0] != 1 or numbers[3] != len(cid) - position:
        return None
    return "b" + base64.b32encode(cid).decode().rstrip("=").lower()


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Read an unsigned varint and where it ends.

    Raises:
        ValueError: longer than nine bytes, or than it needs to be.
        IndexError: the data end within it.
    """
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            if byte == 0 and shift:
                raise ValueError("a varint is longer than it needs to be")
            return number, position
        shift += 7
        if shift > 56:
            raise ValueError("a varint has more than nine bytes")


def cid_bytes(text: str) -> bytes | None:
    """Read a CID's text, spelled as `cid_text` spells it; None if it is none."""
    try:
        if text.startswith("b"):
            cid = base64.b32decode(text[1:].upper() + "=" * (-(len(text) - 1) % 8))
        else:
            cid = decode_multibase("z" + text)[1]
    except ValueError:
        return None
    return cid if cid_text(cid) == text else None


def block_cid(block: bytes) -> str:
    """Return the CID of a block."""
    return encode_cid(CID_PREFIX + sha256(block).digest())


def cid_of(value: bytes) -> str | None:
    """Return the CID that a record has whose JSON this is; None if no block can be told from it.

    Args:
        value: the record's JSON, as listRecords shows it or as PostgreSQL's jsonb spells it.
    """
    try:
        decoded = _decode_json(value)
        if b'"$' in value:
            decoded = _take_in(decoded)
        return block_cid(encode_dag_cbor(decoded))
    except (ValueError, RecursionError, OverflowError):
        return None


def check_cid(value: bytes, cid: str) -> Checked:
    """Compare a record's JSON with its CID.

    Returns:
        `different` only if the JSON tells its block without a doubt. It does not if it holds a number with a fraction
        or an exponent (1.0 and 1 are other blocks, and servers write both as 1), an integer beyond 2⁵³ (which a server
        may have rounded), or a blob of the old form (which servers show in several ways).
    """
    found = cid_of(value)
    if found == cid:
        return "equal"
    return "unverifiable" if found is None or _is_doubtful(value) else "different"


def _take_in(value: Any) -> Any:
    """Turn `$link` and `$bytes` into what libipld encodes as a link and a byte string."""
    if type(value) is list:
        return [_take_in(item) for item in value]
    if type(value) is not dict:
        return value
    if len(value) == 1:
        match value:
            case {"$link": str(text)} if cid := cid_bytes(text):
                if not _is_link(cid):
                    raise ValueError("a link that libipld takes for a byte string")
                return cid
            case {"$bytes": str(text)}:
                try:
                    data = base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)
                except binascii.Error:
                    return value
                if data and _is_link(data):
                    raise ValueError("a byte string that libipld takes for a link")
                return data
    return {key: _take_in(item) for key, item in value.items()}


def _is_doubtful(value: bytes) -> bool:
    pending = [_decode_json(value)]
    while pending:
        item = pending.pop()
        if isinstance(item, list):
            pending += item
        elif isinstance(item, dict):
            is_old_blob = item.keys() == {"cid", "mimeType"} or (item.get("$type") == "blob" and item.get("size") == -1)
            if is_old_blob:
                return True
            pending += item.values()
        elif isinstance(item, float) or (type(item) is int and abs(item) > _SAFE_INTEGER):
            return True
    return False
