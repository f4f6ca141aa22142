"""How far the directory's log was read, and what it says of an account beside its host."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
CREATE TABLE parity_directory (
    id boolean PRIMARY KEY DEFAULT true CHECK (id),
    read_to timestamptz,
    is_whole boolean NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
)
""",
    "COMMENT ON TABLE parity_directory IS 'How far `parity directory sync` has read the log of the PLC directory'",
    "COMMENT ON COLUMN parity_directory.read_to IS"
    " 'Time of the newest operation read; every earlier one that is about a row of parity_identities is in it'",
    "COMMENT ON COLUMN parity_directory.is_whole IS"
    " 'Whether identities of all accounts were stored, not only of those that are known'",
    'ALTER TABLE parity_identities ADD COLUMN signing_key text COLLATE "C"',
    "COMMENT ON COLUMN parity_identities.signing_key IS"
    " 'Key that the account signs its commits with, as a Multikey; null if it is not known'",
    "COMMENT ON COLUMN parity_identities.resolved_at IS 'As of when this is known to be so'",
)


def upgrade() -> None:
    """Make the table, and a column for the key."""
    for statement in STATEMENTS:
        op.execute(statement)
