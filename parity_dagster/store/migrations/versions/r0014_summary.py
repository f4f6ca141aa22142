"""The state table can be summed up by status, error and host without reading its rows."""

from __future__ import annotations

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# A few distinct values, so that a million entries take some megabytes; an entry changes when an import begins or ends,
# not with each page.
STATE_TABLE = ("""CREATE INDEX ON "{state_table}" (status, error_code, pds)""",)


def upgrade() -> None:
    """Nothing but what the state tables get."""
