"""The sensors: what makes queued and dropped accounts come in by themselves.

What lives here: their definitions. What must not: what a tick does (`queue`, `inbox`). Annotations here are
evaluated (no `from __future__ import annotations`), because Dagster reads them.
"""

import warnings

import dagster as dg

from parity_dagster.orchestration.inbox import look_into_inbox, read_did_list
from parity_dagster.orchestration.jobs import import_records
from parity_dagster.orchestration.queue import launch_due
from parity_dagster.settings import Settings, load_settings

# Dagster warns about its own copy of a sensor; an operator can do nothing about it.
warnings.filterwarnings(
    "ignore", message="Parameter `owners` of initializer `SensorDefinition", category=dg.BetaWarning
)

SECONDS_BETWEEN_TICKS = 3
"""Below the five seconds at which the daemon looks, because it skips every other look at a sensor whose turn comes a
moment later. A tick with nothing to do costs some milliseconds."""


def build_retry_sensor(settings: Settings | None = None) -> dg.SensorDefinition:
    """Define the sensor that launches what is due.

    Args:
        settings: of every tick; if None, they are read from the environment.

    Returns:
        The sensor, running unless it is turned off in the UI.
    """

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
        requests = launch_due(context.instance, settings or load_settings())
        return dg.SensorResult(run_requests=requests) if requests else dg.SkipReason("Nothing is due.")

    return retry_sensor


def build_did_list_sensor(settings: Settings | None = None) -> dg.SensorDefinition:
    """Define the sensor that has what is dropped into the inbox read.

    Args:
        settings: of every tick; if None, they are read from the environment.

    Returns:
        The sensor, running unless it is turned off in the UI.
    """

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
        look = look_into_inbox(context.instance, settings or load_settings(), context.cursor)
        skipped = None if look.requests else look.summary
        return dg.SensorResult(
            run_requests=look.requests, skip_reason=skipped, cursor=look.cursor, asset_events=look.events
        )

    return did_list_sensor
