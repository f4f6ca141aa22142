"""What a run says of itself while it works: how far it is, how fast, when it will be done, and who keeps it waiting."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from parity_dagster.events import ImportCompleted, ImportEvent, ImportFailed, ImportProgress, ImportStarted
from parity_dagster.models import Pair
from parity_dagster.store.freshness import age_text

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30.0


class RunProgress:
    """Counts events of a run, and makes a line of them.

    Args:
        pairs: how many are to be imported.
        clock: seconds, from any start.
    """

    def __init__(self, pairs: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._pairs = pairs
        self._clock = clock
        self._began = self._at = clock()
        self._ended = self._failed = self._gone = self._records = self._records_at = 0
        self._counted: dict[Pair, int | None] = {}
        self._hosts: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def __call__(self, event: ImportEvent) -> None:
        """Count one event."""
        pair = Pair(event.did, event.collection)
        with self._lock:
            if isinstance(event, ImportStarted):
                # what a resumed walk has committed before was counted by the run that did it
                self._counted[pair] = 0 if event.cursor is None else None
            elif isinstance(event, ImportProgress):
                now = event.records_synced + event.records_skipped + event.records_failed
                before = self._counted.get(pair)
                self._counted[pair] = now
                self._records += max(0, now - before) if before is not None else 0
            elif isinstance(event, ImportCompleted | ImportFailed):
                self._end(pair, event)

    def _end(self, pair: Pair, event: ImportCompleted | ImportFailed) -> None:
        self._ended += 1
        self._counted.pop(pair, None)
        if isinstance(event, ImportFailed):
            self._gone += event.result.is_gone
            self._failed += not event.result.is_gone
        elif event.seconds is not None and event.state.pds is not None and event.state.pages:
            seconds, pages = self._hosts.get(event.state.pds, (0.0, 0))
            self._hosts[event.state.pds] = (seconds + event.seconds, pages + event.state.pages)

    def line(self) -> str:
        """How far it is; the rate is that since the line before."""
        with self._lock:
            now = self._clock()
            rate = (self._records - self._records_at) / max(now - self._at, 1e-3)
            self._at, self._records_at = now, self._records
            besides = "".join(
                f", {count:,} {word}"
                for count, word in ((self._failed, "failed"), (self._gone, "of accounts that are gone"))
                if count
            )
            said = f"{self._ended:,} of {self._pairs:,} pairs{besides}, {self._records:,} records, {rate:,.0f}/s"
            if self._ended:
                left = max(0.0, (self._pairs - self._ended) * (now - self._began) / self._ended)
                said += f", about {age_text(left) if left >= 120 else f'{left:.0f} s'} left"
            if self._hosts:
                host, (seconds, pages) = max(self._hosts.items(), key=lambda item: item[1][0] / item[1][1])
                said += f"; slowest host: {host} ({seconds / pages:.1f} s per page)"
            return said


@contextmanager
def saying(
    say: Callable[[str], object], progress: RunProgress, seconds: float = SECONDS_BETWEEN_LINES
) -> Iterator[None]:
    """Say every so often how far a run is, as long as the context is open, whether anything happens or not."""
    is_over = threading.Event()

    def go_on() -> None:
        while not is_over.wait(seconds):
            try:
                say(progress.line())
            except Exception:  # a database that is away for a moment must not end all further lines
                logger.warning("a line about the run's progress could not be written", exc_info=True)

    thread = threading.Thread(target=go_on, name="parity-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
