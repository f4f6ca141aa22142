"""What a transaction of the writer does, in plain values."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple

from parity_dagster.errors import Reason
from parity_dagster.models import POSITION_COLUMNS, WalkPosition
from parity_dagster.store.copy_text import Row
from parity_dagster.store.mapper_tables import MappedRow
from parity_dagster.text import storable

FailedRow = tuple[str | None, Reason, str, bytes]
"""rkey if known, reason, detail, and the entry byte for byte."""


def fingerprint(body: bytes) -> str:
    """What a failed record is known by: its SHA-256."""
    return hashlib.sha256(body).hexdigest()


class PageRow(NamedTuple):
    """What a page showed."""

    page: int
    rkeys: list[str]
    skipped: list[str]
    """rkeys that a mapper declined."""
    failed: list[str]
    """Fingerprints of the records that could not be stored."""


class Counts(NamedTuple):
    """What became of the records of a walk so far."""

    synced: int = 0
    skipped: int = 0
    failed: int = 0

    def plus(self, synced: int, skipped: int, failed: int) -> Counts:
        """These and some more."""
        return Counts(self.synced + synced, self.skipped + skipped, self.failed + failed)


@dataclass(slots=True)
class Ending:
    """How a walk ends."""

    error: str | None = None
    """None if it completed."""
    error_code: str | None = None
    retry_in: float | None = None
    """Seconds until the retry sensor may act; None for never."""
    deactivate: bool = False
    """The account is not active: its records must not be shown."""
    is_unchanged: bool = False
    """Nothing was read, because the copy is complete as it is: neither records nor counts are touched."""


@dataclass(slots=True)
class PairWrite:
    """What one transaction does for one pair."""

    state_id: int
    did: str
    collection: str
    position: WalkPosition
    counts: Counts
    attempts: int
    is_new_walk: bool
    """Whether the page rows of an earlier walk are to be dropped."""
    is_counted: bool
    """Whether the counts are exact as they are: the walk's rkeys descend strictly, so that none came twice."""
    is_direct: bool
    """Whether the table is known to hold no record of the pair that these rows could meet."""
    is_fresh: bool
    """Whether no record of the pair was there when the walk began, so nothing can be left over from before."""
    is_reread: bool = False
    """Whether everything is read as if nothing were known."""
    rows: list[Row] = field(default_factory=list)
    failed_rows: list[FailedRow] = field(default_factory=list)
    page_rows: list[PageRow] = field(default_factory=list)
    is_at_once: bool = False
    """The walk began and ended in this transaction, nothing was there before, and nothing came twice: there is nothing
    to count or to sweep, and no need for page rows."""
    mapped: list[MappedRow] = field(default_factory=list)
    """Rows of the collection's own typed table, if it has a mapper with one."""
    ending: Ending | None = None
    fetched: bool = True
    """Whether this importer read anything of the pair; a field of the event."""

    @property
    def completes(self) -> bool:
        """Whether this ends a walk whose list was read to its end."""
        return self.ending is not None and self.ending.error is None and not self.ending.is_unchanged

    @property
    def compares_values(self) -> bool:
        """Whether rows whose cid the table holds already are compared with it, value by value.

        A commit vouches for values; the table may have a cid from a list, which nobody has checked against its record.
        """
        return self.is_reread or self.position.commit is not None

    def values(self) -> dict[str, object]:
        """What the state row gets, by column; `retry_in` becomes its `next_attempt_at`."""
        ending = self.ending or Ending()
        is_over = self.ending is not None
        status = "in_progress" if not is_over else "completed" if ending.error is None else "failed"
        return {
            "id": self.state_id,
            **{name: getattr(self.position, name) for name in POSITION_COLUMNS},
            "records_synced": self.counts.synced,
            "records_skipped": self.counts.skipped,
            "records_failed": self.counts.failed,
            "status": status,
            "error": None if ending.error is None else storable(ending.error),
            "error_code": ending.error_code,
            "attempts": self.attempts,
            "retry_in": ending.retry_in,
        }


class UnprovenEnding(Exception):
    """Walks of the batch claim to be complete and their page rows are not all there; nothing was written."""

    def __init__(self, state_ids: set[int]) -> None:
        super().__init__(f"page rows missing: {sorted(state_ids)}")
        self.state_ids = state_ids


class LostClaim(Exception):
    """Some pairs of the batch belong to another importer now (or were reset); nothing was written."""

    def __init__(self, state_ids: set[int]) -> None:
        super().__init__(f"claims lost: {sorted(state_ids)}")
        self.state_ids = state_ids
