"""Collections of any size that take no memory: records rendered from templates when they are asked for.

A group is 100 neighbouring records. Its template is written once per collection and variant, as JSON and as DAG-CBOR,
with holes for the account, the group's part of the rkeys, a salt, the hour and the CIDs; rendering fills the holes with
one `bytes` format for each of the two. Most of the time goes into the CIDs, which are the true ones. A page of the
reference dialect is one group.
"""

# ruff: noqa: S311 -- sample content is drawn from a seeded generator on purpose

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import accumulate, pairwise

from parity_dagster.sample_network.accounts import read_base32, spell_base32
from parity_dagster.sample_network.blocks import make_cids, to_block
from parity_dagster.sample_network.content import encode, make_value

GROUP = 100
VARIANTS = 8

# Holes while the template is made; afterwards each is a conversion of a bytes format. Those that occur in values are as
# long as what fills them, because DAG-CBOR writes a text's length before it.
_DID, _KEY, _SALT, _HOUR = "<did>", "<key>", "<16-letters-salt", "<date-to-hour"

_NEWEST = 1_616_488  # group of 2025-01-01: groups are 2**30 microseconds, about 18 minutes
_SPREAD = 30_000  # accounts' newest groups lie within a year before that
_HEX_TO_BASE32 = bytes.maketrans(b"0189", b"ghij")


def _positions() -> tuple[tuple[str, str], ...]:
    """Return (last 8 characters of the rkey, minutes and seconds) of a group's records, newest first."""
    rng = random.Random("positions")
    found = []
    for position in range(GROUP):
        micros = 2**30 - 1 - position * (2**30 // GROUP) - rng.randrange(2**22)
        seconds, fraction = divmod(micros // 1000, 1000)
        clock = f"{seconds // 60:02d}:{seconds % 60:02d}.{fraction:03d}Z"
        found.append((spell_base32(micros << 10 | rng.randrange(1024), 8), clock))
    return tuple(found)


_POSITIONS = _positions()
_POSITION_OF = {suffix: position for position, (suffix, _) in enumerate(_POSITIONS)}


@dataclass(frozen=True, slots=True)
class _Template:
    """A group with holes: its records one by one and together, as JSON and as DAG-CBOR."""

    values: tuple[bytes, ...]
    entries: tuple[bytes, ...]
    joined: bytes
    blocks: bytes
    spans: tuple[tuple[int, int], ...]
    """Where each block begins and ends once the holes are filled."""


@lru_cache(maxsize=256)
def _template(nsid: str, variant: int) -> _Template:
    rng = random.Random(f"{nsid}/{variant}")
    values, entries, blocks = [], [], []
    for (suffix, clock), hole in zip(_POSITIONS, _CID_HOLES, strict=True):
        subject = "did:plc:" + "".join(rng.choices("abcdefghijklmnopqrstuvwxyz234567", k=8)) + _SALT
        value = make_value(nsid, rng, did=subject, created_at=f"{_HOUR}:{clock}")
        encoded = encode(value)
        uri = f"at://{_DID}/{nsid}/{_KEY}{suffix}".encode()
        values.append(_format(encoded))
        entries.append(_format(b'{"uri":"%b","cid":"<cid>","value":%b}' % (uri, encoded)).replace(b"<cid>", hole))
        blocks.append(to_block(value))
    spans = tuple(pairwise(accumulate(map(len, blocks), initial=0)))
    return _Template(tuple(values), tuple(entries), b",".join(entries), _format(b"".join(blocks)), spans)


_CID_NAMES = tuple(b"cid%d" % position for position in range(GROUP))
_CID_HOLES = tuple(b"%%(%b)b" % name for name in _CID_NAMES)


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
        group, position = divmod(index, GROUP)
        return spell_base32(self._newest - group, 5) + _POSITIONS[position][0]

    def rkeys(self) -> list[str]:
        """Return all record keys, newest (greatest) first."""
        keys: list[str] = []
        for group in range((self.count + GROUP - 1) // GROUP):
            prefix = spell_base32(self._newest - group, 5)
            keys.extend(prefix + suffix for suffix, _ in _POSITIONS)
        return keys[: self.count]

    def index(self, rkey: str) -> int | None:
        """Return the index of a record key, or None if it is not one of ours."""
        position = _POSITION_OF.get(rkey[5:])
        number = read_base32(rkey[:5])
        if position is None or number is None:
            return None
        index = (self._newest - number) * GROUP + position
        return index if 0 <= index < self.count else None

    def after(self, cursor: str) -> int:
        """Index of the greatest record key below a cursor, as the reference PDS compares; `count` if there is none."""
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
            group, first = divmod(start, GROUP)
            last = min(GROUP, first + stop - start)
            template = self._template(group)
            cids = make_cids(self._blocks(group, first, last))
            named = zip(_CID_NAMES[first:last], (cid.encode() for cid in cids), strict=True)
            whole = last - first == GROUP
            text = template.joined if whole else b",".join(template.entries[first:last])
            parts.append(text % (self._holes(group) | dict(named)))
            start += last - first
        return b",".join(parts)

    def record(self, index: int) -> tuple[str, bytes]:
        """Return the (cid, value) of one record."""
        group, position = divmod(index, GROUP)
        (cid,) = make_cids(self._blocks(group, position, position + 1))
        return cid, self._template(group).values[position] % self._holes(group)

    def records(self) -> dict[str, tuple[str, bytes]]:
        """Return rkey → (cid, value) of all records, newest first."""
        found: dict[str, tuple[str, bytes]] = {}
        keys = self.rkeys()
        for start in range(0, self.count, GROUP):
            group, stop = start // GROUP, min(GROUP, self.count - start)
            values = (b"\n".join(self._template(group).values[:stop]) % self._holes(group)).split(b"\n")
            cids = make_cids(self._blocks(group, 0, stop))
            found.update(zip(keys[start : start + stop], zip(cids, values, strict=True), strict=True))
        return found

    def blocks(self) -> Iterator[tuple[str, bytes]]:
        """Render all records as the blocks of a repository: (rkey, block), oldest (least rkey) first."""
        for group in reversed(range((self.count + GROUP - 1) // GROUP)):
            stop = min(GROUP, self.count - group * GROUP)
            prefix = spell_base32(self._newest - group, 5)
            blocks = self._blocks(group, 0, stop)
            yield from ((prefix + _POSITIONS[at][0], blocks[at]) for at in reversed(range(stop)))

    def _blocks(self, group: int, first: int, last: int) -> list[bytes]:
        template = self._template(group)
        filled = template.blocks % self._holes(group)
        return [filled[start:stop] for start, stop in template.spans[first:last]]

    def _template(self, group: int) -> _Template:
        return _template(self.nsid, (self._newest - group) % VARIANTS)

    def _holes(self, group: int) -> dict[bytes, bytes]:
        number = self._newest - group
        seed = hashlib.blake2b(f"{self.did}/{self.nsid}/{number}".encode(), digest_size=8)
        return {
            b"did": self.did.encode(),
            b"key": spell_base32(number, 5).encode(),
            b"salt": seed.hexdigest().encode().translate(_HEX_TO_BASE32),
            b"hour": _hour(number),
        }


@lru_cache(maxsize=65_536)
def _hour(group: int) -> bytes:
    return datetime.fromtimestamp(group * 2**30 / 1e6, UTC).strftime("%Y-%m-%dT%H").encode()
