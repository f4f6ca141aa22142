"""What the overview is made of: the state table and what surrounds it, summed up by PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import sql

from parity_dagster.errors import GONE
from parity_dagster.models import Pair
from parity_dagster.store.freshness import age_of_stalest
from parity_dagster.store.queue import IS_HELD
from parity_dagster.store.states import LIVE_IMPORTERS

MOST = 15
"""Hosts, accounts and pairs that are named."""
POINTS = 60
"""Points of the line over time, at most."""
PERIODS = tuple(
    timedelta(seconds=seconds)
    for seconds in (1, 10, 60, 600, 3600, 6 * 3600, 86_400, 7 * 86_400, 28 * 86_400, 364 * 86_400)
)
"""What a point of the line may stand for."""
_ORIGIN = datetime(2000, 1, 3, tzinfo=UTC)  # a Monday


class CollectionCounts(NamedTuple):
    """What is held of one collection."""

    collection: str
    pairs: int
    completed: int
    in_progress: int
    pending: int
    failed: int
    gone: int
    """Those of the failed whose accounts are gone."""
    verified: int
    """Those of the completed that an account's signature vouches for."""
    records_synced: int
    records_skipped: int
    records_failed: int


class ErrorCounts(NamedTuple):
    """Failed pairs of one error."""

    error_code: str
    pairs: int
    accounts: int
    hosts: int
    example: Pair


class HostCounts(NamedTuple):
    """What is held of one host."""

    host: str
    accounts: int
    pairs: int
    completed: int
    wrong: int
    gone: int
    records_synced: int
    pages: int
    seconds: float | None
    """Of a pair, the median."""


class SlowHost(NamedTuple):
    """One of the hosts that take longest for a page."""

    host: str
    completed: int
    pages: int
    seconds_per_page: float


class AccountCounts(NamedTuple):
    """One of the largest accounts."""

    did: str
    handle: str | None
    host: str
    pairs: int
    records_synced: int
    seconds: float | None


class SlowPair(NamedTuple):
    """One of the pairs that took longest."""

    did: str
    collection: str
    seconds: float
    records_synced: int
    pages: int
    host: str


class Holdings(NamedTuple):
    """Everything that is summed up; how much it is does not depend on the number of pairs."""

    collections: list[CollectionCounts]
    """Most records first."""
    accounts: int
    hosts: int
    errors: list[ErrorCounts]
    """Most pairs first."""
    largest_hosts: list[HostCounts]
    largest_accounts: list[AccountCounts]
    slowest_pairs: list[SlowPair]
    period: timedelta
    """What a point of `synced_over_time` stands for."""
    synced_over_time: list[tuple[datetime, int]]
    """Records of pairs that were completed in each period, those with none included."""
    failed_records: list[tuple[str, int, str]]
    """Reason, how many, and one example's detail."""
    table_bytes: int
    """Size of `atproto_records` with its index."""
    stalest_seconds: float | None = None
    """Since the stalest complete copy was read or confirmed."""
    slowest_hosts: Sequence[SlowHost] = ()


_PAIRS: LiteralString = (
    "SELECT did, s.collection, s.status, s.records_synced, s.records_skipped, s.records_failed, s.pages,"
    " s.completed_at, extract(epoch FROM s.completed_at - s.started_at)::float AS seconds,"
    " coalesce(s.error_code, 'unknown') AS error_code, coalesce(s.pds, i.pds) AS pds,"
    " coalesce(s.pds, i.pds, 'unknown') AS host, i.handle, s.status = 'completed' AS is_done,"
    " s.status = 'completed' AND s.commit IS NOT NULL AS is_verified,"
    " s.status = 'failed' AND coalesce(s.error_code = ANY(%(gone)s), false) AS is_gone"
    " FROM {table} s LEFT JOIN parity_identities i USING (did)"
)
_COLLECTIONS: LiteralString = (
    "SELECT collection, count(*), count(*) FILTER (WHERE is_done), count(*) FILTER (WHERE status = 'in_progress'),"
    " count(*) FILTER (WHERE status = 'pending'), count(*) FILTER (WHERE status = 'failed'),"
    " count(*) FILTER (WHERE is_gone), count(*) FILTER (WHERE is_verified), sum(records_synced)::bigint,"
    " sum(records_skipped)::bigint, sum(records_failed)::bigint"
    " FROM pairs GROUP BY collection ORDER BY sum(records_synced) DESC, collection"
)
_TOTALS: LiteralString = "SELECT count(DISTINCT did), count(DISTINCT pds) FROM pairs"
_ERRORS: LiteralString = (
    "SELECT error_code, count(*), count(DISTINCT did), count(DISTINCT host), min(did || ' ' || collection)"
    " FROM pairs WHERE status = 'failed' GROUP BY error_code ORDER BY count(*) DESC, error_code"
)
_HOSTS: LiteralString = (
    "SELECT host, count(DISTINCT did), count(*), count(*) FILTER (WHERE is_done),"
    " count(*) FILTER (WHERE status = 'failed' AND NOT is_gone), count(*) FILTER (WHERE is_gone),"
    " sum(records_synced)::bigint, sum(pages)::bigint, percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds)"
    " FROM pairs GROUP BY host ORDER BY sum(records_synced) DESC, host LIMIT %(most)s"
)
_SLOW_HOSTS: LiteralString = (
    "SELECT host, count(*), sum(pages)::bigint, sum(seconds) / sum(pages) FROM pairs WHERE is_done AND pages > 0"
    " AND seconds IS NOT NULL GROUP BY host ORDER BY 4 DESC, host LIMIT %(most)s"
)
_ACCOUNTS: LiteralString = (
    "SELECT did, max(handle), max(host), count(*), sum(records_synced)::bigint, sum(seconds)"
    " FROM pairs GROUP BY did ORDER BY sum(records_synced) DESC, did LIMIT %(most)s"
)
_SLOWEST: LiteralString = (
    "SELECT did, collection, seconds, records_synced, pages, host FROM pairs WHERE seconds IS NOT NULL"
    " ORDER BY seconds DESC, did, collection LIMIT %(most)s"
)
_SPAN: LiteralString = "SELECT min(completed_at), max(completed_at) FROM pairs"
_OVER_TIME: LiteralString = (
    "SELECT date_bin(%(period)s, completed_at, %(origin)s), sum(records_synced)::bigint FROM pairs"
    " WHERE completed_at IS NOT NULL GROUP BY 1 ORDER BY 1"
)


