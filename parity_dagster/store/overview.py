"""What the overview is made of: the state table and what surrounds it, as plain rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from parity_dagster.store.states import LIVE_IMPORTERS

STATE_COLUMNS = (
    "did", "collection", "status", "records_synced", "records_skipped", "records_failed", "pages", "started_at",
    "completed_at", "error_code", "pds", "handle", "commit",
)  # fmt: skip
"""Columns of `Holdings.states`."""


class Holdings(NamedTuple):
    """Everything that is summed up."""

    states: list[tuple[Any, ...]]
    """One row per pair, in the order of `STATE_COLUMNS`."""
    failed_records: list[tuple[str, int, str]]
    """Reason, how many, and one example's detail."""
    table_bytes: int
    """Size of `atproto_records` with its index."""


def read_holdings(conn: psycopg.Connection[Any], table: str) -> Holdings:
    """Read what is held; none of the records is read."""
    elsewhere = {"handle": sql.SQL("i.handle"), "pds": sql.SQL("coalesce(s.pds, i.pds)")}
    columns = sql.SQL(", ").join(elsewhere.get(name) or sql.Identifier("s", name) for name in STATE_COLUMNS)
    states = conn.execute(
        sql.SQL("SELECT {} FROM {} s LEFT JOIN parity_identities i USING (did)").format(columns, sql.Identifier(table))
    ).fetchall()
    failed = conn.execute(
        "SELECT reason, count(*), (array_agg(detail ORDER BY last_seen_at DESC, id DESC))[1]"
        " FROM parity_failed_records GROUP BY reason ORDER BY count(*) DESC, reason"
    ).fetchall()
    size = conn.execute("SELECT pg_total_relation_size('atproto_records')").fetchone()
    assert size is not None
    return Holdings(states, [(reason, count, detail) for reason, count, detail in failed], size[0])


class Work(NamedTuple):
    """What there is to be seen of imports without reading more than a few rows."""

    mark: str
    """Differs from one taken earlier if an import was begun since, or a pair was asked for."""
    is_going_on: bool
    """Whether anybody imports at this moment."""
    is_waiting: bool
    """Whether something is due that nobody has begun, or is about to be begun by a run."""


def look_at_work(conn: psycopg.Connection[Any], table: str) -> Work:
    """See whether imports are going on; each question is for one entry of an index."""
    row = conn.execute(
        sql.SQL(
            "SELECT concat_ws('-', pg_sequence_last_value(pg_get_serial_sequence('parity_importers', 'id')::regclass),"
            " pg_sequence_last_value(pg_get_serial_sequence({name}, 'id')::regclass)),"
            " EXISTS (SELECT FROM {table} WHERE status = 'in_progress' AND importer_id IN ({live})),"
            " EXISTS (SELECT FROM {table} WHERE batch IS NOT NULL)"
            " OR EXISTS (SELECT FROM {table} WHERE status = 'in_progress'"
            "  AND (next_attempt_at IS NULL OR next_attempt_at <= now()))"
            " OR EXISTS (SELECT FROM {table} WHERE status = 'pending' AND batch IS NULL"
            "  AND (next_attempt_at IS NULL OR next_attempt_at <= now()))"
            " OR EXISTS (SELECT FROM {table} WHERE status = 'failed' AND batch IS NULL AND next_attempt_at <= now())"
        ).format(name=sql.Literal(f'"{table}"'), table=sql.Identifier(table), live=LIVE_IMPORTERS)
    ).fetchone()
    assert row is not None
    return Work(*row)
