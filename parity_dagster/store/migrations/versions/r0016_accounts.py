"""One row per account, as a view over its pairs; and whether the handle that it claims is its own."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

# The view holds nothing. A name that something else bears is left alone; a later definition replaces this one when its
# asset is materialized.
STATE_TABLE = ((Path(__file__).parents[1] / "accounts_0016.sql").read_text(encoding="utf-8"),)


def upgrade() -> None:
    """Add a column; the state tables get their views by themselves."""
    op.execute("ALTER TABLE parity_identities ADD COLUMN handle_verified_at timestamptz")
    op.execute(
        "COMMENT ON COLUMN parity_identities.handle_verified_at IS"
        " 'When the handle was last looked up and led to this account; null if it never did'"
    )
