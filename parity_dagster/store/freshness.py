"""How old copies are, and which are the stalest: what was neither read nor confirmed for longest.

A copy is as old as its last complete import, or as the moment at which its host's list of accounts last showed its
revision, if that is later.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import AsyncConnection, sql

from parity_dagster.errors import GONE
from parity_dagster.store.identities import IS_KNOWN
from parity_dagster.store.queue import AGAIN, IS_HELD
from parity_dagster.store.state_tables import regclass
from parity_dagster.text import storable

FRESH_AT: LiteralString = "greatest(s.completed_at, s.confirmed_at)"
"""When the copy of a state row `s` was last known to be what its host shows; an index is in this order."""


def age_text(seconds: float) -> str:
    """An age for people: `45 minutes`, `3.5 hours`, `6.2 days`."""
    if seconds < 3600:
        minutes = f"{seconds / 60:.0f}"
        return f"{minutes} minute{'s' * (minutes != '1')}"
    return f"{seconds / 3600:.1f} hours" if seconds < 86_400 else f"{seconds / 86_400:,.1f} days"


def age_of_stalest(conn: psycopg.Connection[Any], table: str, collections: Sequence[str]) -> float | None:
    """Seconds since the stalest complete copy was read or confirmed; None if there is none.

    It is one look into the index for each collection.
    """
    row = conn.execute(
        sql.SQL(
            "SELECT extract(epoch FROM now() - min(fresh_at))::float8 FROM unnest(%s::text[]) AS c(collection)"
            f" CROSS JOIN LATERAL (SELECT {FRESH_AT} AS fresh_at FROM {{}} s WHERE s.status = 'completed'"
            f" AND s.collection = c.collection ORDER BY {FRESH_AT} LIMIT 1) oldest"
        ).format(sql.Identifier(table)),
        (list(collections),),
    ).fetchone()
    assert row is not None
    return None if row[0] is None else float(row[0])


SAMPLE = 20_000
"""The stalest pairs that a look takes into account; whatever number is due, a look costs the same."""

# Those that are due of each collection, so that one that is not registered any more costs nothing.
_STALEST: LiteralString = (
    "SELECT oldest.* FROM unnest(%(collections)s::text[]) AS c(collection) CROSS JOIN LATERAL (SELECT s.did, s.pds,"
    f" {FRESH_AT} AS fresh_at FROM {{table}} s WHERE s.status = 'completed' AND s.collection = c.collection"
    f" AND {FRESH_AT} < now() - %(every)s ORDER BY {FRESH_AT} LIMIT %(sample)s) oldest"
)
_AGAIN = {"refresh": True, "reread": False}


class DueHost(NamedTuple):
    """A host with copies that are due."""

    host: str
    accounts: int
    """Whose copies they are."""


async def find_due_hosts(
    conn: AsyncConnection, table: str, collections: Sequence[str], every: timedelta
) -> list[DueHost]:
    """The hosts of the stalest copies that are older than an interval, that of the stalest first."""
    cursor = await conn.execute(
        sql.SQL(f"SELECT pds, count(DISTINCT did) FROM ({_STALEST}) due GROUP BY pds ORDER BY min(fresh_at)").format(
            table=sql.Identifier(table)
        ),
        {"collections": list(collections), "every": every, "sample": SAMPLE // len(collections)},
    )
    return [DueHost(*row) for row in await cursor.fetchall()]


async def queue_stalest(
    conn: AsyncConnection,
    table: str,
    collections: Sequence[str],
    every: timedelta,
    *,
    without: Collection[str],
    most: int,
) -> int:
    """Queue the accounts of the stalest copies that are older than an interval, to be read again.

    Of each account goes what is older than half of the interval, because one question is for all of it.

    Args:
        without: hosts whose accounts are left.
        most: copies after which no further account is taken.

    Returns:
        How many pairs were queued.
    """
    cursor = await conn.execute(
        sql.SQL(
            f"UPDATE {{table}} s SET {AGAIN} WHERE s.id IN (SELECT s.id FROM {{table}} s WHERE s.did IN"
            f" (SELECT did FROM ({_STALEST}) due WHERE pds <> ALL(%(without)s) ORDER BY fresh_at LIMIT %(most)s)"
            " AND s.status = 'completed' AND s.collection = ANY(%(collections)s)"
            f" AND {FRESH_AT} < now() - %(every)s / 2 ORDER BY s.id FOR UPDATE SKIP LOCKED)"
        ).format(table=sql.Identifier(table)),
        {
            "collections": list(collections),
            "every": every,
            "sample": SAMPLE // len(collections),
            "without": list(without),
            "most": most,
            **_AGAIN,
        },
    )
    return cursor.rowcount


async def queue_failed(
    conn: AsyncConnection, table: str, collections: Sequence[str], every: timedelta, *, most: int
) -> int:
    """Queue pairs that failed for good an interval ago: accounts that were gone come back, and so do hosts."""
    cursor = await conn.execute(
        sql.SQL(
            f"UPDATE {{table}} s SET {AGAIN} WHERE s.id IN (SELECT s.id FROM {{table}} s"
            " WHERE s.status = 'failed' AND s.next_attempt_at IS NULL AND s.batch IS NULL"
            " AND s.collection = ANY(%(collections)s) AND s.updated_at < now() - %(every)s"
            " ORDER BY s.updated_at LIMIT %(most)s FOR UPDATE SKIP LOCKED)"
        ).format(table=sql.Identifier(table)),
        {"collections": list(collections), "every": every, "most": most, **_AGAIN},
    )
    return cursor.rowcount


async def count_waiting(conn: AsyncConnection, table: str, collections: Sequence[str], most: int) -> int:
    """How many pairs of some collections wait to be read again, without those that a person holds; counted no further
    than to a number."""
    cursor = await conn.execute(
        sql.SQL(
            "SELECT count(*) FROM (SELECT FROM {} WHERE status = 'pending' AND refresh"
            f" AND NOT {IS_HELD} AND collection = ANY(%s) LIMIT %s) waiting"
        ).format(sql.Identifier(table)),
        (list(collections), most),
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


# Lists of hosts.


class ListReading(NamedTuple):
    """How far the list of all accounts of a host was read: its row."""

    host: str
    cursor: str | None
    landmark: str | None
    pages: int
    most_pages: int
    needed_pages: int | None
    """Pages that the list is known to have, or to have at least."""
    failures: int
    began_at: datetime
    is_under_way: bool
    is_recent: bool
    """Whether it was begun within half of the interval."""


class Listed(NamedTuple):
    """An account as a page of its host's list shows it."""

    did: str
    rev: str | None
    is_active: bool


