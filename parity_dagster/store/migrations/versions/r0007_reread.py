"""The mark of a reading that trusts nothing, and since when the faults of earlier versions cannot have happened."""

from __future__ import annotations

import re

from alembic import op

from parity_dagster.store.migrations.frozen_views import comment_of, read_views

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

STATE_TABLE = (
    """ALTER TABLE "{state_table}" ADD COLUMN reread boolean NOT NULL DEFAULT false""",
    """ALTER TABLE "{state_table}" ADD COLUMN reread_at timestamptz""",
    """COMMENT ON COLUMN "{state_table}".reread IS
    'Whether it is to be read whatever its revision, and rows that differ are to be rewritten'""",
    """COMMENT ON COLUMN "{state_table}".reread_at IS 'When such a reading was last completed'""",
)

UPGRADES = """
CREATE TABLE parity_upgrades (
    revision text PRIMARY KEY,
    upgraded_at timestamptz NOT NULL DEFAULT now()
)
"""

# A live event's record that could not be stored left a tombstone of its own revision.
REVISIONS = """
UPDATE parity_failed_records f SET rev = t.rev FROM parity_tombstones t
WHERE f.rev IS NULL AND f.pds IS NULL AND (t.did, t.collection, t.rkey) = (f.did, f.collection, f.rkey)
"""


def upgrade() -> None:
    """Note the moment, and let typed views write out nothing but strings."""
    bind = op.get_bind()
    bind.exec_driver_sql(UPGRADES)
    bind.exec_driver_sql(f"INSERT INTO parity_upgrades (revision) VALUES ('{revision}')")
    bind.exec_driver_sql(REVISIONS)
    bind.exec_driver_sql(
        "COMMENT ON TABLE parity_upgrades IS 'Since when a revision is in force; what is older may bear old faults'"
    )
    connection = bind.connection.driver_connection
    assert connection is not None
    for name, statements in read_views("0007").views.items():
        # those that an earlier version has made and nobody has dropped; their columns are as before
        if re.match(r"v .*\[parity_dagster ", comment_of(connection, name) or "", re.DOTALL):
            connection.execute(statements)
