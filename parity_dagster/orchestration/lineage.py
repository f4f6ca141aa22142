"""What stands around `atproto/records`: the typed views and the overview after it, and the checks on it."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime
from typing import Any

import dagster as dg

from parity_dagster.dagster_instance.keys import RECORDS_KEY
from parity_dagster.errors import ParityError
from parity_dagster.orchestration.alerts import build_alert_sensors
from parity_dagster.orchestration.assets import build_typed_asset
from parity_dagster.orchestration.checks import (
    CHECKS,
    no_suspicious_copies,
    sample_audit,
    state_equals_metadata,
)
from parity_dagster.orchestration.dagster_compat import beta_parts
from parity_dagster.orchestration.overview import build_overview_asset
from parity_dagster.settings import Settings, load_settings
from parity_dagster.store.database import connect
from parity_dagster.store.overview import latest_change
from parity_dagster.store.typed import registered_views

REFRESH_OVERVIEW = "refresh_overview"
RUN_CHECKS = "run_all_checks"
QUIET_SECONDS = 20
"""How long no import may have changed anything before the overview is made anew."""
SECONDS_BETWEEN_OVERVIEWS = 300


def build_lineage_assets(settings: Settings) -> list[Any]:
    """The assets downstream of the records."""
    views = registered_views(settings)
    typed = [build_typed_asset(view) for view in views]
    overview = build_overview_asset([dg.AssetKey(view.name) for view in views] or [RECORDS_KEY])
    return list(dg.with_source_code_references([*typed, overview]))


def build_lineage_jobs() -> list[Any]:
    """The jobs that keep views, overview and checks up to date.

    Returns:
        `refresh_overview` with the checks that are quick, and `run_all_checks`.
    """
    quick = [check for check in CHECKS if check not in (sample_audit, state_equals_metadata, no_suspicious_copies)]
    downstream = dg.AssetSelection.groups("typed", "overview").without_checks()
    return [
        dg.define_asset_job(
            REFRESH_OVERVIEW,
            selection=downstream | dg.AssetSelection.checks(*quick),
            description="Counts the typed views, makes the overview, and executes the checks that only ask Postgres.",
        ),
        dg.define_asset_job(
            RUN_CHECKS,
            selection=dg.AssetSelection.checks(*CHECKS),
            description="Executes every check, the audit included, which reads some accounts again from their PDSes.",
        ),
    ]


def build_overview_sensor(settings: Settings | None = None) -> dg.SensorDefinition:
    """Define the sensor that makes the overview anew when imports have come to rest.

    Args:
        settings: of every tick; if None, they are read from the environment.

    Returns:
        The sensor, running unless it is turned off in the UI.
    """

    @dg.sensor(
        name="overview_sensor",
        job_name=REFRESH_OVERVIEW,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description=f"Launches {REFRESH_OVERVIEW} after imports, at most every {SECONDS_BETWEEN_OVERVIEWS // 60} "
        "minutes.",
    )
    def overview_sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        here = settings or load_settings()
        try:
            with closing(connect(here)) as conn:
                change = latest_change(conn, here.state_table)
        except ParityError as exc:
            return dg.SkipReason(str(exc))
        if change is None:
            return dg.SkipReason("Nothing has been imported yet.")
        seen, launched_at = _read_cursor(context.cursor)
        if change.at == seen:
            return dg.SkipReason("Nothing has changed since the last overview.")
        is_recent = launched_at is not None and (change.now - launched_at).total_seconds() < SECONDS_BETWEEN_OVERVIEWS
        if is_recent or (change.now - change.at).total_seconds() < QUIET_SECONDS:
            return dg.SkipReason("Imports are going on; the overview follows.")
        context.update_cursor(f"{change.at.isoformat()} {change.now.isoformat()}")
        return dg.RunRequest(run_key=None)

    return overview_sensor


def _read_cursor(cursor: str | None) -> tuple[datetime | None, datetime | None]:
    if not cursor:
        return None, None
    seen, _, launched_at = cursor.partition(" ")
    return datetime.fromisoformat(seen), datetime.fromisoformat(launched_at)


def build_checks_schedule() -> dg.ScheduleDefinition:
    """The schedule that executes every check once a day."""
    return dg.ScheduleDefinition(
        name="daily_checks",
        job_name=RUN_CHECKS,
        cron_schedule="17 4 * * *",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Executes every check once a day. Off until turned on: the audit contacts PDSes.",
    )


def build_lineage(settings: Settings | None = None) -> dg.Definitions:
    """Everything around the records, to be merged with what imports them.

    Args:
        settings: of every run and tick; if None, each process reads them from its environment.

    Returns:
        Definitions that need the resource `import_service`.

    Raises:
        SettingsError: a typed view that is named in the settings cannot be loaded.
    """
    with beta_parts():
        return dg.Definitions(
            assets=build_lineage_assets(settings or load_settings()),
            asset_checks=CHECKS,
            jobs=build_lineage_jobs(),
            sensors=[build_overview_sensor(settings), *build_alert_sensors(settings)],
            schedules=[build_checks_schedule()],
        )
