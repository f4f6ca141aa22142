"""The state table and Dagster's memory of it, brought into line.

The table is what imports read and write; each commit that ends a pair is followed by an event with the whole
row. So the newest event of a partition, be it a materialization or an observation, is the pair's row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing

import dagster as dg

from parity_dagster.dagster_instance.keys import RECORDS_KEY, to_partition_key
from parity_dagster.models import ImportState, Pair
from parity_dagster.orchestration.metadata import state_from_metadata
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect
from parity_dagster.store.restore import restore_states

EVENTS_PER_QUERY = 1000
"""Events read at once; bounds the memory, whatever the number of partitions."""
PARTITIONS_PER_QUERY = 100
"""Partitions whose history is read at once."""


def rebuild_states(instance: dg.DagsterInstance, settings: Settings) -> int:
    """Write the state table anew from Dagster's metadata alone.

    Rows that are newer than what Dagster knows, and rows that an importer holds, stay as they are. Events that
    were not written by this package are passed over.
    """
    with closing(connect(settings)) as connection:
        restored = restore_states(connection, settings.state_table, remembered_states(instance))
        connection.commit()
    return restored


def remembered_states(instance: dg.DagsterInstance, partitions: set[str] | None = None) -> Iterator[ImportState]:
    """The newest row that Dagster remembers of each pair that was not wiped since, or of some partition keys."""
    newest = newest_events(instance, partitions)
    ids = {
        kind: [event_id for event_id, of_kind in newest.values() if of_kind is kind]
        for kind in (dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_OBSERVATION)
    }
    for kind, event_ids in ids.items():
        for start in range(0, len(event_ids), EVENTS_PER_QUERY):
            yield from _states(instance, kind, event_ids[start : start + EVENTS_PER_QUERY])


def emptied_pairs(instance: dg.DagsterInstance, empty: Mapping[Pair, str | None]) -> dict[Pair, int]:
    """Pairs without a record of which Dagster remembers some, at the very revision that they are at.

    Args:
        instance: whose events are read, up to some thousand of the pairs' newest.
        empty: revision of each pair without a record.
    """
    found: dict[Pair, int] = {}
    pairs = list(empty)
    for start in range(0, len(pairs), PARTITIONS_PER_QUERY):
        keys = [to_partition_key(pair) for pair in pairs[start : start + PARTITIONS_PER_QUERY]]
        wanted = dg.AssetRecordsFilter(RECORDS_KEY, asset_partitions=keys)
        for record in instance.fetch_materializations(wanted, limit=EVENTS_PER_QUERY).records:
            event = record.asset_materialization
            try:
                then = state_from_metadata(event.metadata if event else {})
            except (KeyError, ValueError):
                continue  # somebody else's event
            if then.records_synced and then.rev is not None and then.rev == empty.get(then.pair):
                found[then.pair] = then.records_synced
    return found


def newest_events(
    instance: dg.DagsterInstance, partitions: set[str] | None = None
) -> dict[str, tuple[int, dg.DagsterEventType]]:
    """Which event is the last word on each partition, or on some; one query per kind, whatever their number."""
    newest: dict[str, tuple[int, dg.DagsterEventType]] = {}
    for kind in (dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_OBSERVATION):
        by_partition = instance.event_log_storage.get_latest_storage_id_by_partition(RECORDS_KEY, kind, partitions)
        for partition, event_id in by_partition.items():
            if partition is not None and event_id > newest.get(partition, (0, kind))[0]:
                newest[partition] = (event_id, kind)
    return newest


def _states(instance: dg.DagsterInstance, kind: dg.DagsterEventType, event_ids: list[int]) -> Iterator[ImportState]:
    wanted = dg.AssetRecordsFilter(RECORDS_KEY, storage_ids=event_ids)
    fetch = (
        instance.fetch_materializations
        if kind is dg.DagsterEventType.ASSET_MATERIALIZATION
        else instance.fetch_observations
    )
    for record in fetch(wanted, limit=len(event_ids)).records:
        event = record.asset_materialization or record.asset_observation
        if event is None:
            continue
        try:
            yield state_from_metadata(event.metadata)
        except (KeyError, ValueError):
            # somebody else's event on our asset, such as one reported by hand in the UI
            continue
