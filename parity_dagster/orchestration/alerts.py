"""Alerts: failed runs and failed checks are posted to a webhook.

 Annotations here are evaluated
(no `from __future__ import annotations`), because Dagster reads them.

The body is JSON that Slack's incoming webhooks take (`text`), with the facts beside it for other receivers. The URL is
a secret: it is in no log, no error and no metadata.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any

import dagster as dg
import httpx

from parity_dagster.orchestration.dagster_compat import beta_parts
from parity_dagster.settings import Settings, load_settings

TRIES = 3
"""Posts of one alert before it is given up."""
TIMEOUT = 10.0
"""Seconds for one post."""
EVENTS_PER_TICK = 200
"""Check results looked at by one tick."""
_TEXT_LENGTH = 1500

_OFF = "PARITY_ALERT_WEBHOOK is not set, so nothing is posted."


class AlertFailed(Exception):
    """The webhook did not take an alert; the text names no URL."""


def post_alert(settings: Settings, text: str, facts: Mapping[str, Any]) -> bool:
    """Post one alert.

    Args:
        settings: `alert_webhook` is read.

    Returns:
        False if no webhook is set.

    Raises:
        AlertFailed: it was refused, or not answered, several times.
    """
    if settings.alert_webhook is None:
        return False
    url = settings.alert_webhook.get_secret_value().strip()
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log every URL
    body = {"text": for_slack(text[:_TEXT_LENGTH]), "unfurl_links": False, "source": "parity_dagster", **facts}
    reason = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(attempt)
        try:
            answer = httpx.post(url, json=body, timeout=TIMEOUT)
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            reason = type(exc).__name__
            continue
        if answer.is_success:
            return True
        reason = f"status {answer.status_code}"
        if answer.is_client_error and answer.status_code not in (408, 429):
            break
    raise AlertFailed(f"the webhook in PARITY_ALERT_WEBHOOK did not take the alert ({reason}); check its URL")


def for_slack(text: str) -> str:
    """Text that may hold what a stranger's server said, so that none of it pings anybody or hides where a link leads.

    Source: Slack's reference "Formatting text for app surfaces", "Escaping text": these three and no others.
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def build_run_failure_sensor(settings: Settings | None, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """Define the sensor that tells of failed runs.

    Args:
        settings: of every tick; if None, they are read from the environment.
    """

    @dg.run_failure_sensor(
        name="alert_on_run_failure",
        default_status=status,
        minimum_interval_seconds=15,
        description="Posts each failed run to PARITY_ALERT_WEBHOOK.",
    )
    def alert_on_run_failure(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        run = context.dagster_run
        said = context.failure_event.message or "no message"
        for event in context.get_step_failure_events():
            data = event.step_failure_data
            if data.user_failure_data is not None and data.user_failure_data.description:
                said = data.user_failure_data.description
            elif data.error is not None:
                said = data.error.message.strip()
            break
        facts = {
            "event": "run_failure",
            "run_id": run.run_id,
            "job": run.job_name,
            "message": said[:_TEXT_LENGTH],
            "path": f"/runs/{run.run_id}",
        }
        is_posted = post_alert(
            settings or load_settings(), f"Run {run.run_id[:8]} ({run.job_name}) failed: {said}", facts
        )
        return None if is_posted else dg.SkipReason(_OFF)

    return alert_on_run_failure


def build_check_failure_sensor(settings: Settings | None, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """Define the sensor that tells of failed checks.

    It begins with the checks that are executed after it was turned on, and forgets none: an alert that cannot be
    posted is posted by a later tick.

    Args:
        settings: of every tick; if None, they are read from the environment.
    """

    @dg.sensor(
        name="alert_on_check_failure",
        default_status=status,
        minimum_interval_seconds=15,
        description="Posts each check that has newly failed, or still fails when executed again, to "
        "PARITY_ALERT_WEBHOOK.",
    )
    def alert_on_check_failure(context: dg.SensorEvaluationContext) -> dg.SkipReason | None:
        storage = context.instance.event_log_storage
        if context.cursor is None:
            context.update_cursor(str(storage.get_maximum_record_id() or 0))
            return dg.SkipReason("From now on failed checks are posted.")
        records = storage.get_event_records(
            dg.EventRecordsFilter(
                event_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION, after_cursor=int(context.cursor)
            ),
            limit=EVENTS_PER_TICK,
            ascending=True,
        )
        posted = 0
        for record in records:
            event = record.event_log_entry.dagster_event
            if event is not None and not (evaluation := event.asset_check_evaluation_data).passed:
                posted += _post_check(settings or load_settings(), evaluation, record.event_log_entry.run_id)
            context.update_cursor(str(record.storage_id))
        return None if posted else dg.SkipReason(f"{len(records)} check results, none to be posted.")

    return alert_on_check_failure


def _post_check(settings: Settings, evaluation: Any, run_id: str) -> bool:
    asset = evaluation.asset_key.to_user_string()
    said = evaluation.description or "no message"
    return post_alert(
        settings,
        f"Check {evaluation.check_name} of {asset} failed ({evaluation.severity.value}): {said}",
        {
            "event": "check_failure",
            "asset": asset,
            "check": evaluation.check_name,
            "severity": evaluation.severity.value,
            "message": said[:_TEXT_LENGTH],
            "run_id": run_id,
            "path": f"/assets/{asset}?view=checks&checkDetail={evaluation.check_name}",
        },
    )


def build_alert_sensors(settings: Settings | None = None) -> list[dg.SensorDefinition]:
    """Define both sensors; they are on by themselves if a webhook is set.

    Args:
        settings: of every tick; if None, they are read from the environment.
    """
    is_on = (settings or load_settings()).alert_webhook is not None
    status = dg.DefaultSensorStatus.RUNNING if is_on else dg.DefaultSensorStatus.STOPPED
    with beta_parts():
        return [build_run_failure_sensor(settings, status), build_check_failure_sensor(settings, status)]
