"""The queue on Dagster's side: which runs to ask for, and what a run of the queue imports.

Crashes between marking and launching are harmless: a batch without a run is asked for again under the same run
key, which Dagster launches once, and a batch whose run has ended gives back what is left of it. What a run leaves that
somebody has canceled is not launched again: who presses Terminate wants it to stop.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from functools import partial

import dagster as dg

from parity_dagster.importing.retry_policy import LONGEST_WAIT
from parity_dagster.models import Pair
from parity_dagster.orchestration.dagster_compat import plain_failures
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect
from parity_dagster.store.outbox import take_alone
from parity_dagster.store.queue import (
    dissolve_batch,
    find_left_over,
    hold_batch,
    make_batches,
    open_batches,
    pairs_of_batch,
)

PAIRS_PER_RUN = 2000
"""Pairs that the queue gives to one run.

Starting a run costs about a second of processor time, whatever it imports, and a run that dies gives back its
pairs at once, so there is little reason for small ones. More would let a small request wait long behind them.
"""

OPEN_BATCHES = 8
"""Batches launched and not taken up yet, at most; enough that no worker waits for the next look."""

QUEUE_TAG = "parity/queue"
"""Run tag that dagster.yaml limits; its value is `PARITY_QUEUE`."""

BATCH_TAG = ".dagster/parity_batch"
"""Run tag that names the batch; the prefix hides it in the UI."""
_BATCH_TAGS = (BATCH_TAG, "parity/batch")
"""With what it was called before, for runs that were launched by an earlier version."""
PAIRS_TAG = "parity/pairs"


def launch_due(instance: dg.DagsterInstance, settings: Settings) -> list[dg.RunRequest]:
    """Ask for runs of everything that is due, one per batch; asking again for one that was launched has no effect."""
    with closing(connect(settings, autocommit=True)) as connection:
        table = settings.state_table
        waiting = open_batches(connection, table)
        runs = _runs_of(instance, waiting)
        unlaunched: dict[str, int] = {}
        ended = 0
        for batch in waiting:
            if batch not in runs:
                unlaunched[batch] = 0
            elif runs[batch].status is dg.DagsterRunStatus.CANCELED:
                hold_batch(connection, table, batch, runs[batch].run_id)
                ended += 1
            elif runs[batch].is_finished:
                dissolve_batch(connection, table, batch, least=settings.retry_delay, most=LONGEST_WAIT)
                ended += 1
        room = OPEN_BATCHES - len(waiting) + ended
        new = make_batches(
            connection,
            table,
            settings.collections,
            size=PAIRS_PER_RUN,
            count=room,
            find_canceled=partial(_canceled, instance),
        )
    return [_request(batch, pairs, settings) for batch, pairs in {**unlaunched, **new}.items()]


def _runs_of(instance: dg.DagsterInstance, batches: list[str]) -> dict[str, dg.DagsterRun]:
    if not batches:
        return {}
    runs: dict[str, dg.DagsterRun] = {}
    for tag in _BATCH_TAGS:
        if wanted := [batch for batch in batches if batch not in runs]:
            _add_runs(instance, tag, wanted, runs)
    return runs


def _add_runs(instance: dg.DagsterInstance, tag: str, batches: list[str], runs: dict[str, dg.DagsterRun]) -> None:
    for run in instance.get_runs(filters=dg.RunsFilter(tags={tag: batches})):
        batch = run.tags[tag]
        # a re-execution from the UI bears the same tag; as long as any of them is under way, the batch is,
        # and else the newest says what became of it
        newer = runs.get(batch)
        if newer is None or (newer.is_finished and (not run.is_finished or _is_canceled_twin(run, newer))):
            runs[batch] = run


def _is_canceled_twin(run: dg.DagsterRun, newer: dg.DagsterRun) -> bool:
    """Whether somebody has canceled a run that had the batch when the newer one, of another daemon, left it alone."""
    left_it = newer.status is dg.DagsterRunStatus.SUCCESS and newer.parent_run_id is None
    return left_it and run.status is dg.DagsterRunStatus.CANCELED


def _canceled(instance: dg.DagsterInstance, run_ids: Collection[str]) -> set[str]:
    """Those of the runs that somebody has canceled; one whose process was ended otherwise has failed."""
    if not run_ids:
        return set()
    statuses = [dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED]
    return set(instance.get_run_ids(filters=dg.RunsFilter(run_ids=list(run_ids), statuses=statuses)))


def _request(batch: str, pairs: int, settings: Settings) -> dg.RunRequest:
    tags = {QUEUE_TAG: settings.queue, BATCH_TAG: batch}
    if pairs:
        tags[PAIRS_TAG] = str(pairs)
    return dg.RunRequest(run_key=batch, run_config={"batch": batch}, tags=tags)


def batch_pairs(settings: Settings, batch: str) -> list[Pair]:
    """What a run of the queue imports: the batch's pairs that nobody else has taken up.

    None if it was dissolved meanwhile.
    """
    with closing(connect(settings, autocommit=True)) as connection:
        return pairs_of_batch(connection, settings.state_table, batch)


@contextmanager
def importing_alone(settings: Settings, batch: str) -> Iterator[bool]:
    """Whether the batch is this run's, until it ends; False if another run imports it, because two daemons asked."""
    with plain_failures(), closing(connect(settings, autocommit=True)) as connection:
        yield take_alone(connection, batch)


def pairs_of_runs(settings: Settings, run_ids: list[str]) -> list[Pair]:
    """Pairs that one of these runs worked on last, and that are not complete."""
    with plain_failures(), closing(connect(settings, autocommit=True)) as connection:
        return find_left_over(connection, settings.state_table, run_ids)
