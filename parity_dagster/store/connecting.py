"""How every session with PostgreSQL begins: which servers are refused, and what is set whatever a role, a database, the
URL or the environment says.

A role, a database or a PG* variable can give any session defaults under which the same statement stores other
characters, sees other rows or is cut off while it waits. What decides where tables are and whose (`search_path`,
`role`), and what an administrator forbids (`default_transaction_read_only`), stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from parity_dagster.errors import UnsupportedServer

OLDEST_SERVER: Final = 15
"""The oldest PostgreSQL that the tests run on."""

CONNECT_TIMEOUT: Final = 10  # seconds

APPLICATION: Final = "parity_dagster"
"""What an importer's sessions are called in pg_stat_activity."""

# A machine that vanishes without closing its connections must free its pairs within a minute (10 + 4 * 5 s), and
# a server that vanishes must be noticed by us as soon.
_DEFAULTS: Mapping[str, str | int] = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "connect_timeout": CONNECT_TIMEOUT,
}

_SETTINGS: Mapping[str, str] = {
    # What is sent are the bytes of UTF-8; declared as anything else, they would be stored as other characters.
    "client_encoding": "UTF8",
    # A page waits for the lock of its pair, and what it reads then must be of after the waiting.
    "default_transaction_isolation": "read committed",
    # Days begin in UTC, and psycopg reads no other way of writing a time.
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    # What a backslash in a text, and NULL in an array, mean; and that a number comes back as it was sent.
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    # A refused value costs its statement, not the session.
    "exit_on_error": "off",
    # Sessions wait for each other's locks, and one does nothing but hold a claim; a lost peer shows by keepalives.
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
}
_NEW_IN_17: Mapping[str, str] = {"transaction_timeout": "0"}


def session_settings(version: int) -> str:
    """The statements that every session begins with; the server's version is libpq's number, 150004 for 15.4."""
    settings = {**_SETTINGS, **(_NEW_IN_17 if version >= 170_000 else {})}
    return "; ".join(f"SET {name} = '{value}'" for name, value in settings.items())


def check_server(version: int, encoding: str | None) -> None:
    """Refuse (`UnsupportedServer`) a server that cannot do, or a database that cannot hold, what is needed."""
    if version < OLDEST_SERVER * 10_000:
        raise UnsupportedServer(
            f"the server is PostgreSQL {version // 10_000}, and {OLDEST_SERVER} or newer is needed: upgrade it, or name"
            " another one in PARITY_DATABASE_URL"
        )
    if encoding != "UTF8":
        raise UnsupportedServer(
            f"the database has the encoding {encoding}, which cannot hold what people write: make another one with"
            " CREATE DATABASE parity ENCODING 'UTF8' TEMPLATE template0, name it in PARITY_DATABASE_URL and run"
            " `parity migrate`"
        )


def open_connection(url: str, *, autocommit: bool = False) -> Connection:
    """Open a connection; raises what psycopg says, or what `check_server` does."""
    with _no_such_name():
        conn = psycopg.connect(_conninfo(url, fallback_application_name="parity"), autocommit=True)
    try:
        conn.execute(_first_statements(conn))
        conn.autocommit = autocommit
    except BaseException:
        conn.close()
        raise
    return conn


async def open_async_connection(url: str) -> AsyncConnection:
    """The same for the loop; each statement commits unless a transaction is begun."""
    with _no_such_name():
        conn = await AsyncConnection.connect(_conninfo(url, application_name=APPLICATION), autocommit=True)
    try:
        await conn.execute(_first_statements(conn))
    except BaseException:
        await conn.close()
        raise
    return conn


@contextmanager
def _no_such_name() -> Iterator[None]:
    """psycopg has Python look names up, which raises an error of its own for what cannot be one."""
    try:
        yield
    except UnicodeError as exc:
        raise psycopg.OperationalError(f"no host has such a name: {exc}") from exc


def _first_statements(conn: Connection | AsyncConnection) -> bytes:
    check_server(conn.info.server_version, conn.info.parameter_status("server_encoding"))
    return session_settings(conn.info.server_version).encode()


def _conninfo(url: str, **more: Any) -> str:
    given = conninfo_to_dict(url)
    defaults = {name: value for name, value in _DEFAULTS.items() if name not in given}
    return make_conninfo(url, **defaults, **more, client_encoding="UTF8")
