"""Evidence of a walk names its walk and its state table, so that nothing else can be taken for it.

The state tables of a database are listed with the revision that each has, because two projects that share one need not
be upgraded at the same moment.
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# An interrupted walk goes on only if it is known what its rows were marked with. Before this revision that was its own
# revision, or a greater one that was not noted: where rows of the pair carry a greater one, the list is read again.
STATE_TABLE = (
    """ALTER TABLE "{state_table}" ADD COLUMN fence_rev text COLLATE "C" """,
    """COMMENT ON COLUMN "{state_table}".fence_rev IS 'Revision that the records of this walk are marked with'""",
    """
UPDATE "{state_table}" s SET fence_rev = rev WHERE status <> 'completed' AND pages > 0 AND NOT EXISTS
    (SELECT FROM atproto_records r WHERE r.did = s.did AND r.collection = s.collection AND r.rev > s.rev)
""",
)

# regclass: four bytes that follow a table that is renamed, are nobody's once it is dropped, and are its name in a dump
STATE_TABLES = """
CREATE TABLE parity_state_tables (
    state_table regclass PRIMARY KEY,
    revision text NOT NULL
)
"""

# every state table that was made before there was this list
KNOWN = """
INSERT INTO parity_state_tables (state_table, revision)
SELECT c.oid, CASE WHEN 'batch' = ANY(columns) THEN '0005' ELSE '0003' END FROM pg_class c JOIN LATERAL
    (SELECT array_agg(attname::text) AS columns FROM pg_attribute a WHERE attrelid = c.oid AND attnum > 0
     AND NOT attisdropped) a ON true
WHERE relkind = 'r' AND pg_table_is_visible(c.oid) AND columns @> ARRAY['did', 'collection', 'status', 'cursor',
    'records_synced', 'walk', 'pages', 'attempts', 'error_code', 'importer_id', 'refresh']
"""

WALK_PAGES = (
    "ALTER TABLE parity_walk_pages ADD COLUMN state_table regclass, ADD COLUMN walk integer,"
    " ADD COLUMN failed text[] NOT NULL DEFAULT '{}'",
    "ALTER TABLE parity_walk_pages ALTER COLUMN failed DROP DEFAULT",
)
NOBODYS_PAGES = "DELETE FROM parity_walk_pages WHERE state_table IS NULL"
# Rows of an unfinished walk that has all of them stay, with what failed on its pages.
CARRY_OVER = """
UPDATE parity_walk_pages p SET state_table = '{name}', walk = s.walk,
    failed = CASE WHEN p.page = 1 THEN ARRAY(SELECT fingerprint::text FROM parity_failed_records f WHERE f.did = s.did
        AND f.collection = s.collection AND f.walk = s.walk) ELSE '{{}}' END
FROM {name} s WHERE s.id = p.state_id AND s.status <> 'completed' AND s.pages > 0 AND s.pages =
    (SELECT count(*) FROM parity_walk_pages o WHERE o.state_id = s.id)
    AND s.pages = (SELECT max(page) FROM parity_walk_pages o WHERE o.state_id = s.id)
"""
WALK_PAGES_KEY = (
    "ALTER TABLE parity_walk_pages DROP CONSTRAINT parity_walk_pages_pkey,"
    " ALTER COLUMN state_table SET NOT NULL, ALTER COLUMN walk SET NOT NULL,"
    " ADD PRIMARY KEY (state_table, state_id, walk, page)"
)

ANNOUNCEMENTS = "ALTER TABLE parity_announcements ADD COLUMN state_table regclass"
# An ending may be told twice, and never not at all: each state table that can have had it keeps it.
SPREAD = """
INSERT INTO announced SELECT a.did, a.collection, a.importer_id, a.fetched, a.ended_at, '{name}'
FROM parity_announcements a JOIN {name} s ON s.did = a.did AND s.collection = a.collection
"""
ANNOUNCEMENTS_KEY = (
    "TRUNCATE parity_announcements",
    "ALTER TABLE parity_announcements DROP CONSTRAINT parity_announcements_pkey,"
    " ALTER COLUMN state_table SET NOT NULL, ADD PRIMARY KEY (state_table, did, collection)",
    "INSERT INTO parity_announcements SELECT * FROM announced",
    "DROP TABLE announced",
)

FAILED_RECORDS = 'ALTER TABLE parity_failed_records ADD COLUMN rev text COLLATE "C"'

COMMENTS = {
    "TABLE parity_state_tables": "The state tables of this database; each has its own pages and announcements",
    "COLUMN parity_state_tables.revision": "Migration that the table is at",
    "COLUMN parity_walk_pages.state_table": "State table of the walk",
    "COLUMN parity_walk_pages.walk": "Walk of the state row that read this page",
    "COLUMN parity_walk_pages.failed": "Fingerprints of the records of this page that could not be stored",
    "COLUMN parity_announcements.state_table": "State table of the pair that has ended",
    "COLUMN parity_failed_records.rev": "Revision of the repository known when it was observed",
}


def upgrade() -> None:
    """List the state tables, and make pages and announcements theirs."""
    bind = op.get_bind()

    def run(*statements: str) -> None:
        for statement in statements:
            bind.exec_driver_sql(statement)

    run(STATE_TABLES, KNOWN)
    names = [name for (name,) in bind.exec_driver_sql("SELECT state_table::text FROM parity_state_tables")]
    run(*WALK_PAGES)
    if len(names) == 1:  # where two share the rows, nobody can tell whose a row is: their walks begin again
        run(CARRY_OVER.format(name=names[0]))
    run(NOBODYS_PAGES, WALK_PAGES_KEY)
    run(ANNOUNCEMENTS, "CREATE TEMPORARY TABLE announced (LIKE parity_announcements)")
    for name in names:
        run(SPREAD.format(name=name))
    run(*ANNOUNCEMENTS_KEY, FAILED_RECORDS)
    for target, comment in COMMENTS.items():
        quoted = comment.replace("'", "''")
        run(f"COMMENT ON {target} IS '{quoted}'")
