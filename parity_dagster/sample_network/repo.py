"""Repositories: accounts' collections of records, and every change to them."""

from __future__ import annotations

import copy
import re
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import merge

from parity_dagster.sample_network.accounts import make_tid
from parity_dagster.sample_network.blocks import record_block
from parity_dagster.sample_network.generated import Generated

_FIRST_REV = 1_750_000_000_000_000
_PER_WRITE = 1_000_000
_FIRST_WRITE = 1_600_000_000_000_000
_RKEY = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9._:~-]{1,512}")


@dataclass(slots=True)
class Record:
    """One record as its PDS holds it.

    Attributes:
        rkey: record key.
        cid: content identifier; None is left out of the list entry (Q33).
        value: JSON bytes of the value, sent as they are.
        entry: bytes sent instead of the whole list entry, or None.
        odd: the kind of oddity (see `odd`), empty for a well-formed record.
        copies: how often the record stands in its page, normally once.
        clock: number of the write that made it; later writes have greater numbers.
    """

    rkey: str
    cid: str | None
    value: bytes
    entry: bytes | None = None
    odd: str = ""
    copies: int = 1
    clock: int = 0

    def as_entry(self, repo: str, nsid: str) -> bytes:
        """Return the record as listRecords shows it."""
        if self.entry is not None:
            return self.entry
        cid = b"" if self.cid is None else b'"cid":"%b",' % self.cid.encode()
        return b'{"uri":"at://%b/%b/%b",%b"value":%b}' % (
            repo.encode(),
            nsid.encode(),
            self.rkey.encode(),
            cid,
            self.value,
        )


class Collection:
    """Records of one (did, collection): generated ones, and what was written on top of them."""

    __slots__ = ("_by_clock", "_clock", "_keys", "base", "gone", "own")

    def __init__(self, base: Generated) -> None:
        self.base = base
        self.own: dict[str, Record] = {}
        self.gone: set[str] = set()
        self._clock = base.count
        self._keys: list[str] | None = None
        self._by_clock: tuple[list[str], list[str]] | None = None

    @property
    def is_generated(self) -> bool:
        """True as long as nothing was written on top of the generated records."""
        return not self.own and not self.gone

    def keys(self) -> list[str]:
        """Return the record keys, least first."""
        if self._keys is None:
            self._keys = sorted(set(self.base.rkeys()) - self.gone | set(self.own))
        return self._keys

    def by_clock(self) -> tuple[list[str], list[str]]:
        """Return a TID per write and the record keys, both oldest write first."""
        if self._by_clock is None:
            made = [
                (self.base.count - index, rkey)
                for index, rkey in enumerate(self.base.rkeys())
                if rkey not in self.gone and rkey not in self.own
            ]
            made = sorted(made + [(record.clock, rkey) for rkey, record in self.own.items()])
            marks = [make_tid(_FIRST_WRITE + clock * 1000) for clock, _ in made]
            self._by_clock = marks, [rkey for _, rkey in made]
        return self._by_clock

    def get(self, rkey: str) -> Record | None:
        """Return a record, or None."""
        own = self.own.get(rkey)
        if own is not None or rkey in self.gone:
            return own
        index = self.base.index(rkey)
        if index is None:
            return None
        cid, value = self.base.record(index)
        return Record(rkey, cid, value, clock=self.base.count - index)

    def entries(self, rkeys: list[str]) -> list[bytes]:
        """List entries in the order wanted; runs of generated neighbours are rendered at once, joined with commas."""
        found: list[bytes] = []
        start = 0
        while start < len(rkeys):
            own = self.own.get(rkeys[start])
            stop = start + 1
            if own is not None:
                found += [own.as_entry(self.base.did, self.base.nsid)] * own.copies
            else:
                while stop < len(rkeys) and rkeys[stop] not in self.own:
                    stop += 1
                found += self._generated(rkeys[start:stop])
            start = stop
        return found

    def _generated(self, rkeys: list[str]) -> list[bytes]:
        first, last = self.base.index(rkeys[0]), self.base.index(rkeys[-1])
        if first is None or last is None:
            raise KeyError(rkeys[0] if first is None else rkeys[-1])
        if last - first == len(rkeys) - 1:
            return [self.base.entries(first, last + 1)]
        # Something between them was deleted, or the order is another one: halve until it fits.
        half = len(rkeys) // 2
        return self._generated(rkeys[:half]) + self._generated(rkeys[half:])

    def put(self, record: Record) -> None:
        """Create or replace a record; its `clock` is set here."""
        old = self.own.get(record.rkey)
        known = old is not None or self.base.index(record.rkey) is not None
        if record.rkey in self.gone or not known:
            self._clock += 1
            record.clock = self._clock
            if self._keys is not None:
                insort(self._keys, record.rkey)
        elif old is not None:
            record.clock = old.clock
        else:
            record.clock = self.base.count - (self.base.index(record.rkey) or 0)
        self.gone.discard(record.rkey)
        self.own[record.rkey] = record
        self._by_clock = None

    def delete(self, rkey: str) -> bool:
        """Delete a record."""
        if self.own.pop(rkey, None) is None and (rkey in self.gone or self.base.index(rkey) is None):
            return False
        if self.base.index(rkey) is not None:
            self.gone.add(rkey)
        if self._keys is not None:
            del self._keys[bisect_left(self._keys, rkey)]
        self._by_clock = None
        return True

    def __len__(self) -> int:
        shadowed = sum(1 for rkey in self.own if self.base.index(rkey) is not None)
        return self.base.count - len(self.gone) - shadowed + len(self.own)

    def blocks(self) -> Iterator[tuple[str, bytes]]:
        """Render what is held as the blocks of a repository: (rkey, block), least rkey first."""
        base = (pair for pair in self.base.blocks() if pair[0] not in self.gone and pair[0] not in self.own)
        own = ((rkey, record_block(record.value)) for rkey, record in sorted(self.own.items()))
        return merge(base, own)

    def records(self) -> dict[str, tuple[str | None, bytes]]:
        """Return rkey → (cid, value bytes) of everything held."""
        found: dict[str, tuple[str | None, bytes]] = dict(self.base.records())
        for rkey in self.gone:
            del found[rkey]
        found.update((rkey, (record.cid, record.value)) for rkey, record in self.own.items())
        return found


