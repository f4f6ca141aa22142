"""What Alembic runs for a migration: the connection is the one `upgrade` hands over, in its transaction."""

from alembic import context

from parity_dagster.store.schema import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
