"""Sessions with PostgreSQL that are opened again when they are lost, and wait while the server is away.

Questions and single statements go through a `SyncSession`; what lives on the event loop has a `Session` each.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.pq import PipelineStatus, TransactionStatus

from parity_dagster.errors import DatabaseUnreachable, Interrupted, SettingsError
from parity_dagster.settings import Settings
from parity_dagster.store.connecting import APPLICATION, open_async_connection
from parity_dagster.store.database import connect, connection_url, unreachable
from parity_dagster.store.postgres_errors import Patience
from parity_dagster.threads import beside_the_loop

Result = TypeVar("Result")

# The pipeline looks rows up by their keys. A table that has just been made is empty to the planner, which would read it
# as a whole for each row of a batch, and keep to that while the table grows.
_PIPELINE_SETTINGS = (
    "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 4; SET jit = off;"
    " SET enable_seqscan = off"
)

# What the server has sent to a machine that vanished is sent again for a quarter of an hour, and no keepalive is sent
# meanwhile: so long it would keep the machine's claims and locks. Only on the loop, which always reads what comes.
_UNACKNOWLEDGED = "; SET tcp_user_timeout = '30s'"

SEND_BUFFER = 2 * 2**20
"""Bytes; the system's own limit (Linux: net.core.wmem_max) may make it less."""


