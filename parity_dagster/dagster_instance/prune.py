"""Housekeeping of Dagster's event log, which otherwise only grows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import dagster as dg
import sqlalchemy as db

from parity_dagster.dagster_instance.private import (
    ASSET_CHECK_EVENTS,
    PIPELINE_EVENTS,
    SqlEventLogStorage,
    SqlEventLogStorageTable,
)
from parity_dagster.errors import SettingsError

RUNS_PER_STATEMENT = 200

KEPT = frozenset(
    {
        # what became of each partition
        dg.DagsterEventType.ASSET_MATERIALIZATION,
        dg.DagsterEventType.ASSET_OBSERVATION,
        dg.DagsterEventType.ASSET_FAILED_TO_MATERIALIZE,
        dg.DagsterEventType.FRESHNESS_STATE_CHANGE,
        *ASSET_CHECK_EVENTS,
        # when a run was queued, started and ended: its line in the UI, and what run status sensors follow
        *PIPELINE_EVENTS,
    }
)
"""Events that stay; the rest are log messages, steps, resources, and the plan of what was materialized since."""


class Pruned(NamedTuple):
    """What a prune came to."""

    runs: int
    """Successful runs that are old enough."""
    events: int
    """Rows of the event log dropped, or that would be."""


def prune_runs(instance: dg.DagsterInstance, keep_days: int, *, dry_run: bool = False) -> Pruned:
    """Drop the detailed logs of successful runs; runs, asset events and check results stay.

    Raises:
        SettingsError: the instance keeps its event log in no SQL database.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        raise SettingsError(
            f"Dagster's event log is a {type(storage).__name__}, which cannot be pruned; use the storage of this "
            "project's dagster.yaml"
        )
    old = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.SUCCESS], updated_before=datetime.now(UTC) - timedelta(days=keep_days)
    )
    runs = events = 0
    cursor: str | None = None
    while run_ids := instance.get_run_ids(old, cursor=cursor, limit=RUNS_PER_STATEMENT):
        cursor = run_ids[-1]
        runs += len(run_ids)
        events += _drop(storage, run_ids, dry_run=dry_run)
        if not dry_run:
            for run_id in run_ids:
                # what the run's process printed
                instance.compute_log_manager.delete_logs(prefix=[run_id])
    return Pruned(runs, events)


def _drop(storage: SqlEventLogStorage, run_ids: Sequence[str], *, dry_run: bool) -> int:
    table = SqlEventLogStorageTable.c
    kind = table.dagster_event_type
    # log messages have no type
    is_dropped = db.and_(
        table.run_id.in_(run_ids), db.or_(kind.is_(None), kind.not_in([event.value for event in KEPT]))
    )
    with storage.index_connection() as connection:
        if dry_run:
            return int(connection.execute(db.select(db.func.count()).where(is_dropped)).scalar_one())
        return int(connection.execute(SqlEventLogStorageTable.delete().where(is_dropped)).rowcount)
