"""The tables' history, run by Alembic from inside the package.

A revision that touches the state table lists those statements in its module's `STATE_TABLE`, with
`{state_table}` for the name. They are replayed for every state table whose own revision (`parity_state_tables`) is
older, so that one of another name can be made later, and two projects that share a database may be upgraded one after
the other.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from parity_dagster.errors import DatabaseError, MigrationNeeded, SettingsError
from parity_dagster.settings import Settings, redact
from parity_dagster.store.connecting import open_connection
from parity_dagster.store.postgres_errors import cure_for, first_line
from parity_dagster.store.schema import MIGRATION_LOCK, VERSION_TABLE

LAST_COLUMN = {
    "0001": "refresh",
    "0004": "batch",
    "0006": "fence_rev",
    "0007": "reread_at",
    "0009": "commit",
    "0012": "confirmed_at",
}
"""A column of the state table that each revision with a `STATE_TABLE` added."""

_QUESTION = re.compile(r"\s*(select|show)\b", re.IGNORECASE)

if TYPE_CHECKING:
    import psycopg
    from alembic.config import Config
    from sqlalchemy import Connection


def upgrade(url: str, settings: Settings, *, rehearsal: list[str] | None = None) -> str:
    """Run the missing revisions in one transaction, one process at a time.

    Args:
        settings: `state_table` is read.
        rehearsal: gets every statement that changes something, and everything is rolled back.

    Raises:
        MigrationNeeded: the database has a revision that this version does not know.
        SettingsError: the name of the state table is that of another table.
        DatabaseError: the server refused; nothing was changed.
    """
    # Alembic and SQLAlchemy take 0.7 s to import; a migrated database needs neither.
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    def connect() -> psycopg.Connection:
        connection = open_connection(url)
        if rehearsal is not None:
            connection.cursor_factory = _recorder(rehearsal)
        return connection

    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool)
    try:
        with engine.connect() as connection, connection.begin() as transaction:
            # Released by the end of the transaction, also behind a connection pooler.
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            head = _upgrade_to_head(connection, settings.state_table)
            if rehearsal is not None:
                transaction.rollback()
            return head
    except DBAPIError as exc:
        cause = exc.orig or exc
        cure = cure_for(cause, grants="let the role create tables (GRANT CREATE ON SCHEMA public TO …)")
        raise DatabaseError(
            f"the migration failed and nothing was changed: {redact(first_line(cause), settings)}; {cure}, then"
            " `parity migrate`"
        ) from None
    finally:
        engine.dispose()


def _recorder(statements: list[str]) -> type[psycopg.Cursor[Any]]:
    """A class of cursors that write down, parameters filled in, what they execute and what is not only a question."""
    import psycopg

    class Recorder(psycopg.ClientCursor[Any]):
        def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
            text = self.mogrify(query, params)
            if not _QUESTION.match(text) or "setval(" in text:
                statements.append(text)
            return super().execute(query, params, **options)

    return Recorder


def _upgrade_to_head(connection: Connection, state_table: str) -> str:
    from alembic import command
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = _config(connection, state_table)
    script = ScriptDirectory.from_config(config)
    head = script.get_current_head()
    assert head is not None
    now = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()
    revisions = [step.revision for step in script.walk_revisions()]
    if now is not None and now not in revisions:
        raise MigrationNeeded(f"the database has revision {now}, which this parity_dagster does not know: upgrade it")
    command.upgrade(config, "head")
    at = _state_table_revision(connection, state_table)
    for step in reversed(list(script.walk_revisions())):
        if step.revision > at:
            for statement in getattr(step.module, "STATE_TABLE", ()):
                connection.exec_driver_sql(statement.format(state_table=state_table))
    connection.exec_driver_sql(
        f"""INSERT INTO parity_state_tables (state_table, revision) VALUES ('"{state_table}"', '{head}')"""
        " ON CONFLICT (state_table) DO UPDATE SET revision = EXCLUDED.revision"
    )
    return head


def _state_table_revision(connection: Connection, state_table: str) -> str:
    """Which revision a state table is at; an empty text if there is no such table yet."""
    from sqlalchemy import text

    named = {"name": f'"{state_table}"'}
    noted: str | None = connection.execute(
        text("SELECT revision FROM parity_state_tables WHERE state_table = to_regclass(:name)"), named
    ).scalar()
    if noted is not None:
        return noted
    columns = connection.execute(
        text("SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(:name) AND attnum > 0"), named
    )
    found = set(columns.scalars())
    if not found:
        return ""
    # It is not on the list although it is there: it was brought back from a backup, for one.
    revisions = [revision for revision, column in LAST_COLUMN.items() if column in found]
    if not revisions:
        raise SettingsError(
            f"the table {state_table} is not one of parity_dagster's: choose another name (PARITY_STATE_TABLE)"
        )
    return max(revisions)


def _config(connection: Connection, state_table: str) -> Config:
    from alembic.config import Config

    config = Config()
    # An absolute path; "%" in it would be an interpolation of the ini format.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["state_table"] = state_table
    return config
