"""Collections of any size that take no memory: records rendered from templates when they are asked for.

A block is 100 neighbouring records. Its template is written once per collection and variant, with holes for
the account, the block's part of the rkeys, a salt and the hour; rendering fills the holes with one `bytes`
format, which takes 20 µs. A page of the reference dialect is one block.
"""

# ruff: noqa: S311 -- sample content is drawn from a seeded generator on purpose

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from parity_dagster.sample_network.accounts import read_base32, spell_base32
from parity_dagster.sample_network.content import encode, make_value

BLOCK = 100
VARIANTS = 8

# Holes while the template is made; afterwards each is a conversion of a bytes format.
_DID, _KEY, _SALT, _HOUR = "<did>", "<blk>", "<salt>", "<hour>"

_NEWEST = 1_616_488  # block of 2025-01-01: blocks are 2**30 microseconds, about 18 minutes
_SPREAD = 30_000  # accounts' newest blocks lie within a year before that
_HEX_TO_BASE32 = bytes.maketrans(b"0189", b"ghij")


def _positions() -> tuple[tuple[str, str], ...]:
    """Return (last 8 characters of the rkey, minutes and seconds) of a block's records, newest first."""
    rng = random.Random("positions")
    found = []
    for position in range(BLOCK):
        micros = 2**30 - 1 - position * (2**30 // BLOCK) - rng.randrange(2**22)
        seconds, fraction = divmod(micros // 1000, 1000)
        clock = f"{seconds // 60:02d}:{seconds % 60:02d}.{fraction:03d}Z"
        found.append((spell_base32(micros << 10 | rng.randrange(1024), 8), clock))
    return tuple(found)


_POSITIONS = _positions()
_POSITION_OF = {suffix: position for position, (suffix, _) in enumerate(_POSITIONS)}


@dataclass(frozen=True, slots=True)
class _Template:
    """A block with holes: its records one by one, and joined."""

    cids: tuple[bytes, ...]
    values: tuple[bytes, ...]
    entries: tuple[bytes, ...]
    joined: bytes


@lru_cache(maxsize=256)
def _template(nsid: str, variant: int) -> _Template:
    rng = random.Random(f"{nsid}/{variant}")
    cids, values, entries = [], [], []
    for suffix, clock in _POSITIONS:
        subject = "did:plc:" + "".join(rng.choices("abcdefghijklmnopqrstuvwxyz234567", k=8)) + _SALT
        value = encode(make_value(nsid, rng, did=subject, created_at=f"{_HOUR}:{clock}"))
        tail = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz234567", k=34))
        cid = f"bafyrei{'abcdefgh'[rng.randrange(8)]}{_SALT}{tail}{'aeimquy4'[rng.randrange(8)]}".encode()
        entry = b'{"uri":"at://%b/%b/%b%b","cid":"%b","value":%b}'
        cids.append(cid)
        values.append(value)
        entries.append(entry % (_DID.encode(), nsid.encode(), _KEY.encode(), suffix.encode(), cid, value))
    formats = tuple(_format(entry) for entry in entries)
    return _Template(tuple(map(_format, cids)), tuple(map(_format, values)), formats, b",".join(formats))


def _format(text: bytes) -> bytes:
    text = text.replace(b"%", b"%%")
    for name, hole in ((b"did", _DID), (b"key", _KEY), (b"salt", _SALT), (b"hour", _HOUR)):
        text = text.replace(hole.encode(), b"%%(%b)b" % name)
    return text


class Generated:
    """`count` records of one (did, collection), newest first by index, none of them kept in memory."""

    __slots__ = ("_newest", "count", "did", "nsid")

    def __init__(self, did: str, nsid: str, count: int) -> None:
        self.did = did
        self.nsid = nsid
        self.count = count
        self._newest = _NEWEST - int.from_bytes(hashlib.sha256(did.encode()).digest()[:4]) % _SPREAD

    def rkey(self, index: int) -> str:
        """Return the record key of a record."""
        block, position = divmod(index, BLOCK)
        return spell_base32(self._newest - block, 5) + _POSITIONS[position][0]

    def rkeys(self) -> list[str]:
        """Return all record keys, newest (greatest) first."""
        keys: list[str] = []
        for block in range((self.count + BLOCK - 1) // BLOCK):
            prefix = spell_base32(self._newest - block, 5)
            keys.extend(prefix + suffix for suffix, _ in _POSITIONS)
        return keys[: self.count]

    def index(self, rkey: str) -> int | None:
        """Return the index of a record key, or None if it is not one of ours."""
        position = _POSITION_OF.get(rkey[5:])
        number = read_base32(rkey[:5])
        if position is None or number is None:
            return None
        index = (self._newest - number) * BLOCK + position
        return index if 0 <= index < self.count else None

    def after(self, cursor: str) -> int:
        """Return the index of the greatest record key below a cursor; `count` if there is none.

        Args:
            cursor: any string, compared as the reference PDS does (`rkey < cursor`).
        """
        known = self.index(cursor)
        if known is not None:
            return known + 1
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if self.rkey(middle) < cursor:
                high = middle
            else:
                low = middle + 1
        return low

    def entries(self, start: int, stop: int) -> bytes:
        """Render list entries joined with commas, for a listRecords answer."""
        parts = []
        while start < stop:
            block, first = divmod(start, BLOCK)
            last = min(BLOCK, first + stop - start)
            template = self._template(block)
            whole = last - first == BLOCK
            parts.append(self._fill(template.joined if whole else b",".join(template.entries[first:last]), block))
            start += last - first
        return b",".join(parts)

    def record(self, index: int) -> tuple[str, bytes]:
        """Return the (cid, value) of one record."""
        block, position = divmod(index, BLOCK)
        template = self._template(block)
        return (
            self._fill(template.cids[position], block).decode(),
            self._fill(template.values[position], block),
        )

    def records(self) -> dict[str, tuple[str, bytes]]:
        """Return rkey → (cid, value) of all records, newest first."""
        found: dict[str, tuple[str, bytes]] = {}
        keys = self.rkeys()
        for start in range(0, self.count, BLOCK):
            block = start // BLOCK
            template = self._template(block)
            cids = self._fill(b"\n".join(template.cids), block).decode().split("\n")
            values = self._fill(b"\n".join(template.values), block).split(b"\n")
            found.update(zip(keys[start : start + BLOCK], zip(cids, values, strict=True), strict=False))
        return found

    def _template(self, block: int) -> _Template:
        return _template(self.nsid, (self._newest - block) % VARIANTS)

    def _fill(self, template: bytes, block: int) -> bytes:
        number = self._newest - block
        seed = hashlib.blake2b(f"{self.did}/{self.nsid}/{number}".encode(), digest_size=8)
        return template % {
            b"did": self.did.encode(),
            b"key": spell_base32(number, 5).encode(),
            b"salt": seed.hexdigest().encode().translate(_HEX_TO_BASE32),
            b"hour": _hour(number),
        }


@lru_cache(maxsize=65_536)
def _hour(block: int) -> bytes:
    return datetime.fromtimestamp(block * 2**30 / 1e6, UTC).strftime("%Y-%m-%dT%H").encode()
