"""One importer per pair at a time: this importer's number, and the session whose lock keeps its claims alive."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from psycopg import AsyncConnection

from parity_dagster.errors import DatabaseError, UnsupportedServer
from parity_dagster.models import Pair
from parity_dagster.store.sessions import Database
from parity_dagster.store.states import Claim, StateStore, current_backend

WATCH_SECONDS = 5.0
"""Seconds between two looks at the session that holds the lock; so long a lost one may go unnoticed."""


class Claims:
    """The claims of one importer."""

    def __init__(self, database: Database, states: StateStore, run_id: str | None) -> None:
        self.importer_id = 0
        self._states = states
        self._run_id = run_id
        self._database = database
        self._session = database.session(self._hold_again)

    async def open(self) -> None:
        """Get a number and hold its lock; whatever comes of it, `close` gives it back."""
        self.importer_id = importer_id = await self._session.run(self._states.new_importer_id)
        await self._session.run(lambda conn: self._states.register_importer(conn, importer_id, self._run_id))
        backend = await self._session.run(lambda conn: self._states.find_backend(conn, self.importer_id))
        if backend is None or backend == await self._database.run(current_backend):
            raise UnsupportedServer(
                "PARITY_DATABASE_URL leads to a pooler that gives several clients one session (transaction mode), and"
                " an import needs its own: use the server's own address, or the pooler in session mode"
            )

    async def hold(self) -> None:
        """Make sure that the lock is held; a lost session is opened and takes it again."""
        await self._session.run(_ping)

    async def watch(self) -> None:
        """Keep looking whether the lock is held; runs until cancelled."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            with suppress(DatabaseError):  # whoever needs the database next says so
                await self.hold()

    async def take(self, pairs: Sequence[Pair], *, refresh: bool, reread: bool = False) -> list[Claim]:
        """Claim pairs; with `reread`, to be read from their start whatever their revision."""
        return await self._database.run(
            lambda conn: self._states.claim(conn, pairs, self.importer_id, self._run_id, refresh=refresh, reread=reread)
        )

    async def close(self) -> None:
        """Give back what is still held."""
        try:
            if self.importer_id:
                await self._session.run(lambda conn: self._states.release_importer(conn, self.importer_id), patience=0)
        finally:
            await self._session.close()

    async def _hold_again(self, conn: AsyncConnection) -> None:
        if self.importer_id:
            await self._states.hold_importer(conn, self.importer_id)


async def _ping(conn: AsyncConnection) -> None:
    await conn.execute("SELECT 1")
