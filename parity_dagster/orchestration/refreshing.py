"""What a tick of `refresh_sensor` does, and says."""

from __future__ import annotations

from parity_dagster.errors import ParityError
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.freshness import age_text

SECONDS = 15.0
"""After which a tick begins nothing new; Dagster gives up one that takes a minute."""


def refresh_stale(settings: Settings) -> str:
    """Confirm or queue the stalest copies; a sentence about what was done."""
    if settings.refresh_every is None:
        return "PARITY_REFRESH_EVERY is not set, e.g. to 7d."
    try:
        with ImportService(settings, report=False) as service:
            done = service.refresh_stale(seconds=SECONDS)
    except ParityError as exc:
        return str(exc)
    parts = []
    if done.queued:
        parts.append(f"{done.queued:,} pair{'s' * (done.queued != 1)} queued")
    if done.pages:
        pages = f"{done.pages:,} page{'s' * (done.pages != 1)}"
        parts.append(f"{done.confirmed:,} confirmed by {pages} of their hosts' lists")
    age = "" if done.stalest_seconds is None else f"; the stalest copy is {age_text(done.stalest_seconds)} old"
    return f"{' and '.join(parts) or 'Nothing is due'}{age}."
