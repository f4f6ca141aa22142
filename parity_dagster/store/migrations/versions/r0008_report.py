"""The outbox tells apart who has still to be told of an ending: listeners, Dagster, or both."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# The default is for what an importer of the version before still adds: told twice rather than never.
STATEMENTS = (
    "ALTER TABLE parity_announcements ADD COLUMN deliver boolean NOT NULL DEFAULT true,"
    " ADD COLUMN report boolean NOT NULL DEFAULT true",
    # in the order in which they are reported, so that each batch of many is found at once
    "CREATE INDEX parity_announcements_report ON parity_announcements (state_table, ended_at) WHERE report",
)

COMMENTS = {
    "TABLE parity_announcements": "Imports that have ended and whose ending somebody has not been told yet",
    "COLUMN parity_announcements.importer_id": "Row of parity_importers that will tell listeners, if it is alive",
    "COLUMN parity_announcements.deliver": "Whether listeners have still to be told",
    "COLUMN parity_announcements.report": "Whether Dagster has still to be told",
}


def upgrade() -> None:
    """Add both facts; what waits already is for both."""
    bind = op.get_bind()
    for statement in STATEMENTS:
        bind.exec_driver_sql(statement)
    for target, comment in COMMENTS.items():
        quoted = comment.replace("'", "''")
        bind.exec_driver_sql(f"COMMENT ON {target} IS '{quoted}'")
