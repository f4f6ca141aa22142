"""What the tests of the Dagster layer share: a place to run in and ways to look at what a run left behind."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

import dagster as dg

from parity_dagster.dagster_instance.keys import RECORDS_KEY, from_partition_key, to_partition_key
from parity_dagster.definitions import build_defs
from parity_dagster.events import ImportEvent
from parity_dagster.models import ImportState, Pair
from parity_dagster.orchestration.metadata import state_from_metadata
from parity_dagster.orchestration.report import report_pending
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings

PARTITION = "dagster/partition"
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


class ReportedAtOnce:
    """A listener for tests that look into Dagster after each call of the service, as after a tick of the sensor."""

    def __init__(self, instance: dg.DagsterInstance, settings: Settings) -> None:
        self._instance = instance
        self._settings = settings

    def __call__(self, event: ImportEvent) -> None:
        """Take one event."""

    def flush(self) -> None:
        """Report what is committed."""
        report_pending(self._instance, self._settings)


def run(
    settings: Settings,
    instance: dg.DagsterInstance,
    job: str = "import_partitions",
    *,
    tags: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
) -> dg.ExecuteInProcessResult:
    """One run of a job of the code location, in this process, as `dagster job execute` does it."""
    definition = build_defs(settings).resolve_job_def(job)
    return definition.execute_in_process(
        instance=instance, run_config=dict(config or {}), tags=tags, raise_on_error=False
    )


def one(pair: Pair) -> dict[str, str]:
    """Tags of a run of one partition."""
    return {PARTITION: to_partition_key(pair)}


def rectangle(first: Pair, last: Pair) -> dict[str, str]:
    """Tags of a run of all partitions between two."""
    return {RANGE_START: to_partition_key(first), RANGE_END: to_partition_key(last)}


def materialized(result: dg.ExecuteInProcessResult) -> list[Pair]:
    """Pairs that a run materialized, as often as it did."""
    return [from_partition_key(str(event.partition)) for event in result.all_events if event.is_step_materialization]


def observed(result: dg.ExecuteInProcessResult) -> list[Pair]:
    """Pairs that a run observed, as often as it did."""
    return [from_partition_key(str(event.partition)) for event in result.all_events if event.is_asset_observation]


def failure(result: dg.ExecuteInProcessResult) -> tuple[str, Mapping[str, dg.MetadataValue]]:
    """What a failed run says, and its metadata."""
    (event,) = [event for event in result.all_events if event.is_step_failure]
    said = event.step_failure_data.user_failure_data
    assert said is not None
    return said.description or "", said.metadata


def remembered(instance: dg.DagsterInstance, pair: Pair) -> ImportState:
    """The row in the latest materialization of a pair."""
    event = instance.get_latest_materialization_event(RECORDS_KEY)
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(RECORDS_KEY, asset_partitions=[to_partition_key(pair)]), limit=1
    ).records
    assert event is not None
    assert records, f"{pair} is not materialized"
    materialization = records[0].asset_materialization
    assert materialization is not None
    return state_from_metadata(materialization.metadata)


def row(settings: Settings, pair: Pair) -> ImportState | None:
    """The pair's row in the state table."""
    with closing(ImportService(settings, report=False)) as service:
        return service.get_status(*pair)
