"""Alerts: failed runs and failed checks are posted to a webhook.

The body is JSON that Slack's incoming webhooks take (`text`), with the facts beside it for other receivers. The URL is
a secret: it is in no log, no error and no metadata.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from base64 import b64encode
from collections.abc import Mapping
from contextlib import closing
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import dagster as dg

from parity_dagster.atproto.http import HttpClient
from parity_dagster.atproto.network import open_http
from parity_dagster.errors import ParityError
from parity_dagster.importing.loop import BackgroundLoop
from parity_dagster.orchestration.step_events import FAILED_PAIRS
from parity_dagster.settings import Settings

TRIES = 3
"""Posts of one alert before it is given up."""
TIMEOUT = 10.0
"""Seconds for one post."""
MAX_ANSWER = 2**16
"""Bytes read of what the webhook answers."""
EVENTS_PER_TICK = 200
"""Check results looked at by one tick."""
_TEXT_LENGTH = 1500

_REMINDER = 24 * 3600.0
"""After so many seconds a run that fails as another one did is posted all the same."""
_MOST_REMEMBERED = 1000

OFF = "PARITY_ALERT_WEBHOOK is not set, so nothing is posted."


class AlertFailed(Exception):
    """The webhook did not take an alert; the text names no URL."""


def post_alert(settings: Settings, text: str, facts: Mapping[str, Any]) -> bool:
    """Post one alert to `PARITY_ALERT_WEBHOOK`; False if none is set.

    Raises:
        AlertFailed: it was refused, or not answered, several times.
    """
    if settings.alert_webhook is None:
        return False
    url = settings.alert_webhook.get_secret_value().strip()
    body = {"text": for_slack(text[:_TEXT_LENGTH]), "unfurl_links": False, "source": "parity_dagster", **facts}
    reason = ""
    with closing(BackgroundLoop(lambda: _open(settings), HttpClient.aclose, name="parity-alert")) as loop:
        for attempt in range(TRIES):
            if attempt:
                time.sleep(attempt)
            try:
                status = loop.call(lambda http: _post(http, url, body))
            except (ParityError, ValueError) as exc:  # ValueError: of a URL that is none
                reason = type(exc).__name__
                continue
            if status < 300:
                return True
            reason = f"status {status}"
            if 400 <= status < 500 and status not in (408, 429):
                break
    raise AlertFailed(f"the webhook in PARITY_ALERT_WEBHOOK did not take the alert ({reason}); check its URL")


def _open(settings: Settings) -> HttpClient:
    # Whoever set the webhook may well mean a machine in his own network.
    return open_http(settings, allow_private=True)


async def _post(http: HttpClient, url: str, body: Mapping[str, Any]) -> int:
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    headers = {"Authorization": "Basic " + b64encode(unquote_to_bytes(user)).decode()} if user else {}
    bare = parts._replace(netloc=host).geturl()
    return (await http.post(bare, body, headers=headers, max_bytes=MAX_ANSWER, timeout=TIMEOUT)).status


def for_slack(text: str) -> str:
    """Text that may hold what a stranger's server said, so that none of it pings anybody or hides where a link leads.

    Source: Slack's reference "Formatting text for app surfaces", "Escaping text": these three and no others.
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class Posted:
    """What was posted and need not be posted again, kept in Dagster's storage beside the daemon's own cursors."""

    def __init__(self, instance: dg.DagsterInstance, kind: str) -> None:
        self._storage = instance.daemon_cursor_storage
        self._key = f"parity_dagster/posted_{kind}"
        self._facts = self._load()

    def _load(self) -> dict[str, list[Any]]:
        try:
            found = json.loads(self._storage.get_cursor_values({self._key}).get(self._key, "{}"))
            return {name: [str(facts), float(at)] for name, (facts, at) in found.items()}
        except (ValueError, TypeError, AttributeError):
            return {}  # set by hand; what was posted is posted once more

    def has(self, subject: str, facts: str, seconds: float = math.inf) -> bool:
        """Whether these facts were what was posted last about the subject, and not too long ago."""
        before = self._facts.get(subject)
        return before is not None and before[0] == _digest(facts) and time.time() - before[1] < seconds

    def add(self, subject: str, facts: str) -> None:
        """Remember what was posted."""
        self._facts.pop(subject, None)
        self._facts[subject] = [_digest(facts), time.time()]
        self._facts = dict(list(self._facts.items())[-_MOST_REMEMBERED:])
        self._save()

    def drop(self, subject: str) -> None:
        """Whatever happens next about the subject is news."""
        if self._facts.pop(subject, None) is not None:
            self._save()

    def _save(self) -> None:
        self._storage.set_cursor_values({self._key: json.dumps(self._facts)})


def _digest(facts: str) -> str:
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def post_failed_run(settings: Settings, context: dg.RunFailureSensorContext) -> str:
    """Post a failed run with what its first failed step said; why not, if it is not posted.

    Three runs that fail alike, because pairs were tried three times, are one alert.
    """
    run = context.dagster_run
    said = news = context.failure_event.message or "no message"
    for event in context.get_step_failure_events():
        data = event.step_failure_data
        if data.user_failure_data is not None and data.user_failure_data.description:
            said = news = data.user_failure_data.description
            pairs = data.user_failure_data.metadata.get(FAILED_PAIRS)
            if isinstance(pairs, dg.TableMetadataValue):
                # how many others the run had is no news
                news = "\n".join(sorted(f"{row.data['error_code']} {row.data['partition']}" for row in pairs.records))
        elif data.error is not None:
            said = news = data.error.message.strip()
        break
    posted = Posted(context.instance, "runs")
    subject = f"{run.job_name} {_digest(news)}"
    if posted.has(subject, news, _REMINDER):
        return "A run that failed alike was posted already."
    facts = {
        "event": "run_failure",
        "run_id": run.run_id,
        "job": run.job_name,
        "message": said[:_TEXT_LENGTH],
        "path": f"/runs/{run.run_id}",
    }
    if not post_alert(settings, f"Run {run.run_id[:8]} ({run.job_name}) failed: {said}", facts):
        return OFF
    posted.add(subject, news)
    return ""


def post_failed_checks(settings: Settings, context: dg.SensorEvaluationContext) -> dg.SkipReason | None:
    """Post the checks that have failed since the tick before.

    The first tick only notes where the log ends. None is forgotten: one that cannot be posted is posted by a later
    tick. A check that still fails says it again only if it says something else.
    """
    storage = context.instance.event_log_storage
    if context.cursor is None:
        context.update_cursor(str(storage.get_maximum_record_id() or 0))
        return dg.SkipReason("From now on failed checks are posted.")
    records = storage.get_event_records(
        dg.EventRecordsFilter(event_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION, after_cursor=int(context.cursor)),
        limit=EVENTS_PER_TICK,
        ascending=True,
    )
    known = Posted(context.instance, "checks")
    posted = 0
    for record in records:
        event = record.event_log_entry.dagster_event
        if event is not None:
            evaluation = event.asset_check_evaluation_data
            subject = f"{evaluation.asset_key.to_user_string()} {evaluation.check_name}"
            facts = f"{evaluation.severity.value} {evaluation.description}"
            if evaluation.passed:
                known.drop(subject)
            elif not known.has(subject, facts) and _post_check(settings, evaluation, record.event_log_entry.run_id):
                known.add(subject, facts)
                posted += 1
        context.update_cursor(str(record.storage_id))
    return None if posted else dg.SkipReason(f"{len(records)} check results, none to be posted.")


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
