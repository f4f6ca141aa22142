"""What launching queued pairs in batches needs: the batch on the row, and ways to find what is due quickly."""

from __future__ import annotations

from alembic import context, op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

STATE_TABLE = (
    """ALTER TABLE "{state_table}" ADD COLUMN batch text COLLATE "C" """,
    """COMMENT ON COLUMN "{state_table}".batch IS 'Batch that the queue launched it in, until a run takes it up'""",
    # the queue looks every few seconds, also when millions of pairs wait or are done
    """CREATE INDEX ON "{state_table}" (id) WHERE status = 'pending' AND batch IS NULL""",
    """CREATE INDEX ON "{state_table}" (next_attempt_at) WHERE status = 'failed' AND batch IS NULL""",
    """CREATE INDEX ON "{state_table}" (batch) WHERE batch IS NOT NULL""",
)


def upgrade() -> None:
    """Add the column and its indexes."""
    bind = op.get_bind()
    table = context.config.attributes["state_table"]
    if bind.exec_driver_sql("SELECT to_regclass(%s)", (f'"{table}"',)).scalar() is None:
        return  # the name was changed together with the version; the table is made by replaying all of these
    for statement in STATE_TABLE:
        bind.exec_driver_sql(statement.format(state_table=table))
