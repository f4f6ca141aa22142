"""What a service has on its loop: network, database and pipeline."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, TypeVar

from parity_dagster.importing.collector import fewer_collections
from parity_dagster.models import FailedRecord, ImportState, ImportStatus, Pair, RetryResult
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect
from parity_dagster.store.failed_records import find_failed_records
from parity_dagster.store.outbox import Delivered, Pending, drop_delivered, find_pending
from parity_dagster.store.schema import check_schema
from parity_dagster.store.states import StateStore

if TYPE_CHECKING:
    from parity_dagster.atproto.network import Network
    from parity_dagster.importing.live import LiveWriter
    from parity_dagster.importing.writer import Emit
    from parity_dagster.store.sessions import Database

Result = TypeVar("Result")

ANNOUNCING_PATIENCE = 5.0
"""Seconds that noting "the listeners know" may wait for a database that went away; it can be noted later."""


class Engine:
    """The asynchronous half of a service."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.database = database
        self._settings = settings
        self._states = StateStore(settings.state_table)
        self._live: LiveWriter | None = None
        self._network: Network | None = None

    @classmethod
    def open(cls, settings: Settings) -> Engine:
        """Make sure that there is a database to work with; blocks.

        Raises:
            DatabaseError: no database, or one without this version's tables.
        """
        with connect(settings) as conn:
            check_schema(conn, settings)
        from parity_dagster.store.sessions import Database

        return cls(settings, Database(settings))

    async def aclose(self) -> None:
        """Close every connection."""
        if self._network is not None:
            await self._network.aclose()
        if self._live is not None:
            await self._live.close()
        await self.database.close()

    @property
    def network(self) -> Network:
        """What asks others' servers; there is one while the loop runs."""
        if self._network is None:
            # Loaded when the network is first needed: asking for a status must stay quick.
            from parity_dagster.atproto.network import open_network

            self._network = open_network(self._settings)
        return self._network

    async def run(
        self,
        pairs: Iterable[Pair],
        emit: Emit,
        *,
        run_id: str | None,
        refresh: bool,
        reread: bool = False,
        patience: float | None,
    ) -> None:
        """Import pairs.

        Args:
            pairs: distinct, checked pairs.
            patience: seconds after which walks make room, once only long ones are left.
        """
        from parity_dagster.importing.accounts import Accounts
        from parity_dagster.importing.importer import Importer

        repo = self.network.repos
        accounts = Accounts(self.network.identities, repo, self.database)
        importer = Importer(
            self._settings,
            self.database,
            repo,
            accounts,
            emit,
            run_id=run_id,
            refresh=refresh,
            reread=reread,
            patience=patience,
        )
        with fewer_collections():
            await importer.run(pairs)

    async def resolve_handle(self, handle: str) -> str:
        """The DID behind a handle."""
        return await self.network.identities.resolve_handle(handle)

    async def find_states(
        self,
        *,
        did: str | None = None,
        collection: str | None = None,
        statuses: Collection[ImportStatus] | None = None,
    ) -> list[ImportState]:
        """See `StateStore.find`."""
        return await self.database.run(
            lambda conn: self._states.find(conn, did=did, collection=collection, statuses=statuses)
        )

    async def find_resumable(self) -> list[Pair]:
        """See `StateStore.find_resumable`."""
        return await self.database.run(self._states.find_resumable)

    async def reset(self, did: str, collection: str | None) -> int:
        """See `StateStore.reset`."""
        return await self.database.run(lambda conn: self._states.reset(conn, did, collection))

    async def enqueue(self, pairs: list[Pair], *, refresh: bool, reread: bool = False) -> list[Pair]:
        """See `StateStore.enqueue`."""
        return await self.database.run(lambda conn: self._states.enqueue(conn, pairs, refresh=refresh, reread=reread))

    async def find_failed_records(self, did: str | None) -> list[FailedRecord]:
        """See `store.failed_records.find_failed_records`."""
        return await self.database.run(lambda conn: find_failed_records(conn, did=did))

    async def retry_failed_records(self, did: str | None) -> RetryResult:
        """See `importing.retrying`."""
        from parity_dagster.importing.mappers import Mappers
        from parity_dagster.importing.retry_failed import Retry

        return await Retry(self.database, self._settings.state_table, Mappers(self._settings.mappers)).run(did)

    @property
    def live(self) -> LiveWriter:
        """What writes live events; there is one while the loop runs."""
        if self._live is None:
            from parity_dagster.importing.live import LiveWriter

            self._live = LiveWriter(self.database, self._settings)
        return self._live

    async def find_pending(self, limit: int) -> list[Pending]:
        """See `store.outbox.find_pending`."""
        return await self.database.run(lambda conn: find_pending(conn, self._settings.state_table, limit))

    async def drop_delivered(self, delivered: list[Delivered]) -> None:
        """See `store.outbox.drop_delivered`."""
        await self.database.run(
            lambda conn: drop_delivered(conn, self._settings.state_table, delivered), patience=ANNOUNCING_PATIENCE
        )
