"""Asynchronous sessions with Postgres, and which of its errors pass by themselves."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

import psycopg
from psycopg import AsyncConnection, errors

from parity_dagster.errors import DatabaseError, DatabaseUnreachable, SettingsError
from parity_dagster.settings import Settings
from parity_dagster.store.connecting import open_async_connection
from parity_dagster.store.database import connection_url, unreachable
from parity_dagster.threads import beside_the_loop

# The pipeline looks rows up by their keys. A table that has just been made is empty to the planner, which would read it
# as a whole for each row of a batch, and keep to that while the table grows.
_PIPELINE_SETTINGS = (
    "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 4; SET jit = off;"
    " SET enable_seqscan = off"
)

SEND_BUFFER = 2 * 2**20
"""Bytes; the system's own limit (Linux: net.core.wmem_max) may make it less."""

PASSING = (
    psycopg.OperationalError,  # connection lost, server shut down or starting, disk full, out of memory
    psycopg.InterfaceError,  # the connection object is closed already
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.QueryCanceled,  # by an administrator
    errors.LockNotAvailable,
    errors.ReadOnlySqlTransaction,  # a failover to a standby that is about to be promoted
    errors.IdleInTransactionSessionTimeout,
)
"""Errors after which the same transaction, on a fresh session if need be, may well succeed."""

REFUSED_DATA = (
    psycopg.DataError,
    errors.StatementTooComplex,  # jsonb nested deeper than the server's stack
    errors.ProgramLimitExceeded,
    errors.UntranslatableCharacter,
)
"""Errors that are about a value in the batch; the other values are fine. (Subclasses of OperationalError come
first in a handler, because Postgres files some of these there.)"""


# I16
async def open_session(settings: Settings) -> AsyncConnection:
    """Open a session that commits each statement unless told otherwise.

    Args:
        settings: as for `connection_url`, which starts an embedded server again that was killed.

    Raises:
        DatabaseUnreachable: no connection; the message names the cure and no password.
    """
    try:
        url = await beside_the_loop(connection_url, settings)
    except SettingsError as exc:  # the embedded server's folder, on a disk that has become full
        raise DatabaseUnreachable(str(exc)) from exc
    try:
        conn = await open_async_connection(url)
        await conn.execute(_PIPELINE_SETTINGS)
    except (psycopg.Error, OSError) as exc:
        raise unreachable(settings, url, exc) from exc
    return conn


def enlarge_send_buffer(conn: AsyncConnection) -> None:
    """Let the kernel take more of a COPY at once, so that a busy event loop does not keep the server waiting.

    The default of a local socket, some 200 kB, is what PostgreSQL copies in 3 ms. Over TCP the system adapts the
    buffer by itself, unless it is told a size.
    """
    with suppress(OSError), socket.socket(fileno=os.dup(conn.fileno())) as local:
        if local.family == socket.AF_UNIX:
            local.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)


def failed(exc: BaseException) -> DatabaseError:
    """A driver's error in our words.

    Returns:
        An error whose text names the cure, and no value of any record.
    """
    cure = cure_for(
        exc, grants="grant the role SELECT, INSERT, UPDATE, DELETE on parity's tables and TEMPORARY on the database"
    )
    return DatabaseError(
        f"PostgreSQL failed: {first_line(exc)}; {cure}, then `parity import --resume` (what was committed stays)"
    )


def storable(text: str, limit: int = 500) -> str:
    """A stranger's text as PostgreSQL can hold it: what is no character becomes its escape.

    Args:
        text: anything, NUL characters and halves of surrogate pairs included.
    """
    return text[:limit].replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()[:limit]


def cure_for(exc: BaseException, *, grants: str) -> str:
    """What a person can do about a driver's error.

    Args:
        grants: what to do if the role lacks a privilege.
    """
    if isinstance(exc, errors.DiskFull):
        return "free some disk space on the database server"
    if isinstance(exc, errors.InsufficientPrivilege):
        return grants
    if isinstance(exc, errors.UndefinedTable | errors.UndefinedColumn):
        return "run `parity migrate`"
    if isinstance(exc, errors.InvalidSchemaName):
        return "make the schema that search_path names (CREATE SCHEMA …)"
    if isinstance(exc, errors.QueryCanceled):
        return "look into the server's log for who cancels it"
    if isinstance(exc, errors.ReadOnlySqlTransaction):
        return (
            "name the primary server in PARITY_DATABASE_URL, or switch default_transaction_read_only off for this role"
        )
    return "check that the server is up"


def first_line(exc: BaseException) -> str:
    """The gist of a driver's message.

    Returns:
        Its first line, without the DETAIL that could quote a record.
    """
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0][:300]
