"""The events of an import: each is sent after the commit that made it true, endings at least once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from parity_dagster.models import ImportResult, ImportState


@dataclass(frozen=True, slots=True)
class ImportStarted:
    """A walk over one (did, collection) begins."""

    did: str
    collection: str
    pds: str
    """Origin of the server that is read."""
    cursor: str | None
    """Where the walk resumes; None from the start."""


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """A page has been committed; the counts are of the walk so far."""

    did: str
    collection: str
    pds: str
    cursor: str | None
    pages: int
    records_synced: int
    records_skipped: int
    records_failed: int


@dataclass(frozen=True, slots=True)
class ImportCompleted:
    """The list was read to its end, or had been before and was not read again."""

    result: ImportResult
    state: ImportState
    fetched: bool
    """False if nothing had to be read: the pair was complete already, or its repo had not changed."""
    seconds: float | None = None
    """Wall-clock time since its `ImportStarted`; None if this process sent none."""

    @property
    def did(self) -> str:
        """The account."""
        return self.state.did

    @property
    def collection(self) -> str:
        """The collection."""
        return self.state.collection


@dataclass(frozen=True, slots=True)
class ImportFailed:
    """The import of one (did, collection) ended with an error."""

    did: str
    collection: str
    error: str
    error_code: str
    result: ImportResult
    state: ImportState | None
    """The row; None if the pair never got one (a wrong argument), or if another importer holds it."""
    seconds: float | None = None
    """Wall-clock time since its `ImportStarted`; None if this process sent none."""


ImportEvent = ImportStarted | ImportProgress | ImportCompleted | ImportFailed
Listener = Callable[[ImportEvent], None]
"""Any callable that takes an event. One that raises is logged and never breaks an import."""
