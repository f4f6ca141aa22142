"""Discovery in Dagster: the sensor notices that a list can be gone on with, a run reads a stretch of it and queues.

Where each list stands is in the database and not in the sensor's cursor, so nothing is lost with it. Annotations here
are evaluated (no `from __future__ import annotations`), because Dagster reads them.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple

import dagster as dg
from pydantic import Field

from parity_dagster.errors import ListBusy
from parity_dagster.models import Discovery
from parity_dagster.orchestration.dagster_compat import UNDER_WAY, plain_failures
from parity_dagster.orchestration.inbox import PRIORITY_TAG
from parity_dagster.orchestration.markdown import table
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect
from parity_dagster.store.discoveries import due_lists, find_discoveries
from parity_dagster.store.queue import wait_more_than

DISCOVERED_ACCOUNTS_KEY = dg.AssetKey(["discovered_accounts"])
DISCOVER_ACCOUNTS = "discover_accounts"
"""The job that makes it."""

ACCOUNTS_PER_RUN = 50_000
"""Accounts that one run of the sensor reads; the next one goes on."""
MOST_WAITING = 100_000
"""Pending pairs beyond which no list is gone on with: what is asked for meanwhile would have to wait behind them."""
SECONDS_BETWEEN_LOOKS = 30
MINUTES_BETWEEN_READINGS = 60
"""After the end of a list was seen; then the next reading looks for accounts that are new."""
SECONDS_BETWEEN_NOTES = 10.0

OFF = "Off: PARITY_DISCOVER names no collection."


class DiscoverConfig(dg.Config):
    """Run config of the asset."""

    nsids: list[str] = Field(
        [], description="collections whose accounts are looked for, in the place of PARITY_DISCOVER"
    )
    limit: int = Field(0, ge=0, description="accounts after which the run stops; 0 for none")
    from_start: bool = Field(False, description="read the lists from their start")


def build_discovered_asset() -> dg.AssetsDefinition:
    """Define the asset; it needs the resource `import_service`."""

    @dg.asset(
        key=DISCOVERED_ACCOUNTS_KEY,
        group_name="atproto",
        kinds={"bluesky", "postgres"},
        owners=["team:parity"],
        tags={"parity/table": "parity_discoveries"},
        description=(
            "Accounts that have written to the collections of PARITY_DISCOVER, as PARITY_RELAY_URL names them.\n\n"
            "A run goes on where the last one stopped, and queues the registered collections of every account that was "
            "not asked for before; `retry_sensor` launches their imports. `discovery_sensor` makes it by itself, a "
            "stretch of the list at a time. `parity discover` does the same from the command line."
        ),
        metadata={
            "dagster/table_name": "parity_discoveries",
            "dagster/column_schema": dg.TableSchema(
                columns=[
                    dg.TableColumn("server", "text", "Relay, directory of collections, or PDS"),
                    dg.TableColumn("collection", "text", "NSID that the accounts have written to; empty for all"),
                    dg.TableColumn("cursor", "text", "Where the next page starts"),
                    dg.TableColumn("accounts", "bigint", "Accounts that the last reading from the start has named"),
                    dg.TableColumn("queued", "bigint", "Pairs that were queued because of this list"),
                    dg.TableColumn("ended_at", "timestamptz", "When its end was last seen since; null if it was not"),
                    dg.TableColumn("error", "text", "Why the last reading ended early"),
                ]
            ),
        },
    )
    def discovered_accounts(
        context: dg.AssetExecutionContext, config: DiscoverConfig, import_service: dg.ResourceParam[ImportService]
    ) -> dg.MaterializeResult[None]:
        settings = import_service.settings
        nsids = config.nsids or settings.discover
        if not nsids:
            raise dg.Failure(
                description="Nothing to look for: name collections in PARITY_DISCOVER, or here, as in "
                "{ops: {discovered_accounts: {config: {nsids: [com.example.review]}}}}.",
                allow_retries=False,
            )
        with plain_failures():
            lists = import_service.discover(
                nsids,
                collections=settings.collections,
                limit=config.limit or None,
                from_start=config.from_start,
                on_progress=_Notes(context),
            )
            for found in lists:
                if found.error:
                    context.log.warning(found.error)
            if all(found.error and not found.pages and found.error_code != ListBusy.code for found in lists):
                raise dg.Failure(description=lists[0].error, allow_retries=False)
            with closing(connect(settings)) as conn:
                known = find_discoveries(conn, settings.state_table)
        return dg.MaterializeResult(metadata=_metadata(lists, known))

    return discovered_accounts


class _Notes:
    """Says now and then how far a reading is."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self._context = context
        self._noted = time.monotonic()

    def __call__(self, found: Discovery) -> None:
        if time.monotonic() - self._noted >= SECONDS_BETWEEN_NOTES:
            self._noted = time.monotonic()
            self._context.log.info(
                f"{found.collection}: {found.accounts:,} accounts in {found.pages:,} pages,"
                f" {found.queued:,} imports queued."
            )