class Taken(NamedTuple):
    """What came of a page."""

    confirmed: int
    queued: int


_READING_COLUMNS: LiteralString = (
    "host, cursor, landmark, pages, most_pages, needed_pages, failures, began_at, ended_at IS NULL,"
    " began_at > now() - %(every)s / 2"
)


async def find_readings(
    conn: AsyncConnection, table: str, hosts: Sequence[str], every: timedelta
) -> dict[str, ListReading]:
    """The readings that are under way, and the last ones of some hosts."""
    cursor = await conn.execute(
        sql.SQL(
            f"SELECT {_READING_COLUMNS} FROM parity_host_lists WHERE state_table = {{}}"
            " AND (ended_at IS NULL OR host = ANY(%(hosts)s))"
        ).format(regclass(table)),
        {"hosts": list(hosts), "every": every},
    )
    return {row[0]: ListReading(*row) for row in await cursor.fetchall()}


async def begin_reading(
    conn: AsyncConnection, table: str, host: str, most_pages: int, every: timedelta
) -> ListReading | None:
    """Begin to read a host's list; None if somebody else has just done so."""
    cursor = await conn.execute(
        sql.SQL(
            "INSERT INTO parity_host_lists AS h (state_table, host, most_pages) VALUES ({}, %(host)s, %(most)s)"
            " ON CONFLICT (state_table, host) DO UPDATE SET cursor = NULL, landmark = NULL, pages = 0, failures = 0,"
            " error = NULL, began_at = now(), ended_at = NULL, most_pages = EXCLUDED.most_pages"
            f" WHERE h.ended_at IS NOT NULL RETURNING {_READING_COLUMNS}"
        ).format(regclass(table)),
        {"host": host, "most": most_pages, "every": every},
    )
    row = await cursor.fetchone()
    return None if row is None else ListReading(*row)


_LISTED: LiteralString = "unnest(%(dids)s::text[], %(revs)s::text[], %(active)s::bool[]) AS u(did, rev, is_active)"
# I10
_IS_UNCHANGED: LiteralString = (
    "u.is_active AND s.status = 'completed' AND s.pds = %(host)s AND s.rev = u.rev AND s.records_failed = 0"
    f" AND NOT s.reread AND {FRESH_AT} < %(began)s - %(every)s / 2"
)


def _page(reading: ListReading, accounts: Iterable[Listed], every: timedelta) -> dict[str, object]:
    dids, revs, active = list(zip(*accounts, strict=True)) or ((), (), ())
    return {
        "host": reading.host,
        "began": reading.began_at,
        "every": every,
        "dids": list(dids),
        "revs": list(revs),
        "active": list(active),
    }


async def find_unresolved(
    conn: AsyncConnection, table: str, reading: ListReading, accounts: Iterable[Listed], every: timedelta
) -> list[str]:
    """Accounts of a page that are as they were imported, if only they still live there: who knows was asked too long
    ago."""
    cursor = await conn.execute(
        sql.SQL(
            f"SELECT DISTINCT s.did FROM {_LISTED} JOIN {{table}} s USING (did) WHERE {_IS_UNCHANGED}"
            f" AND NOT EXISTS (SELECT FROM parity_identities i WHERE i.did = s.did AND {IS_KNOWN})"
        ).format(table=sql.Identifier(table)),
        _page(reading, accounts, every),
    )
    return [did for (did,) in await cursor.fetchall()]