class SyncSession:
    """A session for any number of threads, one of them at a time; opened by the first question, and again in a fork.

    Args:
        prepare: called with the connection whenever it is opened.
    """

    def __init__(self, settings: Settings, prepare: Callable[[Connection], None] | None = None) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._has_ended = threading.Event()
        self._has_met = False
        self._prepare = prepare
        self._conn: Connection | None = None
        self._finalizer: weakref.finalize[..., SyncSession] | None = None
        _sync_sessions.add(self)

    def run(self, work: Callable[[Connection], Result], *, patience: float | None = None) -> Result:
        """Do something in a transaction of its own, again from its start if the database fails in a way that passes.

        Nobody waits for a server that was never met.

        Args:
            work: must be repeatable.
            patience: seconds to keep trying; `database_patience` if None.

        Raises:
            DatabaseError: it did not pass in time, or never will; the text says what to do.
            Interrupted: the session has ended.
        """
        with self._lock:
            trying = Patience(self._settings.database_patience if patience is None else patience)
            try:
                while not self._has_ended.is_set():
                    try:
                        return self._once(work)
                    except (DatabaseUnreachable, psycopg.Error) as exc:
                        if not self._has_met and isinstance(exc, DatabaseUnreachable):
                            raise
                        delay = trying.pause(exc)
                    self._has_ended.wait(delay)
                raise Interrupted("the service was closed")
            finally:
                if self._has_ended.is_set():
                    self._drop()

    def _once(self, work: Callable[[Connection], Result]) -> Result:
        conn = self._conn or self._open()
        try:
            with conn.transaction():
                return work(conn)
        finally:
            if conn.info.transaction_status != TransactionStatus.IDLE:  # lost, or interrupted halfway
                self._drop()

    def end(self) -> None:
        """Close the session for good, after what is under way on it; whoever waits for the database waits no more."""
        self._has_ended.set()
        if self._lock.acquire(blocking=False):
            try:
                self._drop()
            finally:
                self._lock.release()

    def _open(self) -> Connection:
        self._conn = connect(self._settings, autocommit=True)
        # A script need not close anything: this is also called when nobody has the session any more, and at the end.
        self._finalizer = weakref.finalize(self, _close, self._conn, self._lock)
        try:
            self._conn.execute(f"SET application_name = '{APPLICATION}'; {_PIPELINE_SETTINGS}".encode())
            if self._prepare is not None:
                self._prepare(self._conn)
        except BaseException:
            self._drop()  # half prepared, nobody may use it
            raise
        self._has_met = True
        return self._conn

    def _drop(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._detach()

    def _detach(self) -> None:
        self._conn = None
        if self._finalizer is not None:
            self._finalizer.detach()

    def _leave_to_parent(self) -> None:
        """A fork's copy of a connection ends without a word to the server, which would end the parent's."""
        conn, is_used = self._conn, self._lock.locked()
        self._detach()
        self._lock, ended = threading.Lock(), self._has_ended.is_set()
        self._has_ended = threading.Event()
        if ended:
            self._has_ended.set()
        if conn is not None and not conn.closed:
            nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.dup2(nowhere, conn.fileno(), inheritable=False)
            os.close(nowhere)
            if is_used:  # by a thread that the fork does not have
                _left_behind.append(conn)
            else:
                conn.close()


_sync_sessions: weakref.WeakSet[SyncSession] = weakref.WeakSet()
_left_behind: list[Connection] = []


def _close(conn: Connection, lock: threading.Lock) -> None:
    if lock.acquire(blocking=False):  # else a daemon thread uses it, which must not wake up to complain
        conn.close()


def _forget_in_fork() -> None:
    for session in list(_sync_sessions):
        session._leave_to_parent()


os.register_at_fork(after_in_child=_forget_in_fork)


class Session:
    """One session of the event loop."""

    def __init__(self, settings: Settings, prepare: Callable[[AsyncConnection], Awaitable[None]] | None = None) -> None:
        self._settings = settings
        self._prepare = prepare
        self._conn: AsyncConnection | None = None
        self._lock = asyncio.Lock()

    async def run(
        self, work: Callable[[AsyncConnection], Awaitable[Result]], *, patience: float | None = None
    ) -> Result:
        """Do something on the session, again from its start if the database fails in a way that passes.

        Args:
            work: called with the connection, in no transaction; must be repeatable.
            patience: seconds to keep trying; `database_patience` if None.

        Raises:
            DatabaseError: it did not pass in time, or never will; the text says what to do.
            psycopg.DataError and the like: a value was refused, which is for the caller to sort out.
        """
        async with self._lock:
            trying = Patience(self._settings.database_patience if patience is None else patience)
            while True:
                try:
                    return await work(await self.connection())
                except asyncio.CancelledError:
                    # The transaction may be half done, and what would end it is cancelled as well.
                    self._abandon()
                    raise
                except (DatabaseUnreachable, psycopg.Error) as exc:
                    delay = trying.pause(exc)
                    await self._drop_unless_idle()
                await asyncio.sleep(delay)

    async def connection(self) -> AsyncConnection:
        """The open connection, in autocommit mode and prepared; it may have to be opened.

        Raises:
            DatabaseUnreachable: there is none to be had.
        """
        if self._conn is None or self._conn.closed or self._conn.broken:
            self._conn = await open_session(self._settings)
            if self._prepare:
                try:
                    await self._prepare(self._conn)
                except BaseException:
                    self._abandon()  # half prepared, nobody may use it
                    raise
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

    async def _drop_unless_idle(self) -> None:
        """A server that ends a session amid a pipeline leaves a connection that is neither broken nor of any use."""
        if self._conn is None:
            return
        pgconn = self._conn.pgconn
        if (pgconn.transaction_status, pgconn.pipeline_status) != (TransactionStatus.IDLE, PipelineStatus.OFF):
            await self.close()


class Database:
    """Where the importer's questions go; writers and claims have sessions of their own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session = Session(settings)

    async def run(
        self, work: Callable[[AsyncConnection], Awaitable[Result]], *, patience: float | None = None
    ) -> Result:
        """Do something on the shared session; see `Session.run`."""
        return await self._session.run(work, patience=patience)

    def session(self, prepare: Callable[[AsyncConnection], Awaitable[None]] | None = None) -> Session:
        """A session of one's own, not open yet."""
        return Session(self._settings, prepare)

    async def close(self) -> None:
        """End the shared session."""
        await self._session.close()


# I16
async def open_session(settings: Settings) -> AsyncConnection:
    """Open a session that commits each statement unless a transaction is begun; starts a killed embedded server again.

    Raises:
        DatabaseUnreachable: no connection; the message names the cure and no password.
    """
    try:
        url = await beside_the_loop(connection_url, settings)
    except SettingsError as exc:  # the embedded server's folder, on a disk that has become full
        raise DatabaseUnreachable(str(exc)) from exc
    try:
        conn = await open_async_connection(url)
        await conn.execute((_PIPELINE_SETTINGS + _UNACKNOWLEDGED).encode())
    except (psycopg.Error, OSError) as exc:
        raise unreachable(settings, url, exc) from exc
    return conn


def enlarge_send_buffer(conn: AsyncConnection) -> None:
    """Let the kernel take more of a COPY at once, so that a busy event loop does not keep the server waiting.

    The default of a local socket, some 200 kB, is what PostgreSQL copies in 3 ms. Over TCP the system adapts the
    buffer by itself, unless it is given a size.
    """
    with suppress(OSError), socket.socket(fileno=os.dup(conn.fileno())) as local:
        if local.family == socket.AF_UNIX:
            local.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
