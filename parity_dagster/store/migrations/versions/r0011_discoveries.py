"""How far each list of accounts of a relay or server was read, for each state table by itself."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

DISCOVERIES = """
CREATE TABLE parity_discoveries (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    state_table regclass NOT NULL,
    server text NOT NULL,
    collection text NOT NULL,
    wanted text[] NOT NULL,
    cursor text,
    pages bigint NOT NULL DEFAULT 0,
    accounts bigint NOT NULL DEFAULT 0,
    queued bigint NOT NULL DEFAULT 0,
    last_did text COLLATE "C" NOT NULL DEFAULT '',
    is_sorted boolean NOT NULL DEFAULT true,
    failures integer NOT NULL DEFAULT 0,
    error text,
    began_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    tried_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (state_table, server, collection)
)
"""

COMMENTS = {
    "TABLE parity_discoveries": "How far each list of accounts was read, for each state table",
    "COLUMN parity_discoveries.state_table": "State table that its accounts are queued in",
    "COLUMN parity_discoveries.server": "Relay, directory of collections, or PDS",
    "COLUMN parity_discoveries.collection": "NSID that the accounts have written to; empty for all of the server",
    "COLUMN parity_discoveries.wanted": "Collections that were queued of every account that was passed",
    "COLUMN parity_discoveries.cursor": "Where the next page starts; once the list has ended, where its last one did",
    "COLUMN parity_discoveries.pages": "Pages taken in all",
    "COLUMN parity_discoveries.accounts": "Accounts that the last reading from the start has named",
    "COLUMN parity_discoveries.queued": "Pairs that were queued because of this list",
    "COLUMN parity_discoveries.last_did": "The account that was named last",
    "COLUMN parity_discoveries.is_sorted": "Whether accounts came in the order of their DIDs, new ones anywhere",
    "COLUMN parity_discoveries.failures": "Readings since the last page that brought none",
    "COLUMN parity_discoveries.error": "Why the last reading ended early; null if it did not",
    "COLUMN parity_discoveries.began_at": "When it was last begun from its start",
    "COLUMN parity_discoveries.ended_at": "When its end was last seen since; null if it was not",
    "COLUMN parity_discoveries.tried_at": "When it was last asked for",
}


def upgrade() -> None:
    """Make the table."""
    bind = op.get_bind()
    bind.exec_driver_sql(DISCOVERIES)
    for target, comment in COMMENTS.items():
        quoted = comment.replace("'", "''")
        bind.exec_driver_sql(f"COMMENT ON {target} IS '{quoted}'")
