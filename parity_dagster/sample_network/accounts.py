"""Identifiers of the sample network: DIDs, handles and TIDs, all derived from seeds."""

from __future__ import annotations

import base64
import hashlib

TID_ALPHABET = "234567abcdefghijklmnopqrstuvwxyz"
_TID_DIGITS = {character: index for index, character in enumerate(TID_ALPHABET)}


def make_did(seed: int, index: int) -> str:
    """The `index`-th account of a network: a did:plc, as https://web.plc.directory/spec/v0.1/did-plc describes."""
    return "did:plc:" + base64.b32encode(hashlib.sha256(b"%d/%d" % (seed, index)).digest()).decode().lower()[:24]


def make_handle(did: str) -> str:
    """Return the handle that an account has unless it was given one."""
    return f"user-{hashlib.sha256(did.encode()).hexdigest()[:10]}.sample.test"


def make_tid(micros: int, clock: int = 0) -> str:
    """Spell microseconds since the epoch, and a clock identifier of 0 to 1023, as a TID."""
    number = (micros & (1 << 53) - 1) << 10 | clock & 1023
    return spell_base32(number, 13)


def spell_base32(number: int, length: int) -> str:
    """Write the lowest `5 * length` bits of a number in the TID alphabet, most significant first."""
    return "".join(TID_ALPHABET[number >> shift & 31] for shift in range(5 * (length - 1), -1, -5))


def read_base32(text: str) -> int | None:
    """Read what `spell_base32` wrote; None if another character occurs."""
    number = 0
    for character in text:
        digit = _TID_DIGITS.get(character)
        if digit is None:
            return None
        number = number << 5 | digit
    return number
