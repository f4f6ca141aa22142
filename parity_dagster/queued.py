"""Queueing imports from Python: one call, and a handle that tells what became of it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from parity_dagster.models import ImportResult, ImportState, ImportStatus, Pair
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings, load_settings

POLL_SECONDS = 0.5
"""Pause between two looks of `QueuedImport.wait`."""


@dataclass(frozen=True)
class QueuedImport:
    """What was queued. May be kept, pickled or sent to another process; every look asks the database anew."""

    did: str
    """The account; a DID, also if a handle was given."""
    pairs: tuple[Pair, ...]
    """Everything that was asked for."""
    queued: tuple[Pair, ...]
    """Those of `pairs` that this call made pending; the others are complete, pending or being imported already."""
    settings: Settings | None = field(default=None, repr=False)
    """How to reach the database; read from `PARITY_*` variables if None."""

    def states(self) -> list[ImportState]:
        """The rows of the pairs.

        Returns:
            One state per pair, by collection; a pair that was reset meanwhile has none.

        Raises:
            DatabaseError: there is no database to ask.
        """
        with ImportService(self.settings, report=False) as service:
            return self._look(service)

    def status(self) -> ImportStatus:
        """One word for all pairs.

        Returns:
            `in_progress` if any pair is being imported, else `pending` if any waits (also: to be tried again after
            an error that may pass), else `failed` if any failed, else `completed`.

        Raises:
            DatabaseError: there is no database to ask.
        """
        return _status(self.states(), len(self.pairs))

    def wait(self, timeout: float | None = None) -> ImportResult:
        """Wait until every pair is complete, or has failed for good.

        Args:
            timeout: seconds; None waits as long as it takes.

        Returns:
            The sum over the pairs; its `collection` is `*` unless a single pair was queued.

        Raises:
            TimeoutError: it took longer; the import goes on.
            DatabaseError: there is no database to ask.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with ImportService(self.settings, report=False) as service:
            while True:
                states = self._look(service)
                if _status(states, len(self.pairs)) in (ImportStatus.COMPLETED, ImportStatus.FAILED):
                    results = [ImportResult.from_state(state) for state in states]
                    return results[0] if len(self.pairs) == 1 else ImportResult.aggregate(self.did, results)
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError(f"the import of {self.did} is not done after {timeout:g} s")
                time.sleep(POLL_SECONDS if deadline is None else min(POLL_SECONDS, deadline - time.monotonic()))

    def _look(self, service: ImportService) -> list[ImportState]:
        wanted = set(self.pairs)
        return [state for state in service.get_status_for_user(self.did) if state.pair in wanted]


class ImportUserJob:
    """atp-parity's job: imports an account in the background."""

    @staticmethod
    def dispatch(
        did: str,
        collection: str | Iterable[str] | None = None,
        *,
        refresh: bool = False,
        reread: bool = False,
        settings: Settings | None = None,
    ) -> QueuedImport:
        """Queue the import of an account; the daemon's sensor launches it in a Dagster run within seconds.

        Args:
            did: a DID or a handle.
            collection: one registered NSID or several; all registered ones if not given.
            refresh: read complete pairs again, too.
            reread: read all of them from their start, even if the account has not changed.
            settings: which database and collections; read from `PARITY_*` variables if not given.

        Returns:
            A handle to ask for the status.

        Raises:
            InvalidIdentifier: not a DID, handle or NSID.
            CollectionNotRegistered: the collection is not one of `PARITY_COLLECTIONS`.
            HandleNotFound, TransientError: the handle could not be resolved.
            DatabaseError: there is no database to queue in.
        """
        settings = settings or load_settings()
        if collection is None:
            wanted: Iterable[str] = settings.collections
        else:
            wanted = (collection,) if isinstance(collection, str) else collection
        with ImportService(settings, report=False) as service:
            account = service.resolve(did)
            pairs = tuple(sorted({Pair(account, nsid) for nsid in wanted}))
            queued = service.enqueue(pairs, refresh=refresh, reread=reread)
        return QueuedImport(account, pairs, tuple(sorted(queued)), settings)


def _status(states: list[ImportState], wanted: int) -> ImportStatus:
    found = {state.status for state in states}
    if ImportStatus.IN_PROGRESS in found:
        return ImportStatus.IN_PROGRESS
    will_retry = any(state.status is ImportStatus.FAILED and state.next_attempt_at is not None for state in states)
    if ImportStatus.PENDING in found or will_retry or len(states) < wanted:
        return ImportStatus.PENDING
    return ImportStatus.FAILED if ImportStatus.FAILED in found else ImportStatus.COMPLETED
