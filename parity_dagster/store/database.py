"""Which PostgreSQL server is used, and whether its tables are this version's.

An error of this module names host, port, database and user, and never a password.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from parity_dagster.errors import DatabaseUnreachable, MigrationNeeded, SettingsError
from parity_dagster.settings import Settings, redact
from parity_dagster.store.schema import SCHEMA_REVISION, check_schema

if TYPE_CHECKING:
    import psycopg

_URL = re.compile(r"^(?:postgres|postgresql)(?:\+[a-z0-9_]+)?://(?P<rest>.*)$", re.IGNORECASE | re.DOTALL)
_URL_EXAMPLE = "postgresql://user:password@host:5432/database"


def connection_url(settings: Settings) -> str:
    """The URL of the database to use; every part of the program asks this function.

    With PARITY_DATABASE_URL that server, which is not contacted here. Without it the embedded server under
    PARITY_HOME: made and started if need be, its tables migrated if need be, and kept running until the last
    process that asked ends.

    Returns:
        A libpq URL, `postgresql://…`, usable by psycopg 3 as it is.

    Raises:
        SettingsError: PARITY_DATABASE_URL or PARITY_HOME cannot work.
        DatabaseUnreachable: the embedded server does not start.
    """
    given = _given(settings)
    return _checked(given) if given else _embedded_url(settings)


def _given(settings: Settings) -> str:
    return settings.database_url.get_secret_value().strip() if settings.database_url is not None else ""


def sqlalchemy_url(settings: Settings) -> str:
    """`connection_url` as SQLAlchemy writes it, socket folders and all options kept; the password is readable.

    The driver is psycopg2, which LISTEN/NOTIFY of Dagster's storage needs.
    """
    options = _options(connection_url(settings))
    user, password = options.pop("user", ""), options.pop("password", "")
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    # Host and port as options: the one form in which SQLAlchemy takes socket folders, IPv6 addresses and
    # lists of hosts alike.
    name = quote(options.pop("dbname", ""), safe="")
    query = urlencode(options, quote_via=quote)
    return f"postgresql+psycopg2://{f'{login}@' if login else ''}/{name}{f'?{query}' if query else ''}"


def connect(settings: Settings, *, autocommit: bool = False) -> psycopg.Connection:
    """Open one connection to a database that has this version's tables.

    Raises:
        DatabaseUnreachable: no connection; the message says what to check.
        UnsupportedServer: the server is too old, or the database's encoding is not UTF8.
        MigrationNeeded: `parity migrate` has not been run, or this program is older than the database.
    """
    url = connection_url(settings)
    connection = _reach(url, settings, autocommit=autocommit)
    try:
        _check(connection, url, settings)
    except BaseException:
        connection.close()
        raise
    return connection


def migrate(settings: Settings) -> str:
    """Bring the tables to this version's revision; does nothing if they are.

    Everything happens in one transaction under an advisory lock, so two at once, or a kill in the middle,
    do no harm. If PARITY_STATE_TABLE has changed, the table of the new name is made, empty; the old one is
    left alone (`parity rebuild-states` fills the new one).

    Raises:
        DatabaseUnreachable: no connection.
        UnsupportedServer: the server is too old, or the database's encoding is not UTF8.
        MigrationNeeded: the database is of a newer version than this program.
    """
    url = connection_url(settings)
    with _reach(url, settings) as connection:
        try:
            _check(connection, url, settings)
        except MigrationNeeded:
            pass
        else:
            return SCHEMA_REVISION
    return _migrate(url, settings)


def plan_migration(settings: Settings) -> list[str]:
    """The statements that `migrate` would execute, in their order; executed and rolled back to find them.

    Raises:
        DatabaseError: as `migrate` does.
    """
    from parity_dagster.store.migrations import upgrade

    url = connection_url(settings)
    with _reach(url, settings) as connection:
        try:
            _check(connection, url, settings)
        except MigrationNeeded:
            pass
        else:
            return []
    statements: list[str] = []
    upgrade(url, settings, rehearsal=statements)
    return statements


def _embedded_url(settings: Settings) -> str:
    import psycopg

    from parity_dagster.embedded_postgres import sharing as embedded
    from parity_dagster.store.connecting import CONNECT_TIMEOUT, open_connection

    for name in ("PGHOSTADDR", "PGSERVICE"):
        if os.environ.get(name):
            raise SettingsError(
                f"{name} is set, which would lead past the embedded server: unset it, or name that server in"
                " PARITY_DATABASE_URL"
            )
    deadline: float | None = None
    while True:
        url = embedded.acquire(settings.home)
        try:
            with open_connection(url) as connection:
                check_schema(connection, settings)
        except MigrationNeeded:
            _migrate(url, settings)
        except psycopg.OperationalError as exc:
            # A new server has no such database yet. A killed one's socket answers for a moment; `acquire` then starts
            # it again.
            if not _create_database(url):
                deadline = deadline or time.monotonic() + CONNECT_TIMEOUT
                if time.monotonic() > deadline:
                    raise unreachable(settings, url, exc) from None
                time.sleep(0.05)
            continue
        return url


def _checked(given: str) -> str:
    """Return a given URL in libpq's form.

    Not a word of the URL goes into the error: when a password contains `@` or `/` as they are, any part may
    be a part of the password.
    """
    found = _URL.match(given)
    if found is None:
        raise SettingsError(f"PARITY_DATABASE_URL must start with postgresql:// or postgres://, as {_URL_EXAMPLE}")
    url = f"postgresql://{found['rest']}"
    special = "special characters of a password have to be percent-encoded (@ is %40, / is %2F)"
    options = _options(url)
    # libpq ends the password at the first @.
    if "@" in options.get("host", "") or re.search(r"\s", url):
        raise SettingsError(f"PARITY_DATABASE_URL cannot be read: {special}")
    ports = options.get("port", "")
    if not all(re.fullmatch(r"[0-9]{1,5}", port) for port in ports.split(",") if port):
        raise SettingsError(f"PARITY_DATABASE_URL has a port that is not a number; {special}")
    return url


def _options(url: str) -> dict[str, str]:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        return {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    except psycopg.Error:
        # libpq's own message repeats parts of the URL.
        raise SettingsError(
            f"PARITY_DATABASE_URL is not a PostgreSQL URL: write it as {_URL_EXAMPLE}, options after `?` as "
            f"libpq names them (sslmode=require)"
        ) from None


def _place(options: Mapping[str, str]) -> str:
    host = options.get("host") or options.get("hostaddr") or "the default host"
    port = options.get("port") or "5432"
    where = host if host.startswith("/") else f"{host}:{port}"
    return f"{where}, database {options.get('dbname', 'default')}, user {options.get('user', 'default')}"


def _reach(url: str, settings: Settings, *, autocommit: bool = False) -> psycopg.Connection:
    import psycopg

    from parity_dagster.store.connecting import open_connection

    try:
        return open_connection(url, autocommit=autocommit)
    except psycopg.Error as exc:
        raise unreachable(settings, url, exc) from None


def _check(connection: psycopg.Connection, url: str, settings: Settings) -> None:
    import psycopg

    try:
        check_schema(connection, settings)
    except psycopg.OperationalError as exc:  # a server that goes away right after it was reached
        raise unreachable(settings, url, exc) from None


def unreachable(settings: Settings, url: str, exc: Exception) -> DatabaseUnreachable:
    """Say that there is no connection."""
    from parity_dagster.embedded_postgres.server import log_of
    from parity_dagster.store.postgres_errors import first_line

    options = _options(url)
    reason = redact(first_line(exc))
    if password := options.get("password"):
        reason = reason.replace(password, "***")
    if _given(settings):
        cure = "Check that the server runs, and host, database, user and password in PARITY_DATABASE_URL"
    else:
        cure = f"The embedded server's log is {log_of(settings.home)}"
    return DatabaseUnreachable(f"cannot connect to PostgreSQL at {_place(options)} ({reason}). {cure}")


def _create_database(url: str) -> bool:
    """Create the embedded server's database; False if it is there already, or nobody answers."""
    import psycopg

    from parity_dagster.embedded_postgres.sharing import DATABASE
    from parity_dagster.store.connecting import open_connection

    # libpq tells no code of why a connection was refused, so the list of databases is asked.
    try:
        with open_connection(url.replace(f"/{DATABASE}?", "/postgres?", 1), autocommit=True) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
            if found is None:
                # Another process may create it at the same moment.
                with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                    connection.execute(f"CREATE DATABASE {DATABASE}")
    except psycopg.OperationalError:
        return False
    return found is None


def _migrate(url: str, settings: Settings) -> str:
    from parity_dagster.store.migrations import upgrade

    return upgrade(url, settings)
