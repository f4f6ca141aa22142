"""Reports imports that run outside of Dagster to the Dagster instance.

Dagster is loaded in the background while the import fetches its first pages.

A pair that ends is a materialization or an observation like that of a run, without a run. An import is never
broken by its report. What cannot be written is kept and tried again with the next batch; `flush` raises, so that
the service knows (it notes in the database which endings are not delivered, for the next process to deliver).
"""

from __future__ import annotations

import importlib
import threading
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from parity_dagster.errors import TransientError
from parity_dagster.events import ImportCompleted, ImportEvent, ImportFailed, ImportStarted
from parity_dagster.models import ImportState, Pair
from parity_dagster.settings import Settings

if TYPE_CHECKING:
    import dagster as dg

BATCH_SIZE = 500
"""Pairs reported at once, at most; a full batch is written while the import goes on."""


class ReportDelayed(TransientError):
    """What was imported is not shown in Dagster yet."""

    code = "report_delayed"


class DagsterReporter:
    """A listener that reports to the Dagster instance how each pair ended, in batches.

    Safe to be called from several threads.
    """

    def __init__(self, instance: dg.DagsterInstance | None = None, settings: Settings | None = None) -> None:
        self._instance = instance
        self._settings = settings
        self._owns_instance = instance is None
        self._ended: list[_Ended] = []
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._loading: threading.Thread | None = None

    def __call__(self, event: ImportEvent) -> None:
        """Take note of an event."""
        if isinstance(event, ImportStarted):
            self._load_dagster()
        if not isinstance(event, ImportCompleted | ImportFailed) or event.state is None:
            return
        with self._lock:
            self._ended.append(_Ended(event.state, isinstance(event, ImportFailed) or event.fetched))
            is_full = len(self._ended) % BATCH_SIZE == 0
        if is_full:
            # the service calls flush in the end, too, and wants to know then
            with suppress(ReportDelayed):
                self.flush()

    def flush(self) -> None:
        """Report everything that ended and is not reported yet; what fails (`ReportDelayed`) is kept for the next."""
        with self._writing:
            with self._lock:
                ended = self._ended[:]
            if not ended:
                return
            try:
                self._report(ended)
            except Exception as exc:  # noqa: BLE001 - whatever is wrong with Dagster must not break an import
                reason = next(iter(str(exc).splitlines()), "") or type(exc).__name__
                raise ReportDelayed(
                    f"{len(ended):,} imported pairs are not shown in Dagster yet ({reason}); "
                    "they will be by the next import that reaches it"
                ) from None
            with self._lock:
                del self._ended[: len(ended)]

    def close(self) -> None:
        """Report what is left, if possible, and let go of the instance."""
        with suppress(ReportDelayed):
            self.flush()
        with self._writing:
            if self._owns_instance and self._instance is not None:
                self._instance.dispose()
                self._instance = None

    def _load_dagster(self) -> None:
        with self._lock:
            if self._loading is None:
                self._loading = threading.Thread(
                    target=importlib.import_module, args=("dagster",), name="load-dagster", daemon=True
                )
                self._loading.start()

    def _report(self, ended: list[_Ended]) -> None:
        from parity_dagster.orchestration.partitions import register_dids
        from parity_dagster.orchestration.step_events import report_without_run

        if self._instance is None:
            from parity_dagster.dagster_instance.storage import parity_instance

            self._instance = parity_instance(self._settings)
        register_dids(self._instance, (state.did for state, _ in ended))
        known = _known(self._instance, [state for state, is_news in ended if not is_news])
        report_without_run(self._instance, [state for state, is_news in ended if is_news or state.pair not in known])


class _Ended(NamedTuple):
    state: ImportState
    is_news: bool
    """Something was read or has failed; a pair that was complete already is reported only if Dagster has it wrong."""


def _known(instance: dg.DagsterInstance, unread: list[ImportState]) -> set[Pair]:
    """Of pairs that were not read, those that Dagster remembers exactly so: written again, they would only fill its
    log, with an event per pair for each import of the same list."""
    from parity_dagster.dagster_instance.keys import to_partition_key
    from parity_dagster.orchestration.rebuild import remembered_states

    known: set[Pair] = set()
    for start in range(0, len(unread), BATCH_SIZE):
        now = {state.pair: state for state in unread[start : start + BATCH_SIZE]}
        remembered = remembered_states(instance, {to_partition_key(pair) for pair in now})
        known.update(state.pair for state in remembered if now.get(state.pair) == state)
    return known


@cache
def reporter(settings: Settings) -> DagsterReporter:
    """The reporter for imports under given settings; the entry point group `parity_dagster.reporters` names it.

    It reports to the instance on the same database, unless DAGSTER_HOME names another. There is one per process and
    settings, so that Dagster is set up once.
    """
    return DagsterReporter(settings=settings)
