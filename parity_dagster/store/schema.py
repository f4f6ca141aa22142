"""Which revision this version's tables are of, and whether a database has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from parity_dagster.errors import MigrationNeeded
from parity_dagster.settings import Settings

if TYPE_CHECKING:
    import psycopg

# The newest revision in store/migrations/versions; a test compares the two. Here, so that the check of a
# database does not cost the import of Alembic (0.7 s).
SCHEMA_REVISION: Final = "0017"
VERSION_TABLE: Final = "parity_alembic_version"
# Any fixed number that other users of the database are unlikely to lock ("parity" in hexadecimal ASCII).
MIGRATION_LOCK: Final = 0x706172697479


def check_schema(connection: psycopg.Connection, settings: Settings) -> None:
    """Check that the tables are there and of this version's revision; the connection's transaction is left as it was.

    Raises:
        MigrationNeeded: they are not; the message says what to do.
    """
    import psycopg

    try:
        with connection.transaction():
            row = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()
    except psycopg.errors.UndefinedTable:
        row = None
    if row is None:
        raise MigrationNeeded("the database has no tables of parity_dagster yet: run `parity migrate`")
    (revision,) = row
    if revision > SCHEMA_REVISION:
        raise MigrationNeeded(
            f"the database has revision {revision}, which this parity_dagster is too old for: upgrade it, and start its"
            " processes anew"
        )
    if revision < SCHEMA_REVISION:
        raise MigrationNeeded(
            f"the database has revision {revision} and {SCHEMA_REVISION} is needed: run `parity migrate`"
        )
    # Two projects that share a database have a state table each, which may be of different revisions.
    with connection.transaction():
        row = connection.execute(
            "SELECT to_regclass(%(name)s) IS NOT NULL, (SELECT revision FROM parity_state_tables"
            " WHERE state_table = to_regclass(%(name)s))",
            {"name": f'"{settings.state_table}"'},
        ).fetchone()
    assert row is not None
    exists, revision = row
    if not exists:
        raise MigrationNeeded(
            f"the database has no table {settings.state_table} (PARITY_STATE_TABLE): run `parity migrate`"
        )
    if revision != SCHEMA_REVISION:
        raise MigrationNeeded(
            f"the table {settings.state_table} (PARITY_STATE_TABLE) has revision {revision or 'unknown'} and"
            f" {SCHEMA_REVISION} is needed: run `parity migrate`"
        )
