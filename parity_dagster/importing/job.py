"""One claimed pair on its way through a run.

What lives here: what a walk must remember, and what has been committed of it. What must not: reading or writing.
The first half belongs to the walk, the second to the writer; pages travel between them in order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from parity_dagster.atproto.pages import RejectedRecord
from parity_dagster.errors import CursorLoop
from parity_dagster.importing.models import ImportStatus
from parity_dagster.store.copy_text import Row
from parity_dagster.store.mapped import MappedRow
from parity_dagster.store.states import Claim
from parity_dagster.store.writes import Ending

ACCOUNT_CODES = frozenset({"deactivated", "takendown", "suspended", "deleted", "account_unavailable"})
_TID_ALPHABET = "234567abcdefghijklmnopqrstuvwxyz"


@dataclass(slots=True)
class PageItem:
    """A page on its way to the writer."""

    job: Job
    walk: int
    page: int
    pds: str
    rev: str | None
    cursor: str | None
    rows: list[Row]
    rejects: list[RejectedRecord]
    skipped: list[str]
    size: int
    body: bytes
    """The page as it came, of which an entry that Postgres refuses is kept byte for byte."""
    mapped: list[MappedRow] = field(default_factory=list)


@dataclass(slots=True)
class EndItem:
    """The last thing a walk sends."""

    job: Job
    walk: int
    ending: Ending
    attempts: int
    size: int = 0


class Place(NamedTuple):
    """How far a walk has come."""

    walk: int
    pds: str | None
    rev: str | None
    cursor: str | None
    pages: int
    seen: int


@dataclass(slots=True)
class Job:
    """A pair that this run has claimed."""

    claim: Claim
    report_done: Callable[[], None] = lambda: None

    # The walk's side.
    walk: int = 0
    pds: str | None = None
    rev: str | None = None
    cursor: str | None = None
    pages: int = 0
    last_keys: frozenset[str] = frozenset()
    seen: int = 0
    """Records seen in this walk, those before a resume included."""
    is_stopped: bool = False
    """The writer cannot take any more of this pair."""

    # The writer's side: what is committed.
    saved_walk: int = 0
    saved_pages: int = 0
    saved_cursor: str | None = None
    synced: int = 0
    skipped: int = 0
    failed: int = 0
    has_page_rows: bool = False
    last_rkey: str | None = None
    """The last one stored, as long as every rkey of the walk was less than the one before; None if one was not."""
    is_direct: bool = False
    is_started: bool = False
    fences: dict[int, str] = field(default_factory=dict)

    @classmethod
    def from_claim(cls, claim: Claim) -> Job:
        """A job that stands where the row says the last importer stopped.

        Args:
            claim: a claim that is mine.

        Returns:
            The job.
        """
        state = claim.state
        return cls(
            claim,
            walk=state.walk,
            pds=state.pds,
            rev=state.rev,
            cursor=state.cursor,
            pages=state.pages,
            seen=state.records_synced + state.records_skipped + state.records_failed,
            saved_walk=state.walk,
            saved_pages=state.pages,
            saved_cursor=state.cursor,
            synced=state.records_synced,
            skipped=state.records_skipped,
            failed=state.records_failed,
            has_page_rows=state.pages > 0 and state.status is not ImportStatus.COMPLETED,
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

    def can_continue(self, pds: str) -> bool:
        """Whether the walk can go on where the last one stopped.

        A cursor means nothing to another host, nor does one of a circle, and records of an account that was inactive
        must be read again. Without
        a cursor the walk may have been at its end already, which its page rows tell.

        Args:
            pds: the account's present host.

        Returns:
            Whether the cursor is good.
        """
        state = self.claim.state
        return (
            state.status is not ImportStatus.COMPLETED
            and (bool(self.cursor) or (self.pages > 0 and self.seen > 0))
            and self.pds == pds
            and state.error_code not in ACCOUNT_CODES
            and state.error_code != CursorLoop.code
        )

    def begin(self, pds: str, rev: str | None) -> None:
        """Start a walk from the top of the list.

        Args:
            pds: the host that will be read.
            rev: the repository's revision, read before its first page.
        """
        self.walk += 1
        self.pds, self.rev = pds, rev
        self.cursor, self.pages, self.seen = None, 0, 0
        self.last_keys = frozenset()

    def place(self) -> Place:
        """Where the walk stands."""
        return Place(self.walk, self.pds, self.rev, self.cursor, self.pages, self.seen)

    def return_to(self, place: Place) -> None:
        """Forget a walk that was begun and has not brought a single page, so that what came before is not lost.

        Args:
            place: where the walk before it stood.
        """
        if place.walk and self.walk != place.walk and self.pages == 0:
            self.walk, self.pds, self.rev, self.cursor, self.pages, self.seen = place

    def fence(self, walk: int, rev: str | None) -> str:
        """The revision that rows of a walk are marked with.

        Without one from the host, the time at which the walk began stands in: revisions are TIDs, and TIDs are times.

        Args:
            walk: which walk.
            rev: the revision the host gave.

        Returns:
            A TID.
        """
        state = self.claim.state
        own = rev
        if own is None:
            if walk not in self.fences:
                resumed = walk == state.walk and state.started_at is not None
                self.fences[walk] = tid_of(state.started_at if resumed and state.started_at else datetime.now(UTC))
            own = self.fences[walk]
        if walk == state.walk or state.walk == 0:
            return own
        # A host that was restored from a backup, or whose clock is slow, must not lock out its own newer records.
        return max(own, state.rev or tid_of(state.updated_at))


def tid_of(moment: datetime) -> str:
    """The TID of a moment, clock identifier 0.

    Args:
        moment: an aware time.

    Returns:
        13 characters.

    Source: AT Protocol record key specification, "TID".
    """
    number = int(moment.timestamp() * 1_000_000) << 10
    return "".join(_TID_ALPHABET[number >> shift & 31] for shift in range(60, -1, -5))
