"""How far each list of accounts was read, and what its pages brought; both in one transaction.

A list that was read to its end is gone on with at its last page, because new accounts come last in the lists of the
reference implementations. Where that cannot be relied on, it is read from its start again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from parity_dagster.errors import ListBusy
from parity_dagster.models import Pair
from parity_dagster.store.queue import enqueue
from parity_dagster.text import storable

WHOLE_AGAIN = "7 days"
"""Age of a list's reading from its start after which the next one begins there again: an index may have been rebuilt,
and then its old cursors point anywhere."""
SAMPLE = 10_000
"""Rows that averages are taken of."""
LONG_LIST = 10_000
"""Accounts of a list that is not read as a whole each time that somebody looks for new ones."""
NOTICING = "3s"
"""How long a list is waited for that somebody has."""
# Beyond what they hold, temporary tables are read from files for each row.
_TEMP_BUFFERS = "64MB"


_LOCK: LiteralString = "hashtextextended('parity list ' || %(table)s || ' ' || %(server)s || ' ' || %(nsid)s, 0)"
_LOCK_OF_WANTED: LiteralString = _LOCK.replace("%(nsid)s", "nsid")


class ListPosition(NamedTuple):
    """How far a list was read: its row."""

    id: int
    cursor: str | None
    """Where the next page starts; at the end, where the last page started."""
    pages: int
    """Pages taken in all; tells whether somebody else has gone on."""
    last_did: str
    is_sorted: bool
    """Whether every account came after the one before it, by DID: a new one may then be anywhere."""


class Taken(NamedTuple):
    """What a page brought."""

    fresh: list[str]
    """Accounts that this reading had not named before."""
    known: int
    """Of them, those that had a row in the state table already."""
    queued: int
    """Pairs that are newly pending."""


class Missing(NamedTuple):
    """What would have to be imported of a page."""

    known: int
    """Accounts that have a row in the state table already."""
    accounts: int
    """Accounts with a pair that has no row."""
    pairs: int
    lookups: int
    """Of these accounts, those whose server is not known."""


def prepare_session(conn: psycopg.Connection) -> None:
    """Make what tells whether a reading has named an account before; it lives as long as the session."""
    conn.execute(f"SET temp_buffers = '{_TEMP_BUFFERS}'")
    conn.execute('CREATE TEMPORARY TABLE parity_listed (did text COLLATE "C", list integer, PRIMARY KEY (did, list))')


def hold_list(conn: psycopg.Connection, table: str, server: str, collection: str) -> None:
    """Have the list to oneself until the session ends, which is in no transaction; `ListBusy` if somebody else has it.

    The server takes a moment to notice that whoever had it was killed.
    """
    conn.execute(f"SET lock_timeout = '{NOTICING}'")
    try:
        conn.execute(f"SELECT pg_advisory_lock({_LOCK})", {"table": table, "server": server, "nsid": collection})
    except psycopg.errors.LockNotAvailable:
        raise ListBusy(
            f"{collection or 'the list of all accounts'} of {server} is being read by another process, which goes on"
        ) from None
    conn.execute("SET lock_timeout = 0")


def begin(
    conn: psycopg.Connection, table: str, server: str, collection: str, wanted: Sequence[str], *, from_start: bool
) -> ListPosition:
    """Where to go on with a list.

    Args:
        collection: NSID, or "" for all accounts of the server.
        wanted: collections that are queued of each account; accounts that were passed with fewer are met again.
        from_start: begin at its start in any case.
    """
    key = {"table": f'"{table}"', "server": server, "collection": collection, "wanted": list(wanted)}
    conn.execute(
        "INSERT INTO parity_discoveries (state_table, server, collection, wanted)"
        " VALUES (to_regclass(%(table)s), %(server)s, %(collection)s, %(wanted)s) ON CONFLICT DO NOTHING",
        key,
    )
    row = conn.execute(
        "UPDATE parity_discoveries d SET wanted = %(wanted)s, tried_at = now(), failures = failures + 1,"
        " cursor = CASE WHEN NOT a.again THEN cursor END, last_did = CASE WHEN a.again THEN '' ELSE last_did END,"
        " is_sorted = a.again OR is_sorted, accounts = CASE WHEN a.again THEN 0 ELSE accounts END,"
        " began_at = CASE WHEN a.again THEN now() ELSE began_at END, ended_at = CASE WHEN NOT a.again THEN ended_at END"
        " FROM (SELECT id, %(from_start)s OR NOT wanted @> %(wanted)s OR ended_at IS NOT NULL"
        f" AND (is_sorted OR began_at < now() - interval '{WHOLE_AGAIN}') AS again FROM parity_discoveries"
        " WHERE state_table = to_regclass(%(table)s) AND server = %(server)s AND collection = %(collection)s) a"
        " WHERE d.id = a.id RETURNING d.id, d.cursor, d.pages, d.last_did, d.is_sorted",
        {**key, "from_start": from_start},
    ).fetchone()
    assert row is not None
    return ListPosition(*row)


def name_accounts(conn: psycopg.Connection, dids: Sequence[str], number: int = 0) -> list[str]:
    """Note that accounts were named, and return those that were not before, in their order.

    Args:
        number: of the list among those that are read in this session.
    """
    named = {
        did
        for (did,) in conn.execute(
            "INSERT INTO parity_listed SELECT did, %s FROM unnest(%s::text[]) AS named(did) ON CONFLICT DO NOTHING"
            " RETURNING did",
            (number, list(dids)),
        )
    }
    return [did for did in dids if did in named]


def take_page(
    conn: psycopg.Connection,
    table: str,
    position: ListPosition,
    dids: Sequence[str],
    wanted: Sequence[str],
    *,
    following: str | None,
    is_end: bool,
) -> tuple[ListPosition, Taken]:
    """Queue a page's accounts and move on behind it; to be called in one transaction.

    Args:
        dids: each once; perhaps none.
        wanted: collections, of which each account is queued unless it was asked for before.
        following: cursor of the next page; None where the next reading is to meet this one again.
        is_end: whether it is the last page of the list.

    Raises:
        ListBusy: somebody else has gone on with the list.
    """
    fresh = name_accounts(conn, dids)
    known = count_known(conn, table, fresh)
    queued = len(enqueue(conn, table, (Pair(did, nsid) for did in fresh for nsid in wanted), only_new=True))
    ordered = [position.last_did, *dids]
    moved = position._replace(
        cursor=following or position.cursor,
        pages=position.pages + 1,
        last_did=ordered[-1],
        is_sorted=position.is_sorted and ordered == sorted(ordered),
    )
    found = conn.execute(
        "UPDATE parity_discoveries SET cursor = %(cursor)s, pages = %(pages)s, last_did = %(last_did)s,"
        " is_sorted = %(is_sorted)s, failures = 0, error = NULL, tried_at = now(), queued = queued + %(queued)s,"
        " accounts = accounts + CASE WHEN ended_at IS NULL THEN %(fresh)s ELSE 0 END,"
        " ended_at = CASE WHEN %(is_end)s THEN now() ELSE ended_at END WHERE id = %(id)s AND pages = %(pages)s - 1",
        {**moved._asdict(), "queued": queued, "fresh": len(fresh), "is_end": is_end},
    )
    if not found.rowcount:
        raise ListBusy("another process has gone on with this list of accounts")
    return moved, Taken(fresh, known, queued)


def has_moved_on(conn: psycopg.Connection, position: ListPosition) -> bool:
    """Whether the page after a position was taken: by a transaction whose end its session did not live to hear."""
    row = conn.execute("SELECT pages FROM parity_discoveries WHERE id = %s", (position.id,)).fetchone()
    return row == (position.pages + 1,)


def note_error(conn: psycopg.Connection, position: ListPosition, error: str) -> None:
    """Note why a reading ended early."""
    conn.execute("UPDATE parity_discoveries SET error = %s WHERE id = %s", (storable(error), position.id))


def due_lists(
    conn: psycopg.Connection, table: str, server: str, collections: Sequence[str], *, rest: float, pause: float
) -> list[str]:
    """Of some collections, those whose list is to be gone on with and that nobody reads, longest waiting first.

    Args:
        rest: seconds after which a list that was read to its end is looked into again; 24 times as long if that means
            to read a long one from its start.
        pause: seconds after a reading that brought nothing because of an error; doubled for each further one, up to
            `rest`.
    """
    rows = conn.execute(
        "SELECT nsid FROM unnest(%(collections)s::text[]) AS wanted(nsid) LEFT JOIN parity_discoveries d"
        " ON d.state_table = to_regclass(quote_ident(%(table)s)) AND d.server = %(server)s AND d.collection = nsid"
        " WHERE (d.id IS NULL OR d.tried_at + make_interval(secs => CASE"
        " WHEN d.failures > 0 THEN least(%(pause)s * 2.0 ^ least(d.failures - 1, 30), greatest(%(pause)s, %(rest)s))"
        " WHEN d.error IS NOT NULL THEN %(pause)s WHEN d.ended_at IS NULL THEN 0"
        f" WHEN d.is_sorted AND d.accounts > {LONG_LIST} THEN 24 * %(rest)s ELSE %(rest)s END) <= now())"
        " AND NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        f" AND (classid::bigint << 32 | objid::bigint) = {_LOCK_OF_WANTED})"
        " ORDER BY d.tried_at NULLS FIRST, nsid",
        {
            "table": table,
            "server": server,
            "collections": list(collections),
            "rest": float(rest),
            "pause": float(pause),
        },
    )
    return [nsid for (nsid,) in rows]


def find_discoveries(conn: psycopg.Connection, table: str) -> list[dict[str, Any]]:
    """How far each list was read, the one that was asked for last first."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "SELECT server, collection, accounts, queued, error, began_at, ended_at, tried_at FROM parity_discoveries"
            " WHERE state_table = to_regclass(%s) ORDER BY tried_at DESC, id",
            (f'"{table}"',),
        ).fetchall()


