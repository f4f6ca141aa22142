"""What live events need beside imports: deletions that are remembered, and endings that were not announced."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TOMBSTONES = """
CREATE TABLE parity_tombstones (
    did text COLLATE "C" NOT NULL,
    collection text COLLATE "C" NOT NULL,
    rkey text COLLATE "C" NOT NULL,
    rev text COLLATE "C" NOT NULL,
    deleted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (did, collection, rkey)
)
"""

ANNOUNCEMENTS = """
CREATE TABLE parity_announcements (
    did text COLLATE "C" NOT NULL,
    collection text COLLATE "C" NOT NULL,
    importer_id integer NOT NULL,
    fetched boolean NOT NULL,
    ended_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (did, collection)
)
"""

COMMENTS = {
    "TABLE parity_tombstones": "Records that live events deleted, so that an older page cannot bring them back",
    "COLUMN parity_tombstones.rev": "Revision of the repository that deleted the record",
    "COLUMN parity_tombstones.deleted_at": "When the event arrived",
    "TABLE parity_announcements": "Imports that have ended and whose ending the listeners have not been told yet",
    "COLUMN parity_announcements.importer_id": "Row of parity_importers that will tell them, if it is alive",
    "COLUMN parity_announcements.fetched": "Whether anything was read",
    "COLUMN parity_announcements.ended_at": "When the ending was committed; equals updated_at of the state row then",
}


def upgrade() -> None:
    """Make both tables."""
    bind = op.get_bind()
    bind.exec_driver_sql(TOMBSTONES)
    bind.exec_driver_sql(ANNOUNCEMENTS)
    for target, comment in COMMENTS.items():
        quoted = comment.replace("'", "''")
        bind.exec_driver_sql(f"COMMENT ON {target} IS '{quoted}'")
