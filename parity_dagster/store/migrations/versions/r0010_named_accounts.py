"""Accounts that somebody named and that Dagster is to show, however many it shows already."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

NAMED_ACCOUNTS = """
CREATE TABLE parity_named_accounts (
    state_table regclass,
    did text,
    PRIMARY KEY (state_table, did)
)
"""


def upgrade() -> None:
    """Make the table."""
    op.execute(NAMED_ACCOUNTS)
    op.execute(
        "COMMENT ON TABLE parity_named_accounts IS"
        " 'Accounts that are to become partitions in Dagster beyond PARITY_PARTITION_LIMIT'"
    )
