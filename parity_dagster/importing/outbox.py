"""How events get from an import to its listeners: a queue that stays small, and the outbox for endings.

The transaction that makes an ending true puts it into the outbox, a table; when every listener was called it is dropped
there. What a process leaves behind that is killed in between, the next service delivers.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from threading import Condition
from typing import TYPE_CHECKING

from parity_dagster.errors import ParityError
from parity_dagster.events import (
    ImportCompleted,
    ImportEvent,
    ImportFailed,
    ImportProgress,
    ImportStarted,
)
from parity_dagster.models import ImportResult, ImportStatus, Pair
from parity_dagster.store.outbox import Delivered, Pending, Recipients, drop_delivered, drop_reset, find_pending

if TYPE_CHECKING:
    from parity_dagster.importing.listeners import Listeners
    from parity_dagster.store.sessions import SyncSession

logger = logging.getLogger(__name__)
events_logger = logging.getLogger("parity_dagster.events")
"""Every event is logged here, progress at DEBUG and the others at INFO, with its fields as `extra`."""

CROWDED = 1_000
"""Waiting events beyond which only the newest progress of a pair is kept."""
CLEAR_AFTER = 500
"""Endings delivered after which they are dropped from the outbox, in one statement."""
CLEAR_SECONDS = 2.0
CLEARING_PATIENCE = 5.0
"""Seconds that it may wait for a database that went away: what was delivered can be dropped later."""
PENDING_CHUNK = 500


class _Held:
    """The place in the queue where a pair's newest progress will be delivered."""

    __slots__ = ("event",)

    def __init__(self, event: ImportProgress) -> None:
        self.event = event


class EventQueue:
    """Events on their way from the loop's thread to the caller's, in order.

    `put` never waits: a listener that is slow, or stuck, does not hold up the import. So that it does not fill the
    memory either, a crowded queue keeps one progress event per pair, the newest.
    """

    def __init__(self) -> None:
        self._items: deque[ImportEvent | _Held | None] = deque()
        self._held: dict[Pair, _Held] = {}
        self._filled = Condition()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, event: ImportEvent) -> None:
        """Add an event."""
        pair = Pair(event.did, event.collection)
        with self._filled:
            if not isinstance(event, ImportProgress):
                # What comes now is delivered after the progress that is held, and later progress after this.
                self._held.pop(pair, None)
                self._items.append(event)
            elif len(self._items) < CROWDED:
                self._items.append(event)
            elif (held := self._held.get(pair)) is not None:
                held.event = event
                return
            else:
                self._held[pair] = held = _Held(event)
                self._items.append(held)
            self._filled.notify()

    def close(self) -> None:
        """Nothing more will come."""
        with self._filled:
            self._items.append(None)
            self._filled.notify()

    def wait(self, seconds: float | None) -> bool:
        """Whether there is something to get within that time."""
        with self._filled:
            return self._filled.wait_for(lambda: bool(self._items), seconds)

    def get(self) -> ImportEvent | None:
        """Wait for the next event; None when the queue was closed and is empty."""
        with self._filled:
            while not self._items:
                self._filled.wait()
            item = self._items.popleft()
            if not isinstance(item, _Held):
                return item
            pair = Pair(item.event.did, item.event.collection)
            if self._held.get(pair) is item:
                del self._held[pair]
            return item.event


class Delivery:
    """Calls the listeners of one import, and drops from the outbox what they know.

    Args:
        recipients: those of the outbox that these listeners stand for.
    """

    def __init__(
        self,
        session: SyncSession,
        table: str,
        listeners: Listeners,
        recipients: Recipients,
        run_id: str | None = None,
    ) -> None:
        self._recipients = recipients
        self._run_id = run_id
        self._session = session
        self._table = table
        self._listeners = listeners
        self._delivered: list[Delivered] = []
        self._clear_at = time.monotonic() + CLEAR_SECONDS

    @property
    def is_cleared(self) -> bool:
        """Whether everything that was delivered is out of the outbox."""
        return not self._delivered

    @property
    def patience(self) -> float | None:
        """Seconds after which the outbox is to be cleared although nothing else ends; None if it is."""
        return max(self._clear_at - time.monotonic(), 0.0) if self._delivered else None

    def deliver(self, event: ImportEvent) -> None:
        """Call the listeners."""
        _log(event, self._run_id)
        self._listeners.notify(event)
        if isinstance(event, ImportCompleted | ImportFailed) and event.state is not None:
            self._delivered.append(Delivered(event.did, event.collection, event.state.updated_at))
        if self._delivered and (len(self._delivered) >= CLEAR_AFTER or time.monotonic() >= self._clear_at):
            self.clear_outbox()

    def clear_outbox(self) -> None:
        """Let listeners that collect events deliver, and drop all endings so far from the outbox; never raises."""
        self._clear_at = time.monotonic() + CLEAR_SECONDS
        if not self._listeners.flush() or not self._delivered:
            return
        delivered = self._delivered
        try:
            if any(self._recipients):
                self._session.run(
                    lambda conn: drop_delivered(conn, self._table, delivered, self._recipients),
                    patience=CLEARING_PATIENCE,
                )
        except ParityError as exc:
            logger.warning("listeners know of %d endings, but it could not be noted (%s)", len(delivered), exc)
        else:
            self._delivered = []


def deliver_pending(session: SyncSession, table: str, listeners: Listeners) -> int:
    """Deliver the endings of processes that were killed before they could."""
    count = 0
    while True:
        endings = session.run(lambda conn: find_pending(conn, table, PENDING_CHUNK))
        delivery = Delivery(session, table, listeners, Recipients(listeners=True, dagster=False))
        for ending in endings:
            delivery.deliver(_event(ending))
        delivery.clear_outbox()
        count += len(endings)
        if len(endings) < PENDING_CHUNK or not delivery.is_cleared:
            session.run(lambda conn: drop_reset(conn, table))
            return count


def _event(ending: Pending) -> ImportCompleted | ImportFailed:
    state = ending.state
    result = ImportResult.from_state(state)
    if state.status is ImportStatus.COMPLETED:
        return ImportCompleted(result, state, ending.fetched)
    return ImportFailed(state.did, state.collection, state.error or "", state.error_code or "", result, state)


def _log(event: ImportEvent, run_id: str | None) -> None:
    level = logging.DEBUG if isinstance(event, ImportProgress) else logging.INFO
    if not events_logger.isEnabledFor(level):
        return
    fields: dict[str, object] = {
        "event": type(event).__name__, "did": event.did, "collection": event.collection, "run_id": run_id,
    }  # fmt: skip
    counts: ImportProgress | ImportResult | None = None
    if isinstance(event, ImportStarted):
        text = f"reading {event.collection} of {event.did} from {event.pds}"
        fields["pds"] = event.pds
    elif isinstance(event, ImportProgress):
        text = f"page {event.pages} of {event.collection} of {event.did} committed"
        fields |= {"pds": event.pds, "pages": event.pages}
        counts = event
    elif isinstance(event, ImportCompleted):
        text = f"{event.collection} of {event.did} is complete"
        fields |= {"pds": event.state.pds, "pages": event.state.pages}
        counts = event.result
    else:
        text = f"{event.collection} of {event.did} failed: {event.error}"
        fields |= {"pds": event.state.pds if event.state else None, "error_code": event.error_code}
        counts = event.result
    if counts is not None:
        names = ("records_synced", "records_skipped", "records_failed")
        fields |= {name: getattr(counts, name) for name in names}
    events_logger.log(level, "%s", text, extra=fields)
