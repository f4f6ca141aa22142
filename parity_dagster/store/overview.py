"""What the overview is made of: the state table and what surrounds it, as plain rows."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

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


class Change(NamedTuple):
    """When an import changed something last."""

    at: datetime
    now: datetime
    """The database's time."""


def latest_change(conn: psycopg.Connection[Any], table: str) -> Change | None:
    """When any pair's row was changed last; None if there are no rows."""
    row = conn.execute(sql.SQL("SELECT max(updated_at), now() FROM {}").format(sql.Identifier(table))).fetchone()
    assert row is not None
    return Change(row[0], row[1]) if row[0] is not None else None
