"""Copies are kept fresh: when each was last known to be what its host shows, and how far each host's list was read."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# The first index finds the stalest copies of each collection; what is in it changes when an import ends, not with each
# page. The second one holds what is queued to be read again, beside whatever number of imports that wait.
STATE_TABLE = (
    """ALTER TABLE "{state_table}" ADD COLUMN confirmed_at timestamptz""",
    """COMMENT ON COLUMN "{state_table}".confirmed_at IS
    'When the list of all accounts of its host last showed the revision of this copy'""",
    """CREATE INDEX ON "{state_table}" (collection, greatest(completed_at, confirmed_at)) WHERE status = 'completed'""",
    """CREATE INDEX ON "{state_table}" (id) WHERE status = 'pending' AND refresh""",
)

HOST_LISTS = """
CREATE TABLE parity_host_lists (
    state_table regclass,
    host text,
    cursor text,
    landmark text,
    pages integer NOT NULL DEFAULT 0,
    most_pages integer NOT NULL,
    needed_pages integer,
    failures integer NOT NULL DEFAULT 0,
    error text,
    began_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    PRIMARY KEY (state_table, host)
)
"""

COMMENTS = {
    "TABLE parity_host_lists": "How far the list of all accounts of each host was read to see which have changed",
    "COLUMN parity_host_lists.state_table": "State table whose pairs are looked up in it",
    "COLUMN parity_host_lists.cursor": "Where the next page starts",
    "COLUMN parity_host_lists.landmark": "An earlier cursor; a list that leads back to it goes in circles",
    "COLUMN parity_host_lists.pages": "Pages taken",
    "COLUMN parity_host_lists.most_pages": "Pages after which asking the accounts themselves is cheaper",
    "COLUMN parity_host_lists.needed_pages": "Pages that its list is known to have, or to have at least",
    "COLUMN parity_host_lists.failures": "Failures since the last page",
    "COLUMN parity_host_lists.error": "Why it was not read to its end",
    "COLUMN parity_host_lists.ended_at": "When it was read to its end, or given up",
}


def upgrade() -> None:
    """Make the table; the state tables get theirs by themselves."""
    op.execute(HOST_LISTS)
    for target, comment in COMMENTS.items():
        quoted = comment.replace("'", "''")
        op.execute(f"COMMENT ON {target} IS '{quoted}'")
