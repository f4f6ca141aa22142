"""Runs whose process, container or machine is gone, noticed whoever launched them.

Each launcher of Dagster knows something else about a run's process, and some of them nothing: a Celery worker that is
killed leaves a task that counts as started for ever. But whoever does our work holds an advisory lock of the run, which
PostgreSQL frees when the process is gone or its machine cannot be reached any more. The run's pairs need none of this,
they go on by their importer's lock; it is for what waits for the run to end: a place in the queue, a list, a person.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress

import dagster as dg

from parity_dagster.errors import ParityError
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect
from parity_dagster.store.outbox import find_runs_at_work, hold_run
from parity_dagster.store.sessions import SyncSession

HELD_TAG = ".dagster/parity_held"
"""Tag of a run that has held its lock, so that not holding it means something. The prefix hides it in the UI."""

SECONDS_BETWEEN_HEALTH_LOOKS = 15
QUIET_SECONDS = 60.0
"""For which a run must have written nothing besides. Between two steps of a run that gives each a process of its own,
and at its beginning and end, nobody holds its lock for some seconds."""

_WATCH_SECONDS = 5.0
"""Seconds between two looks at the session that holds the lock; a lost one is opened again."""


@contextmanager
def at_work(instance: dg.DagsterInstance | None, settings: Settings, run_id: str) -> Iterator[None]:
    """Hold the lock of a run; any number of processes may."""
    session = SyncSession(settings, lambda conn: hold_run(conn, run_id))
    has_ended = threading.Event()

    def hold() -> None:
        # a database that is away is for the work itself to tell
        with suppress(ParityError):
            session.run(lambda conn: None, patience=0)

    def watch() -> None:
        while not has_ended.wait(_WATCH_SECONDS):
            hold()

    hold()
    if instance is not None:
        instance.add_run_tags(run_id, {HELD_TAG: "true"})
    threading.Thread(target=watch, name="parity-run", daemon=True).start()
    try:
        yield
    finally:
        has_ended.set()
        session.end()


def fail_lost_runs(
    instance: dg.DagsterInstance,
    settings: Settings,
    *,
    quiet: float = QUIET_SECONDS,
    wait: Callable[[float], object] = time.sleep,
) -> list[str]:
    """Mark runs as failed that have started, that nobody works on any more, and that have not ended.

    Args:
        quiet: seconds for which a run must have written nothing.
        wait: lets some seconds pass, so that whoever lives and lost his session has a new one at the second look.

    Returns:
        Their ids.
    """
    filters = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED], tags={HELD_TAG: "true"})
    started = [run.run_id for run in instance.get_runs(filters)]
    if not started:
        return []
    # One session for both looks: if it lives, so did the server, and nobody had to wait for it.
    with closing(connect(settings, autocommit=True)) as connection:

        def unheld(run_ids: Sequence[str]) -> list[str]:
            at_work_still = find_runs_at_work(connection, run_ids)
            return [run_id for run_id in run_ids if run_id not in at_work_still]

        suspected = [run_id for run_id in unheld(started) if _quiet_for(instance, run_id) >= quiet]
        if suspected:
            wait(2 * _WATCH_SECONDS)
            suspected = unheld(suspected)
    lost = []
    for run_id in suspected:
        run = instance.get_run_by_id(run_id)  # as it is by now
        if run is not None and run.status is dg.DagsterRunStatus.STARTED:
            instance.report_run_failed(
                run,
                "Nobody works on this run any more: its process was killed, or its container or machine is gone. What "
                "is committed stays, and its imports go on in another run.",
            )
            lost.append(run_id)
    return lost


def _quiet_for(instance: dg.DagsterInstance, run_id: str) -> float:
    newest = instance.get_records_for_run(run_id, limit=1, ascending=False).records
    return time.time() - newest[0].event_log_entry.timestamp if newest else 0.0