def count_known(conn: psycopg.Connection, table: str, dids: Sequence[str]) -> int:
    """How many of some accounts have a row in the state table."""
    row = conn.execute(
        sql.SQL(
            "SELECT count(*) FROM unnest(%s::text[]) AS named(did) WHERE EXISTS"
            " (SELECT FROM {table} s WHERE s.did = named.did)"
        ).format(table=sql.Identifier(table)),
        (list(dids),),
    ).fetchone()
    assert row is not None
    return int(row[0])


def count_missing(conn: psycopg.Connection, table: str, dids: Sequence[str], wanted: Sequence[str]) -> Missing:
    """What would have to be imported of some accounts."""
    statement: LiteralString = (
        "SELECT count(*) FILTER (WHERE known), count(*) FILTER (WHERE missing > 0), coalesce(sum(missing), 0)::bigint,"
        " count(*) FILTER (WHERE missing > 0 AND NOT EXISTS (SELECT FROM parity_identities i WHERE i.did = m.did))"
        " FROM (SELECT named.did, EXISTS (SELECT FROM {table} s WHERE s.did = named.did) AS known, %s - (SELECT"
        " count(*) FROM {table} s WHERE s.did = named.did AND s.collection = ANY(%s)) AS missing"
        " FROM unnest(%s::text[]) AS named(did)) m"
    )
    row = conn.execute(
        sql.SQL(statement).format(table=sql.Identifier(table)), (len(wanted), list(wanted), list(dids))
    ).fetchone()
    assert row is not None
    return Missing(*row)


