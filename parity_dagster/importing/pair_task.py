"""One claimed pair on its way through an import.

The first half belongs to the walk, the second to the writer; pages travel between them in order.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from parity_dagster.atproto.pages import FailedEntry
from parity_dagster.errors import CursorLoop, PagesMissing
from parity_dagster.models import ImportStatus, WalkPosition
from parity_dagster.store.copy_text import Row
from parity_dagster.store.live import STAND_IN_END
from parity_dagster.store.mapper_tables import MappedRow
from parity_dagster.store.states import Claim
from parity_dagster.store.writes import Counts, Ending

CLOCK_MARGIN = timedelta(minutes=5)
"""How much a host's clock may differ from ours without an event of the moment being lost."""
_TID_ALPHABET = "234567abcdefghijklmnopqrstuvwxyz"


@dataclass(slots=True)
class FetchedPage:
    """A page on its way to the writer."""

    task: PairTask
    position: WalkPosition
    """Where the walk stands after this page."""
    rows: list[Row]
    failed: list[FailedEntry]
    body: bytes
    """The page as it came, of which an entry that Postgres refuses is kept byte for byte."""
    skipped: list[str] = field(default_factory=list)
    mapped: list[MappedRow] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self.body)


@dataclass(slots=True)
class WalkEnd:
    """The last thing a walk sends."""

    task: PairTask
    position: WalkPosition
    ending: Ending
    attempts: int


@dataclass(slots=True)
class PairTask:
    """A pair that this importer has claimed."""

    claim: Claim
    here: WalkPosition
    """Where the walk stands."""
    saved: WalkPosition
    """Where it stood at the last commit."""
    counts: Counts
    """Of the walk, at the last commit."""
    started_at: float | None = None
    """Monotonic time of its `ImportStarted`."""
    done: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when its ending was sent; the writer takes nothing more of the pair then."""

    # The walk's side.
    last_keys: frozenset[str] = frozenset()
    read: int = 0
    """Bytes of pages read in this run."""
    shows_nothing: bool = True
    """Whether the page read last held no entry at all, as far as is known."""
    blank: list[FetchedPage] = field(default_factory=list)
    """Pages without an entry, not handed on before one with an entry follows, or the end is believed."""
    before_blank: WalkPosition = field(default_factory=WalkPosition)
    """Where the walk stood before them."""

    # The writer's side.
    last_rkey: str | None = None
    """The last one stored, as long as every rkey of the walk was less than the one before; None if one was not."""
    is_direct: bool = False
    is_started: bool = False

    @classmethod
    def from_claim(cls, claim: Claim) -> PairTask:
        """A task that stands where the row says the last importer stopped."""
        state = claim.state
        return cls(
            claim,
            here=state.position,
            saved=state.position,
            counts=Counts(state.records_synced, state.records_skipped, state.records_failed),
            # A first walk that is resumed meets only what it wrote itself, further up the list.
            is_direct=claim.is_fresh or (state.walk == 1 and state.status is not ImportStatus.COMPLETED),
        )

    @property
    def did(self) -> str:
        """The account."""
        return self.claim.state.did

    @property
    def collection(self) -> str:
        """The collection."""
        return self.claim.state.collection

    @property
    def pds(self) -> str:
        """The host that the walk, which has begun, reads from."""
        assert self.here.pds is not None
        return self.here.pds

    @property
    def has_progress(self) -> bool:
        """Whether this run has brought any page."""
        state = self.claim.state
        return self.here.pages - len(self.blank) > (state.pages if self.here.walk == state.walk else 0)

    @property
    def seconds(self) -> float | None:
        """Wall-clock time since its `ImportStarted`."""
        return None if self.started_at is None else time.monotonic() - self.started_at

    def can_continue(self, pds: str) -> bool:
        """Whether the walk can go on where the last one stopped.

        A cursor means nothing to another host, nor does one of a circle, and records of an account that was inactive
        must be read again. Without a cursor the walk may have been at its end already. Either way its page rows have
        to be there, which the caller asks.
        """
        state = self.claim.state
        return (
            state.status is not ImportStatus.COMPLETED
            and (bool(self.here.cursor) or (self.here.pages > 0 and self.here.seen > 0))
            and self.here.pds == pds
            and self.here.fence_rev is not None
            and state.error_code not in (CursorLoop.code, PagesMissing.code)
            and self.here.source == "list"
        )

    # I7
    def begin(self, pds: str, rev: str | None, known_rev: str | None) -> None:
        """Start a walk from the top of the list, before its first page is asked for.

        Its rows are marked with the repository's revision. If the host does not say it, the time stands in, because
        revisions are TIDs, and TIDs are times; a little earlier, because the host's clock is another one. A mark
        that is too low lets a replayed event through; one that is too high would lose an event.

        Whatever is known of the pair by now is older than the pages to come, so that a host that was restored from a
        backup, or whose clock is slow, does not lock out its own newer records.

        Args:
            rev: the repository's revision, read before its first page.
        """
        fence_rev = max(rev or stand_in(), known_rev or "")
        self.here = WalkPosition(self.here.walk + 1, pds, rev, fence_rev)
        self.last_keys = frozenset()

    # I7
    def begin_archive(self, pds: str, rev: str, fence_rev: str, commit: str) -> None:
        """Start a walk over a verified archive, which is the whole list as of a revision.

        Args:
            fence_rev: what its rows are marked with: `rev`, or a greater one that the archive is known to be as new as.
            commit: CID of the commit.
        """
        self.here = WalkPosition(self.here.walk + 1, pds, rev, fence_rev, source="repo", commit=commit)
        self.last_keys = frozenset()

    def forget_blank(self) -> None:
        """Go back to before the pages that showed nothing: they are asked for again."""
        if self.blank:
            self.here = self.before_blank
            self.blank.clear()

    # I10
    def forget_rev(self) -> None:
        """Have the next refresh look again whatever the revision: the list has become empty, and an index that is being
        rebuilt shows nothing, too."""
        self.here = replace(self.here, rev=None)
        for page in self.blank:
            page.position = replace(page.position, rev=None)

    def return_to(self, position: WalkPosition) -> None:
        """Forget a walk that was begun and has not brought a single page, so that what came before is not lost."""
        self.forget_blank()
        if position.walk and self.here.walk != position.walk and self.here.pages == 0:
            self.here = position


def tid_of(moment: datetime) -> str:
    """The TID of a moment, clock identifier 0.

    Source: AT Protocol record key specification, "TID".
    """
    number = int(moment.timestamp() * 1_000_000) << 10
    return "".join(_TID_ALPHABET[number >> shift & 31] for shift in range(60, -1, -5))


# I7
def stand_in() -> str:
    """What stands in for the revision that a host does not tell: the time, a little earlier, and marked as such.

    It is later than most revisions. An archive whose revision is less would seem to be older than what is held.
    """
    return tid_of(datetime.now(UTC) - CLOCK_MARGIN)[: -len(STAND_IN_END)] + STAND_IN_END
