"""The sensors and the schedule: when something happens by itself; what happens stands in the modules they call.

Annotations here are evaluated (no `from __future__ import annotations`), because Dagster reads them.
"""

import warnings

import dagster as dg

from parity_dagster.errors import ParityError
from parity_dagster.orchestration.alerts import post_failed_checks, post_failed_run
from parity_dagster.orchestration.dagster_compat import beta_parts
from parity_dagster.orchestration.discovery import DISCOVER_ACCOUNTS, SECONDS_BETWEEN_LOOKS, look_for_lists
from parity_dagster.orchestration.inbox import look_into_inbox, read_did_list
from parity_dagster.orchestration.jobs import RUN_CHECKS, import_records
from parity_dagster.orchestration.overview import REFRESH_OVERVIEW, SECONDS_BETWEEN_OVERVIEWS, look_for_changes
from parity_dagster.orchestration.queue import launch_due
from parity_dagster.orchestration.refreshing import refresh_stale
from parity_dagster.orchestration.report import report_pending
from parity_dagster.orchestration.run_health import SECONDS_BETWEEN_HEALTH_LOOKS, fail_lost_runs
from parity_dagster.settings import Settings, load_settings

# Dagster warns about its own copy of a sensor; an operator can do nothing about it.
warnings.filterwarnings(
    "ignore", message="Parameter `owners` of initializer `SensorDefinition", category=dg.BetaWarning
)

SECONDS_BETWEEN_TICKS = 3
"""Below the five seconds at which the daemon looks, because it skips every other look at a sensor whose turn comes a
moment later. A tick with nothing to do costs some milliseconds."""
SECONDS_BETWEEN_REFRESHES = 30
SECONDS_OF_REPORTING = 10.0
"""After which a tick of the report begins no further batch; Dagster gives up a tick that takes a minute."""


def build_sensors(settings: Settings | None) -> list[dg.SensorDefinition]:
    """Define the sensors; all are on until turned off in the UI, those that post alerts only if a webhook is set, and
    the one that looks for accounts only if collections are named.

    Args:
        settings: of every tick; if None, each reads them from the environment.
    """

    def here() -> Settings:
        return settings or load_settings()

    @dg.sensor(
        job=import_records,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
        description=(
            "Launches imports that are due: queued pairs, failed ones whose pause is over, and interrupted ones. "
            "Turn it off to hold the queue."
        ),
    )
    def retry_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        requests = launch_due(context.instance, here())
        return dg.SensorResult(run_requests=requests) if requests else dg.SkipReason("Nothing is due.")

    @dg.sensor(
        job=read_did_list,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
        description=(
            "Notices lists of accounts (*.txt) dropped into the inbox (PARITY_INBOX) and launches read_did_list, which "
            "registers the accounts as partitions and queues their imports. What became of each list is an event of "
            "the asset did_lists."
        ),
    )
    def did_list_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        look = look_into_inbox(context.instance, here(), context.cursor)
        skipped = None if look.requests else look.summary
        return dg.SensorResult(
            run_requests=look.requests, skip_reason=skipped, cursor=look.cursor, asset_events=look.events
        )

    @dg.sensor(
        job_name=DISCOVER_ACCOUNTS,
        default_status=dg.DefaultSensorStatus.RUNNING if here().discover else dg.DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=SECONDS_BETWEEN_LOOKS,
        description=(
            "Launches discover_accounts while a list of PARITY_DISCOVER has not been read to its end, a stretch at a "
            "time, and once an hour to find accounts that are new. Off until PARITY_DISCOVER names collections."
        ),
    )
    def discovery_sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        look = look_for_lists(context.instance, here())
        return look.request or dg.SkipReason(look.reason)

    @dg.sensor(
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
        description=(
            "Shows here what was imported outside of Dagster, by `parity import` or from Python: accounts become "
            "partitions, complete pairs are materialized, failed ones observed. `parity report` does so at once."
        ),
    )
    def report_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        report = report_pending(context.instance, here(), seconds=SECONDS_OF_REPORTING, wait=False)
        shown = f"{report.written:,} import{'s' * (report.written != 1)} shown" if report.written else "Nothing new"
        return dg.SkipReason(f"{shown}{'' if report.is_whole else '; the next look goes on'}.")

    @dg.sensor(
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=SECONDS_BETWEEN_HEALTH_LOOKS,
        description=(
            "Marks runs as failed that nobody works on any more, because their process was killed or their container "
            "or machine is gone, whatever launched them."
        ),
    )
    def run_health_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        lost = fail_lost_runs(context.instance, here())
        return dg.SkipReason(f"Lost, and marked as failed: {', '.join(lost)}." if lost else "No run is lost.")

    @dg.sensor(
        job_name=REFRESH_OVERVIEW,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description=f"Launches {REFRESH_OVERVIEW} every {SECONDS_BETWEEN_OVERVIEWS // 60} minutes while something is "
        "imported, and once more when it has ended.",
    )
    def overview_sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        try:
            look = look_for_changes(context.instance, here(), context.cursor)
        except ParityError as exc:
            return dg.SkipReason(str(exc))
        if look.reason:
            return dg.SkipReason(look.reason)
        context.update_cursor(look.cursor)
        return dg.RunRequest(run_key=None)

    @dg.sensor(
        default_status=(
            dg.DefaultSensorStatus.STOPPED if here().refresh_every is None else dg.DefaultSensorStatus.RUNNING
        ),
        minimum_interval_seconds=SECONDS_BETWEEN_REFRESHES,
        description=(
            "Keeps copies from becoming older than PARITY_REFRESH_EVERY: hosts of which many are held are asked for "
            "the list of their accounts, which confirms what has not changed; the stalest of all others are queued."
        ),
    )
    def refresh_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return dg.SkipReason(refresh_stale(here()))

    is_set = here().alert_webhook is not None
    alerting = dg.DefaultSensorStatus.RUNNING if is_set else dg.DefaultSensorStatus.STOPPED
    with beta_parts():

        @dg.run_failure_sensor(
            default_status=alerting,
            minimum_interval_seconds=15,
            description="Posts each failed run to PARITY_ALERT_WEBHOOK.",
        )
        def alert_on_run_failure(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
            why_not = post_failed_run(here(), context)
            return dg.SkipReason(why_not) if why_not else None

        @dg.sensor(
            default_status=alerting,
            minimum_interval_seconds=15,
            description="Posts each check that has newly failed, or fails in another way than before, to "
            "PARITY_ALERT_WEBHOOK.",
        )
        def alert_on_check_failure(context: dg.SensorEvaluationContext) -> dg.SkipReason | None:
            return post_failed_checks(here(), context)

    return [
        retry_sensor,
        did_list_sensor,
        discovery_sensor,
        report_sensor,
        run_health_sensor,
        overview_sensor,
        refresh_sensor,
        alert_on_run_failure,
        alert_on_check_failure,
    ]


daily_checks = dg.ScheduleDefinition(
    name="daily_checks",
    job_name=RUN_CHECKS,
    cron_schedule="17 4 * * *",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Executes every check once a day. Off until turned on: the audit contacts PDSes.",
)