def _metadata(lists: Sequence[Discovery], known: Sequence[dict[str, object]]) -> dict[str, dg.MetadataValue]:
    sums = {
        "accounts": sum(found.accounts for found in lists),
        "known_accounts": sum(found.known for found in lists),
        "new_imports": sum(found.queued for found in lists),
        "repeated_entries": sum(found.repeated for found in lists),
        "invalid_entries": sum(found.invalid for found in lists),
        "pages": sum(found.pages for found in lists),
    }
    metadata: dict[str, dg.MetadataValue] = {name: dg.MetadataValue.int(value) for name, value in sums.items()}
    metadata["is_complete"] = dg.MetadataValue.bool(all(found.is_complete for found in lists))
    if errors := [found.error for found in lists if found.error]:
        metadata["problem"] = dg.MetadataValue.text("; ".join(errors))
    titles = ["server", "collection", "#accounts", "#imports queued", "end seen", "last asked", "problem"]
    rows = [[row[name] for name in _SHOWN] for row in known]
    metadata["lists"] = dg.MetadataValue.md(table(titles, rows))
    return metadata


_SHOWN = ("server", "collection", "accounts", "queued", "ended_at", "tried_at", "error")


discover_accounts = dg.define_asset_job(
    DISCOVER_ACCOUNTS,
    selection=dg.AssetSelection.assets(DISCOVERED_ACCOUNTS_KEY),
    executor_def=dg.in_process_executor,
    description="Goes on with the lists of accounts of PARITY_DISCOVER and queues who is new.",
)


class Look(NamedTuple):
    """Whether lists are to be gone on with."""

    request: dg.RunRequest | None
    reason: str = ""
    """Why not."""


def look_for_lists(
    instance: dg.DagsterInstance,
    settings: Settings,
    *,
    accounts: int = ACCOUNTS_PER_RUN,
    most_waiting: int = MOST_WAITING,
) -> Look:
    """Ask for a run that goes on with what is due, one at a time.

    Args:
        accounts: that the run reads, at most.
        most_waiting: pending pairs beyond which nothing is gone on with.
    """
    if not settings.discover:
        return Look(None, OFF)
    under_way = dg.RunsFilter(job_name=DISCOVER_ACCOUNTS, statuses=UNDER_WAY)
    if instance.get_runs_count(under_way):
        return Look(None, "A run is reading.")
    with closing(connect(settings, autocommit=True)) as connection:
        due = due_lists(
            connection,
            settings.state_table,
            settings.relay_url,
            settings.discover,
            rest=MINUTES_BETWEEN_READINGS * 60,
            pause=settings.retry_delay,
        )
        if not due:
            return Look(None, "Every list was read to its end, or rests after a failure.")
        if wait_more_than(connection, settings.state_table, settings.collections, most_waiting):
            return Look(None, f"More than {most_waiting:,} imports wait; the lists are gone on with when fewer do.")
    config = {"nsids": due, "limit": accounts}
    return Look(
        dg.RunRequest(
            run_config={"ops": {DISCOVERED_ACCOUNTS_KEY.path[-1]: {"config": config}}}, tags={PRIORITY_TAG: "1"}
        )
    )