# I1, I10
async def take_page(
    conn: AsyncConnection,
    table: str,
    reading: ListReading,
    accounts: Iterable[Listed],
    every: timedelta,
    *,
    collections: Sequence[str],
    seconds: float,
    following: str | None,
) -> tuple[ListReading, Taken] | None:
    """Believe what a page of a host's list shows of unchanged accounts, queue the others, and move on behind it.

    Nothing is concluded from it but that a copy is as its host shows it, for which the account has to live there as far
    as is known within a day, or that the account should be asked. What somebody works on at this moment is left alone.

    Args:
        collections: registered NSIDs; pairs of others are not queued.
        seconds: since the page was asked for.
        following: cursor of the next page; None at the end.

    Returns:
        None if somebody else has taken the page.
    """
    page = {
        **_page(reading, accounts, every),
        "table": table,
        "collections": list(collections),
        "gone": sorted(GONE),
        "seconds": seconds,
        "following": following,
        "pages": reading.pages,
        **_AGAIN,
    }
    parts = {"table": sql.Identifier(table), "own": regclass(table)}
    async with conn.transaction():
        moved = await conn.execute(
            sql.SQL(
                "UPDATE parity_host_lists SET cursor = %(following)s, pages = pages + 1, failures = 0, error = NULL,"
                # Brent: a cursor remembered at each power of two meets any circle
                " landmark = CASE WHEN pages & (pages + 1) = 0 THEN %(following)s ELSE landmark END,"
                " ended_at = CASE WHEN %(following)s::text IS NULL THEN now() END,"
                " needed_pages = CASE WHEN %(following)s::text IS NULL THEN pages + 1 ELSE needed_pages END"
                " WHERE state_table = {own} AND host = %(host)s AND pages = %(pages)s AND ended_at IS NULL"
                f" RETURNING {_READING_COLUMNS}"
            ).format(**parts),
            page,
        )
        row = await moved.fetchone()
        if row is None:
            return None
        confirmed = await conn.execute(
            sql.SQL(
                "UPDATE {table} s SET confirmed_at = now() - make_interval(secs => %(seconds)s) WHERE s.id IN"
                f" (SELECT s.id FROM {_LISTED} JOIN {{table}} s USING (did) JOIN parity_identities i USING (did)"
                f" WHERE {_IS_UNCHANGED} AND i.pds = %(host)s AND {IS_KNOWN}"
                " ORDER BY s.id FOR UPDATE OF s SKIP LOCKED)"
            ).format(**parts),
            page,
        )
        queued = await conn.execute(
            sql.SQL(
                f"UPDATE {{table}} s SET {AGAIN} WHERE s.id IN (SELECT s.id FROM {_LISTED}"
                " JOIN {table} s USING (did) LEFT JOIN parity_identities i USING (did)"
                " WHERE s.collection = ANY(%(collections)s) AND (s.status = 'completed' AND s.pds = %(host)s"
                f" AND (({FRESH_AT} < %(began)s - %(every)s / 2 AND (NOT u.is_active OR u.rev > s.rev))"
                # confirmed by an earlier page of the list, which contradicts itself
                " OR (s.confirmed_at >= %(began)s AND (NOT u.is_active OR u.rev IS DISTINCT FROM s.rev)))"
                # it was gone, and is back
                " OR s.status = 'failed' AND s.batch IS NULL AND s.error_code = ANY(%(gone)s)"
                " AND u.is_active AND coalesce(s.pds, i.pds) = %(host)s AND s.updated_at < %(began)s - %(every)s / 2)"
                " ORDER BY s.id FOR UPDATE OF s SKIP LOCKED)"
            ).format(**parts),
            page,
        )
    return ListReading(*row), Taken(confirmed.rowcount, queued.rowcount)


async def end_reading(
    conn: AsyncConnection, table: str, reading: ListReading, error: str, *, is_over: bool, needs: int | None = None
) -> None:
    """Note why a page was not taken, or why no further one is.

    Args:
        is_over: give the list up: its accounts are asked themselves.
        needs: pages that the list has at least.
    """
    await conn.execute(
        sql.SQL(
            "UPDATE parity_host_lists SET error = %(error)s, failures = failures + 1, ended_at = CASE WHEN %(is_over)s"
            " THEN now() END, needed_pages = coalesce(%(needs)s, needed_pages)"
            " WHERE state_table = {} AND host = %(host)s AND pages = %(pages)s AND ended_at IS NULL"
        ).format(regclass(table)),
        {"error": storable(error), "is_over": is_over, "needs": needs, "host": reading.host, "pages": reading.pages},
    )
