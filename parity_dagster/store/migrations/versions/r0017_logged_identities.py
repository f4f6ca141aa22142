"""Which identities are as the directory's log has them."""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE parity_identities ADD COLUMN is_logged boolean NOT NULL DEFAULT false",
    # those that were looked up are among them; the next `parity directory sync --again` finds out which the log has
    "UPDATE parity_identities SET is_logged = true WHERE did LIKE 'did:plc:%' AND EXISTS (SELECT FROM parity_directory"
    " WHERE read_to IS NOT NULL)",
    "COMMENT ON COLUMN parity_identities.is_logged IS"
    " 'Whether the newest operation of the log of the PLC directory that was read says the same'",
)


def upgrade() -> None:
    """Add the column."""
    for statement in STATEMENTS:
        op.execute(statement)
