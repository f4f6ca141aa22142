"""Identifiers of the sample network: DIDs, handles, TIDs and CIDs, all derived from seeds."""

from __future__ import annotations

import base64
import hashlib

TID_ALPHABET = "234567abcdefghijklmnopqrstuvwxyz"
_TID_DIGITS = {character: index for index, character in enumerate(TID_ALPHABET)}
_CID_PREFIX = bytes((0x01, 0x71, 0x12, 0x20))  # CIDv1, dag-cbor, sha2-256, 32 bytes
_BLOB_PREFIX = bytes((0x01, 0x55, 0x12, 0x20))  # the same for raw bytes, as blobs have it


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode("ascii").rstrip("=").lower()


def make_did(seed: int, index: int) -> str:
    """Name the `index`-th account of a network.

    Returns:
        A did:plc with 24 base32 characters, as https://web.plc.directory/spec/v0.1/did-plc describes.
    """
    return "did:plc:" + _base32(hashlib.sha256(b"%d/%d" % (seed, index)).digest())[:24]


def make_handle(did: str) -> str:
    """Return the handle that an account has unless it was given one."""
    return f"user-{hashlib.sha256(did.encode()).hexdigest()[:10]}.sample.test"


def make_tid(micros: int, clock: int = 0) -> str:
    """Spell a timestamp as a TID (https://atproto.com/specs/tid).

    Args:
        micros: microseconds since the epoch.
        clock: clock identifier, 0 to 1023.

    Returns:
        13 characters that sort as the time does.
    """
    number = (micros & (1 << 53) - 1) << 10 | clock & 1023
    return spell_base32(number, 13)


def spell_base32(number: int, length: int) -> str:
    """Write the lowest `5 * length` bits of a number in the TID alphabet, most significant first."""
    return "".join(TID_ALPHABET[number >> shift & 31] for shift in range(5 * (length - 1), -1, -5))


def read_base32(text: str) -> int | None:
    """Read what `spell_base32` wrote.

    Returns:
        The number, or None if another character occurs.
    """
    number = 0
    for character in text:
        digit = _TID_DIGITS.get(character)
        if digit is None:
            return None
        number = number << 5 | digit
    return number


def make_cid(content: bytes) -> str:
    """Return a CID for a record.

    The digest is of the JSON bytes, not of the DAG-CBOR block, so it identifies the content within the sample
    network but does not verify against the specification's encoding.
    """
    return "b" + _base32(_CID_PREFIX + hashlib.sha256(content).digest())


def make_blob_cid(content: bytes) -> str:
    """Return a CID as blobs have it (raw codec)."""
    return "b" + _base32(_BLOB_PREFIX + hashlib.sha256(content).digest())
