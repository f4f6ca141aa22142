"""The typed views of Bluesky's collections: posts, likes, reposts, follows, profiles.

They hold no data, so this revision makes them as this version defines them. A later definition replaces them when
their asset is materialized; a name that something else bears is left alone.
"""

from __future__ import annotations

from alembic import op

from parity_dagster.store.typed.making import make_missing_views

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the function parity_timestamp and the views."""
    connection = op.get_bind().connection.driver_connection
    assert connection is not None
    make_missing_views(connection)
