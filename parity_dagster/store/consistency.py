"""Queries that find nothing if all is well: rows that disagree with each other, or with a page."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from parity_dagster.models import Pair
from parity_dagster.store.freshness import FRESH_AT, age_of_stalest
from parity_dagster.store.queue import IS_HELD
from parity_dagster.store.state_tables import regclass


class FailedCount(NamedTuple):
    """Failed records of one pair and reason."""

    did: str
    collection: str
    reason: str
    records: int
    example: str
    """Detail of the one met last."""
    rkey: str | None
    """Its record key, if known."""


class FailedPair(NamedTuple):
    """A pair whose last walk ended with an error."""

    did: str
    collection: str
    error_code: str | None
    error: str | None
    attempts: int
    next_attempt_at: datetime | None
    pds: str | None


class Miscount(NamedTuple):
    """A completed pair whose rows are not as many as its state says."""

    did: str
    collection: str
    records_synced: int
    rows: int


class WaitingPair(NamedTuple):
    """A pair that should have moved on long ago, or that was read too long ago."""

    did: str
    collection: str
    status: str
    since: datetime


class ConsistencyQueries:
    """Queries about all pairs."""

    def __init__(self, conn: psycopg.Connection[Any], table: str) -> None:
        self._conn = conn
        self._name = table
        self._table = sql.Identifier(table)

    def _sql(self, text: LiteralString) -> sql.Composed:
        return sql.SQL(text).format(table=self._table)

    def count_pairs(self) -> int:
        """How many pairs are looked at."""
        row = self._conn.execute(self._sql("SELECT count(*) FROM {table}")).fetchone()
        assert row is not None
        return int(row[0])

    def failed_records(self) -> list[FailedCount]:
        """Failed records by pair and reason, most first."""
        statement = (
            "SELECT f.did, f.collection, f.reason, count(*) AS records,"
            " (array_agg(f.detail ORDER BY f.last_seen_at DESC, f.id DESC))[1] AS example,"
            " (array_agg(f.rkey ORDER BY f.last_seen_at DESC, f.id DESC))[1] AS rkey"
            " FROM parity_failed_records f"
            " GROUP BY f.did, f.collection, f.reason ORDER BY records DESC, f.did, f.collection"
        )
        with self._conn.cursor(row_factory=class_row(FailedCount)) as cursor:
            return cursor.execute(self._sql(statement)).fetchall()

    def failed_pairs(self) -> list[FailedPair]:
        """Pairs whose last walk failed, by error."""
        statement = (
            "SELECT did, collection, error_code, error, attempts, next_attempt_at, pds FROM {table} s"
            " WHERE status = 'failed' ORDER BY error_code, did, collection"
        )
        with self._conn.cursor(row_factory=class_row(FailedPair)) as cursor:
            return cursor.execute(self._sql(statement)).fetchall()

    def miscounts(self) -> list[Miscount]:
        """Completed pairs whose rows cannot be what the walk stored.

        Live events may have come since, so a range of counts is right: without what they can have added, up to with
        what they can have deleted.
        """
        statement = (
            "WITH counted AS (SELECT s.did, s.collection, s.records_synced, s.completed_at,"
            " count(r.rkey) FILTER (WHERE s.rev IS NULL OR r.rev IS NULL OR r.rev <= s.rev) AS of_walk,"
            " count(r.rkey) AS rows FROM {table} s LEFT JOIN atproto_records r"
            " ON r.did = s.did AND r.collection = s.collection AND r.first_seen_at <= s.completed_at"
            " WHERE s.status = 'completed' GROUP BY s.id)"
            " SELECT did, collection, records_synced, rows FROM counted c WHERE of_walk > records_synced"
            " OR rows < records_synced - (SELECT count(*) FROM parity_tombstones t WHERE t.did = c.did"
            " AND t.collection = c.collection AND t.deleted_at >= c.completed_at) ORDER BY did, collection"
        )
        with self._conn.cursor(row_factory=class_row(Miscount)) as cursor:
            return cursor.execute(self._sql(statement)).fetchall()

    def stuck(self, patience: timedelta, collections: Sequence[str]) -> list[WaitingPair]:
        """Pairs that are pending, in progress or due for another try, and that nobody has touched for a while.

        Without those that wait because somebody wants it so: of a canceled run, or of a collection that is not among
        these, the registered ones. Nor those whose turn in a long queue will come, because runs go on to take pairs.
        """
        statement = (
            "SELECT did, collection, status, coalesce(next_attempt_at, updated_at) AS since FROM {table} s"
            f" WHERE (status IN ('pending', 'in_progress') OR next_attempt_at IS NOT NULL) AND NOT {IS_HELD}"
            " AND collection = ANY(%(collections)s)"
            " AND (status = 'in_progress' OR NOT EXISTS (SELECT FROM {table} r WHERE r.run_id IS NOT NULL"
            "  AND r.status <> 'pending' AND r.updated_at > now() - %(patience)s))"
            " AND coalesce(next_attempt_at, updated_at) < now() - %(patience)s ORDER BY since, did, collection"
        )
        with self._conn.cursor(row_factory=class_row(WaitingPair)) as cursor:
            return cursor.execute(
                self._sql(statement), {"patience": patience, "collections": list(collections)}
            ).fetchall()

    def stale(self, age: timedelta, collections: Sequence[str]) -> list[WaitingPair]:
        """Completed pairs of these collections that were neither read nor confirmed for too long."""
        statement = (
            f"SELECT did, collection, status, {FRESH_AT} AS since FROM {{table}} s"
            f" WHERE status = 'completed' AND collection = ANY(%(collections)s) AND {FRESH_AT} < now() - %(age)s"
            " ORDER BY since, did, collection"
        )
        with self._conn.cursor(row_factory=class_row(WaitingPair)) as cursor:
            return cursor.execute(self._sql(statement), {"age": age, "collections": list(collections)}).fetchall()

    def age_of_stalest(self, collections: Sequence[str]) -> float | None:
        """Seconds since the stalest complete copy was read or confirmed; None if there is none."""
        return age_of_stalest(self._conn, self._name, collections)

    def random_accounts(self, number: int, seed: int, collections: Collection[str] | None = None) -> list[str]:
        """Accounts that have complete pairs, drawn by chance; the same seed draws the same ones.

        Args:
            collections: only complete pairs of these count; None for all.
        """
        rows = self._conn.execute(
            self._sql(
                "SELECT did FROM {table} s WHERE status = 'completed'"
                " AND (%(only)s::text[] IS NULL OR collection = ANY(%(only)s)) GROUP BY did"
                " ORDER BY md5(did || %(seed)s::text), did LIMIT %(number)s"
            ),
            {"number": number, "seed": seed, "only": None if collections is None else list(collections)},
        )
        return [did for (did,) in rows]


def differing(
    conn: psycopg.Connection[Any], pair: Pair, rows: Sequence[tuple[str, str | None, bytes]]
) -> dict[str, str]:
    """Compare records of a page with the table.

    Returns:
        `missing`, `cid` or `value` by rkey, for those that are not stored as they are.
    """
    found = conn.execute(
        "SELECT u.rkey, CASE WHEN r.rkey IS NULL THEN 'missing' WHEN r.cid IS DISTINCT FROM u.cid THEN 'cid'"
        " ELSE 'value' END FROM unnest(%s::text[], %s::text[], %s::text[]) AS u(rkey, cid, value)"
        " LEFT JOIN atproto_records r ON r.did = %s AND r.collection = %s AND r.rkey = u.rkey"
        " WHERE r.rkey IS NULL OR r.cid IS DISTINCT FROM u.cid OR r.value <> u.value::jsonb",
        (
            [rkey for rkey, _, _ in rows], [cid for _, cid, _ in rows], [value.decode() for *_, value in rows],
            pair.did, pair.collection,
        ),
    )  # fmt: skip
    return dict(found.fetchall())


def stored_keys(conn: psycopg.Connection[Any], pair: Pair) -> dict[str, str | None]:
    """What the table holds of a pair."""
    rows = conn.execute(
        "SELECT rkey, rev FROM atproto_records WHERE did = %s AND collection = %s", (pair.did, pair.collection)
    )
    return dict(rows.fetchall())


def failed_keys(conn: psycopg.Connection[Any], pair: Pair) -> set[str]:
    """Record keys of a pair that are known to have failed."""
    rows = conn.execute(
        "SELECT rkey FROM parity_failed_records WHERE did = %s AND collection = %s AND rkey IS NOT NULL",
        (pair.did, pair.collection),
    )
    return {rkey for (rkey,) in rows}


def pending_pairs(conn: psycopg.Connection[Any], table: str) -> set[Pair]:
    """Pairs whose ending is in the outbox: committed, and not delivered to every listener yet."""
    rows = conn.execute(
        sql.SQL("SELECT did, collection FROM parity_announcements WHERE state_table = {}").format(regclass(table))
    )
    return {Pair(did, collection) for did, collection in rows}
