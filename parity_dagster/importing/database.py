"""The pipeline's sessions: one for questions, one that holds the claim lock, one per writer."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import psycopg
from psycopg import AsyncConnection

from parity_dagster.errors import DatabaseUnreachable
from parity_dagster.settings import Settings
from parity_dagster.store.sessions import PASSING, REFUSED_DATA, failed, open_session

Result = TypeVar("Result")


class Session:
    """One session with Postgres that is opened when first used and again when it is lost."""

    def __init__(self, settings: Settings, prepare: Callable[[AsyncConnection], Awaitable[None]] | None = None) -> None:
        self._settings = settings
        self._patience = settings.database_patience
        self._prepare = prepare
        self._conn: AsyncConnection | None = None
        self._lock = asyncio.Lock()

    async def run(
        self, work: Callable[[AsyncConnection], Awaitable[Result]], *, patience: float | None = None
    ) -> Result:
        """Do something on the session, again from its start if the database fails in a way that passes.

        Args:
            work: called with the connection, in no transaction; must be repeatable.
            patience: seconds to keep trying; the session's own if None.

        Raises:
            DatabaseError: it did not pass in time, or never will; the text says what to do.
            psycopg.DataError and the like: a value was refused, which is for the caller to sort out.
        """
        async with self._lock:
            deadline = time.monotonic() + (self._patience if patience is None else patience)
            delay = 0.05
            while True:
                try:
                    return await work(await self.connection())
                except asyncio.CancelledError:
                    # The transaction may be half done, and what would end it is cancelled as well.
                    self._abandon()
                    raise
                except DatabaseUnreachable:
                    if time.monotonic() > deadline:
                        raise
                except (*REFUSED_DATA, psycopg.IntegrityError):
                    raise
                except PASSING as exc:
                    if time.monotonic() > deadline:
                        raise failed(exc) from exc
                    if isinstance(exc, psycopg.OperationalError | psycopg.InterfaceError):
                        await self._drop_if_broken()
                except psycopg.Error as exc:
                    raise failed(exc) from exc
                await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - not for secrets
                delay = min(delay * 2, 2.0)

    async def connection(self) -> AsyncConnection:
        """The open connection; it may have to be opened.

        Returns:
            A connection in autocommit mode, prepared.

        Raises:
            DatabaseUnreachable: there is none to be had.
        """
        if self._conn is None or self._conn.closed or self._conn.broken:
            conn = await open_session(self._settings)
            if self._prepare:
                await self._prepare(conn)
            self._conn = conn
        return self._conn

    async def close(self) -> None:
        """End the session; whatever it held is freed."""
        if self._conn is not None:
            with suppress(psycopg.Error):
                await self._conn.close()
            self._conn = None

    def _abandon(self) -> None:
        if self._conn is not None:
            self._conn.pgconn.finish()
            self._conn = None

    async def _drop_if_broken(self) -> None:
        if self._conn is not None and (self._conn.closed or self._conn.broken):
            await self.close()


class Database:
    """Where a service's questions go; writers and claims have sessions of their own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session = Session(settings)

    async def run(
        self, work: Callable[[AsyncConnection], Awaitable[Result]], *, patience: float | None = None
    ) -> Result:
        """Do something on the shared session; see `Session.run`.

        Args:
            patience: seconds to keep trying; the session's own if None.
        """
        return await self._session.run(work, patience=patience)

    def session(self, prepare: Callable[[AsyncConnection], Awaitable[None]] | None = None) -> Session:
        """A session of one's own.

        Returns:
            A session that is not open yet.
        """
        return Session(self._settings, prepare)

    async def close(self) -> None:
        """End the shared session."""
        await self._session.close()
