"""The asset `import_overview`: what is held, how complete it is, what failed and why, how fast it came.

Annotations here are evaluated (no `from __future__ import annotations`), because Dagster reads them.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple

import dagster as dg

from parity_dagster.orchestration.dagster_compat import plain_failures
from parity_dagster.orchestration.overview_page import overview_metadata
from parity_dagster.orchestration.partitions import count_accounts
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect
from parity_dagster.store.overview import look_at_work, read_holdings
from parity_dagster.store.summary import read_summary

OVERVIEW_KEY = dg.AssetKey("import_overview")
OVERVIEW_VERSION = "5"
"""Counted up when the overview shows something else than before, so that Dagster calls older ones outdated."""
REFRESH_OVERVIEW = "refresh_overview"
"""The job that makes it, and executes the checks that only ask Postgres."""
SECONDS_BETWEEN_OVERVIEWS = 300
"""While something is imported."""
SECONDS_AFTER_OVERVIEW = 60
"""When nothing is imported any more; accounts that come one by one do not make it each time."""
SHARE_OF_TIME = 10
"""It is made at most this part of the time, however much there is to be counted, but at the end of a long import."""
_IN_BETWEEN = "in-between"
"""In the sensor's cursor: the overview was made while something was imported, so one more has to follow."""


def build_overview_asset(
    deps: Sequence[dg.AssetKey], freshness: dg.FreshnessPolicy | None = None
) -> dg.AssetsDefinition:
    """Define the overview; it needs the resource `import_service`."""

    @dg.asset(
        key=OVERVIEW_KEY,
        code_version=OVERVIEW_VERSION,
        freshness_policy=freshness,
        deps=list(deps),
        group_name="overview",
        kinds={"postgres"},
        owners=["team:parity"],
        description=(
            "What is held, what goes on and when it will be done, how complete it is, what failed and why, per "
            "collection and host, the largest and the slowest, and records over time. Open the metadata `overview` of "
            "its last materialization."
        ),
    )
    def import_overview(
        context: dg.AssetExecutionContext, import_service: dg.ResourceParam[ImportService]
    ) -> dg.MaterializeResult[None]:
        settings = import_service.settings
        with plain_failures(), closing(connect(settings)) as conn:
            holdings = read_holdings(conn, settings.state_table, settings.collections)
            summary = read_summary(conn, settings.state_table, settings.collections)
        shown = count_accounts(context.instance)
        return dg.MaterializeResult(
            metadata=overview_metadata(
                holdings,
                settings.collections,
                partitions=shown if shown >= settings.partition_limit else None,
                summary=summary,
            )
        )

    return import_overview


class Look(NamedTuple):
    """Whether the overview is to be made anew."""

    reason: str
    """Why not; empty if it is."""
    cursor: str = ""
    """What the sensor remembers of an overview that is."""


def look_for_changes(instance: dg.DagsterInstance, settings: Settings, cursor: str | None) -> Look:
    """See whether the overview that the cursor names, and the checks made with it, are still true.

    While something is imported they are made every few minutes, and once more as soon as it has ended.
    """
    with closing(connect(settings)) as conn:
        work = look_at_work(conn, settings.state_table)
    seen, _, taken = (cursor or "").partition(" ")
    if not work.mark:
        return Look("Nothing has been imported yet.")
    if work.mark == seen and not work.is_going_on and taken != _IN_BETWEEN:
        return Look("Nothing has been imported since the last overview.")
    last = instance.get_run_records(dg.RunsFilter(job_name=REFRESH_OVERVIEW), limit=1)
    if last:
        if not last[0].dagster_run.is_finished:
            return Look("The overview is being made.")
        began, ended = last[0].start_time, last[0].end_time
        took = ended - began if began and ended else 0.0
        is_busy = work.is_going_on or work.is_waiting
        # a long import has one end, so the overview of it may follow sooner
        times = 1 if taken == _IN_BETWEEN and not is_busy else SHARE_OF_TIME
        pause = max(SECONDS_BETWEEN_OVERVIEWS if is_busy else SECONDS_AFTER_OVERVIEW, took * times)
        if time.time() - last[0].create_timestamp.timestamp() < pause:
            return Look("Imports are going on; the overview follows." if is_busy else "The overview follows.")
    return Look("", f"{work.mark} {_IN_BETWEEN if work.is_going_on else ''}".strip())
