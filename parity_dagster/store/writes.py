"""What a transaction of the writer does, in plain values.

What lives here: one pair's share of it, and how a walk ends. What must not: statements (`pages`, `walk_pages`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from parity_dagster.store.copy_text import Row
from parity_dagster.store.mapped import MappedRow
from parity_dagster.store.sessions import storable

Reject = tuple[str | None, str, str, bytes]
"""rkey if known, reason, detail, and the entry byte for byte."""


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


@dataclass(slots=True)
class PairWrite:
    """What one transaction does for one pair; the counts are absolute, for the walk so far."""

    state_id: int
    did: str
    collection: str
    pds: str | None
    rev: str | None
    """Revision to note on the state."""
    fence_rev: str
    """Revision that rows are marked with: a live event that is newer wins over this page."""
    walk: int
    pages: int
    cursor: str | None
    synced: int
    skipped: int
    failed: int
    attempts: int
    is_new_walk: bool
    """Whether the page rows of an earlier walk are to be dropped."""
    has_page_rows: bool
    """Whether page rows of this walk are in the table after this write, so that they can be counted."""
    is_counted: bool
    """Whether the counts are exact as they are: the walk's rkeys descend strictly, so that none came twice."""
    is_direct: bool
    """Whether the table is known to hold no record of the pair that these rows could meet."""
    is_fresh: bool
    """Whether no record of the pair was there when the walk began, so nothing can be left over from before."""
    rows: list[Row] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    page_rows: list[tuple[int, list[str], list[str]]] = field(default_factory=list)
    """Page number, stored rkeys and skipped rkeys of each page."""
    mapped: list[MappedRow] = field(default_factory=list)
    """Rows of the collection's own typed table, if it has a mapper with one."""
    ending: Ending | None = None
    fetched: bool = True
    """Whether anything was read in this run; listeners are told."""

    def state_columns(self) -> tuple[object, ...]:
        """The state row's new values, in the order in which `PageStore` writes them."""
        ending = self.ending
        if ending is None:
            end: tuple[object, ...] = ("in_progress", None, None, self.attempts, None)
        else:
            status = "completed" if ending.error is None else "failed"
            error = None if ending.error is None else storable(ending.error)
            end = (status, error, ending.error_code, self.attempts, ending.retry_in)
        return (
            self.state_id, self.pds, self.rev, self.walk, self.pages, self.cursor,
            self.synced, self.skipped, self.failed, *end,
        )  # fmt: skip


class LostClaim(Exception):
    """Some pairs of the batch belong to another importer now (or were reset); nothing was written.

    Attributes:
        state_ids: the rows.
    """

    def __init__(self, state_ids: set[int]) -> None:
        super().__init__(f"claims lost: {sorted(state_ids)}")
        self.state_ids = state_ids
