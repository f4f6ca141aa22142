"""Dagster learns of what was imported outside of its runs, and of what a killed run did not get to write down.

An import leaves each ending in the outbox and is done, so that nobody who imports loads Dagster. A sensor of the
daemon, or `parity report`, makes of them what a run would have made: partitions, materializations, observations.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import dagster as dg
from psycopg import Connection

from parity_dagster.dagster_instance.event_log import ParityEventLogStorage
from parity_dagster.dagster_instance.events import BATCH_SIZE
from parity_dagster.dagster_instance.keys import to_partition_key
from parity_dagster.models import ImportState, Pair
from parity_dagster.orchestration.partitions import register_dids, register_within
from parity_dagster.orchestration.rebuild import remembered_states
from parity_dagster.orchestration.step_events import report_without_run
from parity_dagster.settings import Settings
from parity_dagster.store.outbox import (
    Delivered,
    Recipients,
    drop_delivered,
    drop_reset,
    find_unreported,
    have_all_reported,
    lock_reporting,
    take_named_accounts,
)
from parity_dagster.store.sessions import SyncSession
from parity_dagster.store.state_tables import regclass

DAGSTER = Recipients(listeners=False, dagster=True)
PATIENCE = 5.0
"""Seconds that a report waits for a database that went away; the next tick comes soon."""


class Report(NamedTuple):
    """What came of a report."""

    written: int = 0
    """Pairs of which Dagster learned."""
    known: int = 0
    """Pairs that Dagster remembered exactly as they are."""
    unshown: int = 0
    """Pairs whose accounts are no partitions, because there are as many as there may be."""
    is_whole: bool = True
    """False if there was no time for more, or somebody else reports at this moment."""


class _Batch(NamedTuple):
    written: int
    known: int
    unshown: int


def report_pending(
    instance: dg.DagsterInstance,
    settings: Settings,
    *,
    seconds: float | None = None,
    wait: bool = True,
    advance: Callable[[int], None] | None = None,
) -> Report:
    """Write down in Dagster how pairs ended that it has not been told of, in the order in which they did.

    A batch is written to Dagster, then dropped from the outbox. Whoever is killed in between leaves it to the next one,
    who passes over what Dagster remembers exactly so.

    Args:
        seconds: after which no further batch is begun; None goes on to the end.
        wait: for whoever reports at this moment, a batch at a time; if not, it is left to him.
        advance: called with the number of pairs of each batch.

    Raises:
        DatabaseError: there is no database to work with.
    """
    until = None if seconds is None else time.monotonic() + seconds
    session = SyncSession(settings)
    report = Report()
    try:
        while True:
            batch = session.run(lambda conn: _report_batch(conn, instance, settings, wait), patience=PATIENCE)
            if batch is None:
                return report._replace(is_whole=False)
            report = Report(report.written + batch.written, report.known + batch.known, report.unshown + batch.unshown)
            if advance is not None:
                advance(sum(batch))
            if sum(batch) < BATCH_SIZE:
                # last, when few are left to be looked at
                session.run(lambda conn: drop_reset(conn, settings.state_table), patience=PATIENCE)
                return report
            if until is not None and time.monotonic() >= until:
                return report._replace(is_whole=False)
    finally:
        session.end()


# I15
def _report_batch(conn: Connection, instance: dg.DagsterInstance, settings: Settings, wait: bool) -> _Batch | None:
    """Report a batch in the transaction that drops it; None if somebody else does."""
    if not lock_reporting(conn, regclass(settings.state_table), wait=wait):
        return None
    if named := take_named_accounts(conn, settings.state_table, BATCH_SIZE):
        register_dids(instance, named)
        have_all_reported(conn, settings.state_table, named)
    ended = find_unreported(conn, settings.state_table, BATCH_SIZE)
    if not ended:
        return _Batch(0, 0, 0)
    if isinstance(instance.event_log_storage, ParityEventLogStorage):
        # a process that was killed a moment ago may have left a statement behind that the server is still at
        instance.event_log_storage.wait_for_endings()
    beyond = register_within(instance, (state.did for state in ended), settings.partition_limit).beyond
    shown = [state for state in ended if state.did not in beyond]
    known = _known(instance, shown)
    news = [state for state in shown if state.pair not in known]
    report_without_run(instance, news)
    told = [Delivered(state.did, state.collection, state.updated_at) for state in ended]
    drop_delivered(conn, settings.state_table, told, DAGSTER)
    return _Batch(len(news), len(known), len(ended) - len(shown))


def _known(instance: dg.DagsterInstance, states: list[ImportState]) -> set[Pair]:
    """Pairs that Dagster remembers exactly so: written again, they would only fill its log."""
    now = {state.pair: state for state in states}
    remembered = remembered_states(instance, {str(to_partition_key(pair)) for pair in now})
    return {state.pair for state in remembered if now.get(state.pair) == state}