class Repo:
    """One account's repository on one host.

    A collection is a plain number (that many generated records) until somebody looks into it, so ten thousand
    accounts take a few megabytes.

    Args:
        clock: microseconds since the epoch, which revisions then tell as those of a real PDS do; by default each
            write is a second after the one before, so that all runs are alike.
    """

    __slots__ = ("_clock", "_collections", "_rev", "did", "status")

    def __init__(self, did: str, counts: dict[str, int], clock: Callable[[], int] | None = None) -> None:
        self.did = did
        self.status = "active"
        self._collections: dict[str, int | Collection] = dict(counts)
        self._clock = clock
        self._rev = clock() if clock else _FIRST_REV

    @property
    def rev(self) -> str:
        """Revision: a TID that grows with every write."""
        return self.rev_shifted(0)

    def rev_shifted(self, seconds: float) -> str:
        """Return the revision as a host would tell it whose clock is wrong."""
        return make_tid(self._rev + int(seconds * 1_000_000))

    def _advance(self) -> None:
        self._rev = max(self._rev + 1, self._clock()) if self._clock else self._rev + _PER_WRITE

    def set_clock(self, microseconds: int) -> None:
        """Let revisions go on from a time, be it an earlier one, as on a host whose clock was set."""
        self._rev = microseconds

    def nsids(self) -> list[str]:
        """Return the collections that hold records, sorted."""
        return sorted(nsid for nsid in self._collections if self.count(nsid))

    def count(self, nsid: str) -> int:
        """Return the number of records in a collection."""
        held = self._collections.get(nsid, 0)
        return held if isinstance(held, int) else len(held)

    def collection(self, nsid: str) -> Collection | Generated | None:
        """Return a collection for reading, or None if the repository has none of that name."""
        held = self._collections.get(nsid)
        if isinstance(held, int):
            return Generated(self.did, nsid, held)
        return held.base if held is not None and held.is_generated else held

    def blocks(self) -> Iterator[tuple[bytes, bytes]]:
        """Render the records as blocks: (collection/rkey, block), as their paths sort.

        Odd records are what is in the repository, however a list shows them. One whose record key is none is in no
        repository.
        """
        for nsid in sorted(self._collections, key=lambda nsid: nsid + "/"):
            held = self.collection(nsid)
            for rkey, block in held.blocks() if held is not None else ():
                if _RKEY.fullmatch(rkey):
                    yield f"{nsid}/{rkey}".encode(), block

    def writable(self, nsid: str) -> Collection:
        """Return a collection for writing or for reading in an unusual order; it is made if there is none."""
        held = self._collections.get(nsid, 0)
        if isinstance(held, int):
            held = self._collections[nsid] = Collection(Generated(self.did, nsid, held))
        return held

    def put(self, nsid: str, record: Record) -> None:
        """Create or replace a record and advance the revision."""
        self.writable(nsid).put(record)
        self._advance()

    def delete(self, nsid: str, rkey: str) -> bool:
        """Delete a record and advance the revision."""
        deleted = self.writable(nsid).delete(rkey)
        if deleted:
            self._advance()
        return deleted

    def next_rkey(self) -> str:
        """Return a TID greater than those of all generated records and earlier writes."""
        return make_tid(self._rev + _PER_WRITE, 7)

    def copy(self) -> Repo:
        """Return an independent copy, as an old host keeps one after a migration."""
        return copy.deepcopy(self)
