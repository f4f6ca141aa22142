"""Each row says what its walk reads: a list, or a signed repository, and then which commit vouches for it."""

from __future__ import annotations

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

STATE_TABLE = (
    """ALTER TABLE "{state_table}" ADD COLUMN source text NOT NULL DEFAULT 'list'""",
    """ALTER TABLE "{state_table}" ADD COLUMN commit text""",
    """COMMENT ON COLUMN "{state_table}".source IS
    'What the walk reads: list (page after page) or repo (the signed repository as a whole)'""",
    """COMMENT ON COLUMN "{state_table}".commit IS
    'CID of the verified commit that vouches for every record; null if the walk reads a list'""",
)


def upgrade() -> None:
    """Nothing but what the state tables get."""
