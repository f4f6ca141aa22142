"""The tables of the first version."""

from __future__ import annotations

from alembic import context, op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Identifiers of AT Protocol are ASCII and compare by byte (`COLLATE "C"`): smaller, faster, and the same on
# every server. The key begins with the DID so that the table can be distributed by account.
RECORDS = """
CREATE TABLE atproto_records (
    did text COLLATE "C" NOT NULL,
    collection text COLLATE "C" NOT NULL,
    rkey text COLLATE "C" NOT NULL,
    cid text COLLATE "C",
    value jsonb NOT NULL,
    rev text COLLATE "C",
    active boolean NOT NULL DEFAULT true,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    uri text COLLATE "C" GENERATED ALWAYS AS ('at://' || did || '/' || collection || '/' || rkey) {generated},
    PRIMARY KEY (did, collection, rkey)
)
"""

IMPORTERS = """
CREATE TABLE parity_importers (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hostname text NOT NULL,
    pid integer NOT NULL,
    run_id text,
    started_at timestamptz NOT NULL DEFAULT now()
)
"""

STATE_COLUMNS = {
    "did": "Account",
    "collection": "NSID of the collection",
    "status": "pending, in_progress, completed or failed",
    "cursor": "Where the next page starts; means nothing to any host but pds",
    "records_synced": "Records of this walk stored, or found to be stored already",
    "records_skipped": "Records of this walk that a mapper declined",
    "records_failed": "Records of this walk kept in parity_failed_records",
    "started_at": "When this walk began",
    "completed_at": "When the list was read to its end",
    "error": "What went wrong last, for a reader",
    "updated_at": "Last change of this row",
    "pds": "Host that the cursor belongs to",
    "rev": "Revision of the repository when this walk began",
    "walk": "Number of this reading of the list from its start",
    "pages": "Pages committed in this walk",
    "attempts": "Attempts that ended in an error since the last success",
    "next_attempt_at": "When the retry sensor may try again; null: not by itself",
    "error_code": "Class of the error, one of the codes in parity_dagster/errors.py",
    "run_id": "Dagster run that worked on it last",
    "importer_id": "Row of parity_importers that has claimed it",
    "refresh": "Whether a completed pair is to be read again",
}

# fillfactor: a row is updated with every page, and an update that fits on the same page needs no index entry.
STATE_TABLE = (
    """
CREATE TABLE "{state_table}" (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    did text COLLATE "C" NOT NULL,
    collection text COLLATE "C" NOT NULL,
    status text NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'in_progress', 'completed', 'failed')),
    cursor text,
    records_synced bigint NOT NULL DEFAULT 0,
    records_skipped bigint NOT NULL DEFAULT 0,
    records_failed bigint NOT NULL DEFAULT 0,
    started_at timestamptz,
    completed_at timestamptz,
    error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    pds text,
    rev text COLLATE "C",
    walk integer NOT NULL DEFAULT 0,
    pages integer NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    error_code text,
    run_id text,
    importer_id integer,
    refresh boolean NOT NULL DEFAULT false,
    UNIQUE (did, collection)
) WITH (fillfactor = 70)
""",
    """CREATE INDEX ON "{state_table}" (status) WHERE status <> 'completed'""",
    """COMMENT ON TABLE "{state_table}" IS 'How far the import of each (did, collection) is'""",
    *(f"""COMMENT ON COLUMN "{{state_table}}".{column} IS '{comment}'""" for column, comment in STATE_COLUMNS.items()),
)

WALK_PAGES = """
CREATE TABLE parity_walk_pages (
    state_id bigint NOT NULL,
    page integer NOT NULL,
    rkeys text[] NOT NULL,
    skipped_rkeys text[] NOT NULL,
    PRIMARY KEY (state_id, page)
)
"""

FAILED_RECORDS = """
CREATE TABLE parity_failed_records (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    did text COLLATE "C" NOT NULL,
    collection text COLLATE "C" NOT NULL,
    rkey text COLLATE "C",
    fingerprint text COLLATE "C" NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    body bytea NOT NULL,
    pds text,
    walk integer NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    retries integer NOT NULL DEFAULT 0,
    UNIQUE (did, collection, fingerprint)
)
"""

IDENTITIES = """
CREATE TABLE parity_identities (
    did text COLLATE "C" PRIMARY KEY,
    handle text,
    pds text NOT NULL,
    resolved_at timestamptz NOT NULL DEFAULT now()
)
"""

COMMENTS = {
    "TABLE atproto_records": "Records as their authors' PDSes list them (com.atproto.repo.listRecords)",
    "COLUMN atproto_records.did": "Account, from the request, never from the answer",
    "COLUMN atproto_records.collection": "NSID of the collection, from the request",
    "COLUMN atproto_records.rkey": "Record key",
    "COLUMN atproto_records.cid": "Content identifier of this version; null when the PDS names none",
    "COLUMN atproto_records.value": "The record",
    "COLUMN atproto_records.rev": "Revision of the repository known when this version was observed",
    "COLUMN atproto_records.active": "False while the account is deactivated, suspended or taken down",
    "COLUMN atproto_records.first_seen_at": "When the record was stored first",
    "COLUMN atproto_records.updated_at": "When this version was stored; an unchanged record is not rewritten",
    "COLUMN atproto_records.uri": "at://did/collection/rkey",
    "TABLE parity_importers": "Importing processes that are alive or were killed",
    "TABLE parity_walk_pages": "Record keys of the pages of a walk under way, so that a repeat counts once",
    "TABLE parity_failed_records": "Records that could not be stored, byte for byte, with the reason",
    "COLUMN parity_failed_records.rkey": "Record key, if one could be read",
    "COLUMN parity_failed_records.fingerprint": "SHA-256 of body, in hexadecimal",
    "COLUMN parity_failed_records.reason": "Code of the reason",
    "COLUMN parity_failed_records.detail": "The reason, for a reader",
    "COLUMN parity_failed_records.body": "The entry of the page as received",
    "COLUMN parity_failed_records.walk": "Walk of the state row that met it last",
    "COLUMN parity_failed_records.retries": "How often it was tried again",
    "TABLE parity_identities": "Where each account was last found",
    "COLUMN parity_identities.pds": "Host of the account's repository",
}


def upgrade() -> None:
    """Make the tables."""
    bind = op.get_bind()
    major = int(bind.exec_driver_sql("SHOW server_version_num").scalar_one()) // 10_000
    # A virtual column takes no space; PostgreSQL has them since 18.
    bind.exec_driver_sql(RECORDS.format(generated="VIRTUAL" if major >= 18 else "STORED"))
    bind.exec_driver_sql(IMPORTERS)
    for statement in STATE_TABLE:
        bind.exec_driver_sql(statement.format(state_table=context.config.attributes["state_table"]))
    bind.exec_driver_sql(WALK_PAGES)
    bind.exec_driver_sql(FAILED_RECORDS)
    bind.exec_driver_sql(IDENTITIES)
    for target, comment in COMMENTS.items():
        quoted = comment.replace("'", "''")
        bind.exec_driver_sql(f"COMMENT ON {target} IS '{quoted}'")
