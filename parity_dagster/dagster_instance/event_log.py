"""Dagster's event log on Postgres, with what the stock one lacks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing

import dagster as dg
import sqlalchemy as db
from dagster_postgres import PostgresEventLogStorage

from parity_dagster.dagster_instance.keys import RECORDS_KEY, from_partition_key
from parity_dagster.dagster_instance.private import (
    AssetEventTagsTable,
    AssetKeyTable,
    ConfigurableClassData,
    DynamicPartitionsTable,
    EventLogEntry,
    SqlEventLogStorageTable,
)
from parity_dagster.errors import InvalidIdentifier
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect
from parity_dagster.store.restore import forget_states
from parity_dagster.store.schema import MIGRATION_LOCK

PARTITIONS_PER_STATEMENT = 1000
ENDINGS = frozenset({dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_OBSERVATION})
"""Events that tell how a pair ended."""
ENDINGS_LOCK = MIGRATION_LOCK + 2
"""Advisory lock that transactions share in which endings are written."""


class ParityEventLogStorage(PostgresEventLogStorage):
    """The event log of `ParityStorage`, beside the state table that the settings name."""

    def __init__(self, settings: Settings, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(postgres_url, should_autocreate_tables=False, inst_data=inst_data)
        self._settings = settings

    def store_event(self, event: EventLogEntry) -> None:
        """Write an event; one that tells how a pair ended, in one transaction."""
        if event.dagster_event_type in ENDINGS:
            self._store_endings([event])
        else:
            super().store_event(event)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Write a batch of events.

        The stock storage commits materializations and observations, and only then what finds them by dimension and
        shows their asset; whoever is killed in between leaves events that look written and are half there. Planned
        events it writes one by one: several milliseconds for each partition of a run before the run can start.
        """
        planned = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
        kinds = {event.dagster_event_type for event in events}
        if len(kinds) == 1 and kinds <= ENDINGS:
            self._store_endings(events)
            return
        if kinds != {planned}:
            super().store_event_batch(events)
            return
        statement = self.prepare_insert_event_batch(events).returning(SqlEventLogStorageTable.c.id)
        with self._connect() as connection:
            ids = sorted(int(row[0]) for row in connection.execute(statement))
        # the asset's row remembers the latest run only, so the last event of each asset is enough
        latest = {event.get_dagster_event().asset_key: event for event in events}
        with self.index_transaction() as connection:
            for event in latest.values():
                self._store_asset_event(connection, event, ids[-1])

    def _store_endings(self, events: Sequence[EventLogEntry]) -> None:
        with self.index_transaction() as connection:
            connection.execute(db.select(db.func.pg_advisory_xact_lock_shared(ENDINGS_LOCK)))
            statement = self.prepare_insert_event_batch(events).returning(SqlEventLogStorageTable.c.id)
            ids = [int(row[0]) for row in connection.execute(statement)]
            self._store_asset_event_tags(connection, events, ids)
            # the asset's row remembers the latest event only
            latest = {str(event.get_dagster_event().asset_key): at for at, event in enumerate(events)}
            for _, at in sorted(latest.items()):  # whoever writes of several takes turns
                self._store_asset_event(connection, events[at], ids[at])

    def wait_for_endings(self) -> None:
        """Wait until the server has finished with what anybody is writing of endings, the dead included."""
        with self.index_transaction() as connection:
            connection.execute(db.select(db.func.pg_advisory_xact_lock(ENDINGS_LOCK)))

    def withdraw_plans(self, asset_key: dg.AssetKey, partition_keys: Sequence[str], run_id: str | None = None) -> None:
        """Let partitions be neither materializing nor failed, whatever run was to materialize them.

        Args:
            run_id: of the run that asks for it; it has not failed yet.
        """
        events = SqlEventLogStorageTable
        planned = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value
        others: set[str] = set()
        with self.index_transaction() as connection:
            for start in range(0, len(partition_keys), PARTITIONS_PER_STATEMENT):
                keys = partition_keys[start : start + PARTITIONS_PER_STATEMENT]
                rows = connection.execute(
                    db.update(events)
                    .where(
                        events.c.asset_key == asset_key.to_string(),
                        events.c.dagster_event_type == planned,
                        events.c.partition.in_(keys),
                    )
                    .values(asset_key=None, partition=None)
                    .returning(events.c.run_id)
                )
                others |= {row[0] for row in rows} - {run_id}
            if others:
                # they may be red, and are remembered so
                connection.execute(
                    AssetKeyTable.update()
                    .where(AssetKeyTable.c.asset_key == asset_key.to_string())
                    .values(cached_status_data=None)
                )

    def count_dynamic_partitions(self, name: str) -> int:
        """How many partitions have been added to a dynamic definition, without reading their keys."""
        table = DynamicPartitionsTable
        statement = db.select(db.func.count()).select_from(table).where(table.c.partitions_def_name == name)
        with self.index_connection() as connection:
            return int(connection.execute(statement).scalar_one())

    def wipe_asset(self, asset_key: dg.AssetKey) -> None:
        """Wipe an asset; pairs whose materialization is wiped are not imported any more."""
        if asset_key == RECORDS_KEY:
            # first, so that nothing is called imported that no materialization stands for
            forget_wiped(self._settings, None)
        super().wipe_asset(asset_key)

    def wipe_asset_partitions(self, asset_key: dg.AssetKey, partition_keys: Sequence[str]) -> None:
        """Wipe partitions of an asset; pairs whose materialization is wiped are not imported any more.

        Events stay on the pages of the runs that wrote them; they only do not belong to the asset any more.
        """
        if asset_key == RECORDS_KEY:
            forget_wiped(self._settings, partition_keys)
        with self.index_transaction() as connection:
            for start in range(0, len(partition_keys), PARTITIONS_PER_STATEMENT):
                self._detach(connection, asset_key, partition_keys[start : start + PARTITIONS_PER_STATEMENT])
        self._remember_newest(asset_key)

    def delete_partitions(self, asset_key: dg.AssetKey, partition_keys: Sequence[str]) -> int:
        """Delete the events of partitions of an asset, on the pages of their runs, too; says how many there were."""
        with self.index_transaction() as connection:
            ids = self._detach(connection, asset_key, partition_keys)
            connection.execute(db.delete(SqlEventLogStorageTable).where(SqlEventLogStorageTable.c.id.in_(ids)))
        self._remember_newest(asset_key)
        return len(ids)

    def _remember_newest(self, asset_key: dg.AssetKey) -> None:
        newest = self.fetch_materializations(asset_key, limit=1).records
        with self.index_connection() as connection:
            connection.execute(
                AssetKeyTable.update()
                .where(AssetKeyTable.c.asset_key == asset_key.to_string())
                .values(
                    last_materialization=dg.serialize_value(newest[0]) if newest else None,
                    # the cached colours of the matrix are worked out anew from the events that are left
                    cached_status_data=None,
                )
            )

    def _detach(self, connection: db.Connection, asset_key: dg.AssetKey, keys: Sequence[str]) -> list[int]:
        events = SqlEventLogStorageTable
        ids = [
            row[0]
            for row in connection.execute(
                db.update(events)
                .where(events.c.asset_key == asset_key.to_string(), events.c.partition.in_(keys))
                .values(asset_key=None, partition=None)
                .returning(events.c.id)
            )
        ]
        connection.execute(db.delete(AssetEventTagsTable).where(AssetEventTagsTable.c.event_id.in_(ids)))
        return ids


def forget_wiped(settings: Settings, partitions: Iterable[str] | None) -> int:
    """Make pairs (None: all) not imported whose materializations are wiped in the UI; their records stay."""
    pairs = None
    if partitions is not None:
        pairs = []
        for key in partitions:
            try:
                pairs.append(from_partition_key(key))
            except InvalidIdentifier:
                continue  # no pair was ever imported under such a key
    with closing(connect(settings)) as connection:
        forgotten = forget_states(connection, settings.state_table, pairs)
        connection.commit()
    return forgotten
