"""The asset `import_overview`: what is held, how complete it is, what failed and why, how fast it came.

Annotations here are evaluated (no `from __future__ import annotations`), because Dagster reads them.
"""

from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from typing import NamedTuple

import dagster as dg

from parity_dagster.orchestration.dagster_compat import plain_failures
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect
from parity_dagster.store.overview import latest_change, read_holdings

OVERVIEW_KEY = dg.AssetKey("import_overview")
OVERVIEW_VERSION = "2"
"""Counted up when the overview shows something else than before, so that Dagster calls older ones outdated."""
QUIET_SECONDS = 20
"""How long no import may have changed anything before the overview is made anew."""
SECONDS_BETWEEN_OVERVIEWS = 300


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
        kinds={"pandas", "postgres"},
        owners=["team:parity"],
        description=(
            "What is held, how complete it is, what failed and why, per collection and host, the largest and the "
            "slowest, and records over time. Open the metadata `overview` of its last materialization."
        ),
    )
    def import_overview(import_service: dg.ResourceParam[ImportService]) -> dg.MaterializeResult[None]:
        # it loads pandas, which costs a second and which nothing else needs
        from parity_dagster.orchestration.overview_page import overview_metadata

        settings = import_service.settings
        with plain_failures(), closing(connect(settings)) as conn:
            holdings = read_holdings(conn, settings.state_table)
        return dg.MaterializeResult(metadata=overview_metadata(holdings))

    return import_overview


class Look(NamedTuple):
    """Whether the overview is to be made anew."""

    reason: str
    """Why not; empty if it is."""
    cursor: str = ""
    """What the sensor remembers of an overview that is."""


def look_for_changes(settings: Settings, cursor: str | None) -> Look:
    """See whether imports have changed something and come to rest since the overview that the cursor names."""
    with closing(connect(settings)) as conn:
        change = latest_change(conn, settings.state_table)
    if change is None:
        return Look("Nothing has been imported yet.")
    seen, _, launched = (cursor or "").partition(" ")
    if seen and change.at == datetime.fromisoformat(seen):
        return Look("Nothing has changed since the last overview.")
    pause = (change.now - datetime.fromisoformat(launched)).total_seconds() if launched else SECONDS_BETWEEN_OVERVIEWS
    if pause < SECONDS_BETWEEN_OVERVIEWS or (change.now - change.at).total_seconds() < QUIET_SECONDS:
        return Look("Imports are going on; the overview follows.")
    return Look("", f"{change.at.isoformat()} {change.now.isoformat()}")
