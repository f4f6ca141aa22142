"""The typed views of Bluesky's collections: posts, likes, reposts, follows, profiles.

They hold no data, so this revision makes them as 0007 leaves them. A later definition replaces them when their asset is
materialized; a name that something else bears is left alone.
"""

from __future__ import annotations

from alembic import op

from parity_dagster.store.migrations.frozen_views import comment_of, read_views

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the function parity_timestamp and the views."""
    connection = op.get_bind().connection.driver_connection
    assert connection is not None
    frozen = read_views("0007")
    connection.execute(frozen.function)
    for name, statements in frozen.views.items():
        if comment_of(connection, name) is None:
            connection.execute(statements)