def listed_before(conn: psycopg.Connection, dids: Sequence[str], number: int) -> set[str]:
    """Of some accounts, those that an earlier list of this session has named."""
    rows = conn.execute(
        "SELECT DISTINCT did FROM parity_listed WHERE did = ANY(%s) AND list < %s", (list(dids), number)
    )
    return {did for (did,) in rows}


def typical_pages(conn: psycopg.Connection, table: str, wanted: Sequence[str]) -> float | None:
    """Pages that a pair of these collections has, as far as they were read page by page; None if none was."""
    row = conn.execute(
        sql.SQL(
            "SELECT avg(greatest(pages, 1))::float FROM (SELECT pages FROM {table} WHERE status = 'completed'"
            " AND source = 'list' AND collection = ANY(%s) LIMIT %s) taken"
        ).format(table=sql.Identifier(table)),
        (list(wanted), SAMPLE),
    ).fetchone()
    return None if row is None else row[0]


def count_hosts(conn: psycopg.Connection) -> int:
    """Servers on which accounts were found so far; of many accounts, some are looked at."""
    row = conn.execute(
        "SELECT count(DISTINCT pds) FROM (SELECT pds FROM parity_identities LIMIT %s) taken", (SAMPLE,)
    ).fetchone()
    assert row is not None
    return int(row[0])
