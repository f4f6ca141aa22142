"""The rkeys of a page stay where the page's row is: compressing 2 kB that live for seconds costs more than it saves."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Let rows of up to 8,160 bytes, PostgreSQL's most, stay as they are."""
    op.get_bind().exec_driver_sql("ALTER TABLE parity_walk_pages SET (toast_tuple_target = 8160)")