def read_holdings(conn: psycopg.Connection[Any], table: str, collections: Sequence[str] = ()) -> Holdings:
    """Sum up what is held, in PostgreSQL; none of the records is read.

    Args:
        collections: those whose stalest copy is looked for.
    """

    def ask(question: LiteralString, **values: object) -> list[tuple[Any, ...]]:
        return conn.execute(
            sql.SQL("WITH pairs AS (" + _PAIRS + ") " + question).format(table=sql.Identifier(table)),
            {"gone": sorted(GONE), "most": MOST, **values},
        ).fetchall()

    ((accounts, hosts),) = ask(_TOTALS)
    ((first, last),) = ask(_SPAN)
    period, points = PERIODS[0], []
    if first is not None:
        period = next((period for period in PERIODS if (last - first) / period < POINTS), PERIODS[-1])
        sums = dict(ask(_OVER_TIME, period=period, origin=_ORIGIN))
        moment = min(sums)
        while moment <= max(sums):
            points.append((moment, sums.get(moment, 0)))
            moment += period
    failed = conn.execute(
        "SELECT reason, count(*), (array_agg(detail ORDER BY last_seen_at DESC, id DESC))[1]"
        " FROM parity_failed_records GROUP BY reason ORDER BY count(*) DESC, reason"
    ).fetchall()
    # a table that somebody has partitioned has nothing itself
    size = conn.execute(
        "SELECT coalesce((SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('atproto_records')),"
        " pg_total_relation_size('atproto_records'))::bigint"
    ).fetchone()
    assert size is not None
    return Holdings(
        [CollectionCounts(*row) for row in ask(_COLLECTIONS)],
        accounts,
        hosts,
        [
            ErrorCounts(code, pairs, accounts, hosts, Pair(*example.split(" ")))
            for code, pairs, accounts, hosts, example in ask(_ERRORS)
        ],
        [HostCounts(*row) for row in ask(_HOSTS)],
        [AccountCounts(*row) for row in ask(_ACCOUNTS)],
        [SlowPair(*row) for row in ask(_SLOWEST)],
        period,
        points,
        [(reason, count, detail) for reason, count, detail in failed],
        size[0],
        age_of_stalest(conn, table, collections),
        [SlowHost(*row) for row in ask(_SLOW_HOSTS)],
    )


class Work(NamedTuple):
    """What there is to be seen of imports without reading more than a few rows."""

    mark: str
    """Differs from one taken earlier if an import was begun since, a pair was asked for, or a person has changed what
    is held or failed (`CHANGED`)."""
    is_going_on: bool
    """Whether anybody imports at this moment."""
    is_waiting: bool
    """Whether something is due that nobody has begun, or is about to be begun by a run."""


CHANGED: LiteralString = "SELECT nextval(pg_get_serial_sequence('parity_importers', 'id'))"
"""For whoever changes what is held, or has failed, without an import: the next look finds another mark."""


def look_at_work(conn: psycopg.Connection[Any], table: str) -> Work:
    """See whether imports are going on; each question is for one entry of an index."""
    row = conn.execute(
        sql.SQL(
            "SELECT concat_ws('-', pg_sequence_last_value(pg_get_serial_sequence('parity_importers', 'id')::regclass),"
            " pg_sequence_last_value(pg_get_serial_sequence({name}, 'id')::regclass)),"
            " EXISTS (SELECT FROM {table} WHERE status = 'in_progress' AND importer_id IN ({live})),"
            f" EXISTS (SELECT FROM {{table}} WHERE batch IS NOT NULL AND NOT {IS_HELD})"
            f" OR EXISTS (SELECT FROM {{table}} WHERE status = 'in_progress' AND NOT {IS_HELD}"
            "  AND (next_attempt_at IS NULL OR next_attempt_at <= now()))"
            " OR EXISTS (SELECT FROM {table} WHERE status = 'pending' AND batch IS NULL"
            "  AND (next_attempt_at IS NULL OR next_attempt_at <= now()))"
            " OR EXISTS (SELECT FROM {table} WHERE status = 'failed' AND batch IS NULL AND next_attempt_at <= now())"
        ).format(name=sql.Literal(f'"{table}"'), table=sql.Identifier(table), live=LIVE_IMPORTERS)
    ).fetchone()
    assert row is not None
    return Work(*row)
