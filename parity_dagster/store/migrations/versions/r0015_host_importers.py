"""Which importers read a host at this moment, so that all of them together ask it no more than one would."""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

HOST_IMPORTERS = """
CREATE TABLE parity_host_importers (
    host text COLLATE "C",
    importer_id integer,
    service text COLLATE "C" NOT NULL,
    PRIMARY KEY (host, importer_id)
)
"""


def upgrade() -> None:
    """Make the table."""
    op.execute(HOST_IMPORTERS)
    op.execute("CREATE INDEX ON parity_host_importers (importer_id)")
    op.execute(
        "COMMENT ON TABLE parity_host_importers IS"
        " 'Importers that read a host at this moment, whose services ask it for a share each'"
    )
