"""Which PDS an account lives on: a cache of documents, and what the directory's log says of accounts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import LiteralString, NamedTuple

from psycopg import AsyncConnection, sql

from parity_dagster.errors import Interrupted

MAX_AGE: LiteralString = "24 hours"
"""How long a resolution is believed; a failure on the host makes us ask again at once."""
CLOCK_SKEW: LiteralString = "1 minute"
"""A document is taken to be of so long before it was read: an operation of that time in the log may be newer."""
_IS_LOGGED: LiteralString = (
    "(i.is_logged AND i.did LIKE 'did:plc:%%'"
    f" AND (SELECT read_to FROM parity_directory) > now() - interval '{MAX_AGE}')"
)
IS_KNOWN: LiteralString = f"(i.resolved_at > now() - interval '{MAX_AGE}' OR {_IS_LOGGED})"
"""Whether a row `i` says where its account lived within `MAX_AGE`. The log vouches for what it says itself, up to where
it was read; what a mirror of the directory has said otherwise is no truer for being old."""

_UPDATE: LiteralString = (
    "handle = EXCLUDED.handle, pds = EXCLUDED.pds, signing_key = EXCLUDED.signing_key,"
    " is_logged = EXCLUDED.is_logged OR (i.is_logged"
    " AND (i.pds, i.signing_key) IS NOT DISTINCT FROM (EXCLUDED.pds, EXCLUDED.signing_key)),"
    " resolved_at = EXCLUDED.resolved_at, handle_verified_at = coalesce(EXCLUDED.handle_verified_at,"
    " CASE WHEN i.handle = EXCLUDED.handle THEN i.handle_verified_at END)"
)


class CachedIdentity(NamedTuple):
    """A resolved account."""

    did: str
    handle: str | None
    pds: str
    key: str | None = None
    """What it signs with, as a Multikey."""


class LoggedIdentity(NamedTuple):
    """An account as an operation of the directory's log leaves it."""

    did: str
    at: datetime
    handle: str | None
    pds: str | None
    """None: there is nothing to be said without its document."""
    key: str | None


class DirectoryPosition(NamedTuple):
    """How far the log was read."""

    read_to: datetime | None
    is_whole: bool


async def find_identities(conn: AsyncConnection, dids: Sequence[str]) -> dict[str, CachedIdentity]:
    """The accounts of which it is known where they lived within `MAX_AGE`, by DID.

    There is a key only if the directory's log has it: a document that is remembered is good enough for where an account
    lives, and not for what it signs with.
    """
    cursor = await conn.execute(
        f"SELECT did, handle, pds, CASE WHEN {_IS_LOGGED} THEN signing_key END FROM parity_identities i"
        f" WHERE did = ANY(%s) AND {IS_KNOWN}",
        (list(dids),),
    )
    return {row[0]: CachedIdentity(*row) for row in await cursor.fetchall()}


async def save_identities(
    conn: AsyncConnection, identities: Sequence[CachedIdentity], *, verified: bool = False
) -> None:
    """Remember where accounts live; each DID once.

    Args:
        verified: whether their handles were looked up and led to them. Else they are as verified as they were, if they
            have not changed.
    """
    await conn.execute(
        "INSERT INTO parity_identities AS i (did, handle, pds, signing_key, handle_verified_at, resolved_at)"
        " SELECT *, CASE WHEN %s THEN now() END, now() - interval '" + CLOCK_SKEW + "'"
        " FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) ORDER BY 1 ON CONFLICT (did) DO UPDATE SET"
        f" {_UPDATE}",
        (
            verified,
            [i.did for i in identities],
            [i.handle for i in identities],
            [i.pds for i in identities],
            [i.key for i in identities],
        ),
    )


async def begin_log(conn: AsyncConnection, *, again: bool) -> DirectoryPosition:
    """How far the log was read; from its start if it is to be read again.

    Until it has been read to its end once more, nothing is believed for what it said before: rows of accounts that have
    become known since are filled from their first operation on.
    """
    async with conn.transaction():
        if again:
            await conn.execute("UPDATE parity_directory SET read_to = NULL, is_whole = true, updated_at = now()")
        await conn.execute("INSERT INTO parity_directory (is_whole) VALUES (true) ON CONFLICT DO NOTHING")
        cursor = await conn.execute("SELECT read_to, is_whole FROM parity_directory")
        row = await cursor.fetchone()
    assert row is not None
    return DirectoryPosition(*row)


class LogCounts(NamedTuple):
    """What a page of the log has changed."""

    stored: int
    removed: int


async def save_log(
    conn: AsyncConnection,
    identities: Sequence[LoggedIdentity],
    *,
    read_from: datetime | None,
    read_to: datetime,
    everything: bool,
) -> LogCounts:
    """Store what a page of the log says, each DID once, and how far it goes, in one transaction.

    A row that is known to be newer stays as it is, so that a page may come twice and pages in any order. Whether the
    log says the same is noted.

    Args:
        read_from: how far the log was read before, as this reader knows.
        everything: store accounts that nobody has asked for, too.

    Raises:
        Interrupted: another reader has gone on meanwhile.
    """
    async with conn.transaction():
        moved = await conn.execute(
            "UPDATE parity_directory SET read_to = %(to)s, is_whole = is_whole AND %(all)s, updated_at = now()"
            " WHERE read_to IS NOT DISTINCT FROM %(from)s OR read_to = %(to)s",  # or this was committed and not heard
            {"from": read_from, "to": read_to, "all": everything},
        )
        if not moved.rowcount:
            raise Interrupted("another process reads the directory's log, too; one is enough")
        if not everything:
            known = await _known(conn, [identity.did for identity in identities])
            identities = [identity for identity in identities if identity.did in known]
        if not identities:
            return LogCounts(0, 0)
        gone = [identity for identity in identities if identity.pds is None]
        removed = await conn.execute(
            "DELETE FROM parity_identities i USING unnest(%s::text[], %s::timestamptz[]) g (did, at)"
            " WHERE i.did = g.did AND i.resolved_at <= g.at",
            ([i.did for i in gone], [i.at for i in gone]),
        )
        there = [identity for identity in identities if identity.pds is not None]
        stored = await conn.execute(
            "INSERT INTO parity_identities AS i (did, handle, pds, signing_key, resolved_at, is_logged)"
            " SELECT *, true FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::timestamptz[]) ORDER BY 1"
            f" ON CONFLICT (did) DO UPDATE SET {_UPDATE}"
            " WHERE i.resolved_at < EXCLUDED.resolved_at OR (i.resolved_at = EXCLUDED.resolved_at"
            " AND (i.handle, i.pds, i.signing_key)"
            " IS DISTINCT FROM (EXCLUDED.handle, EXCLUDED.pds, EXCLUDED.signing_key))",
            (
                [i.did for i in there],
                [i.handle for i in there],
                [i.pds for i in there],
                [i.key for i in there],
                [i.at for i in there],
            ),
        )
        await conn.execute(
            "UPDATE parity_identities i SET is_logged = g.says FROM (SELECT i.did, (i.pds, i.signing_key)"
            " IS NOT DISTINCT FROM (g.pds, g.key) AS says FROM unnest(%s::text[], %s::text[], %s::text[],"
            " %s::timestamptz[]) AS g (did, pds, key, at) JOIN parity_identities i ON i.did = g.did"
            " AND i.resolved_at > g.at) g WHERE i.did = g.did AND i.is_logged <> g.says",
            ([i.did for i in there], [i.pds for i in there], [i.key for i in there], [i.at for i in there]),
        )
    return LogCounts(stored.rowcount, removed.rowcount)


async def _known(conn: AsyncConnection, dids: list[str]) -> set[str]:
    """Those among accounts that any project of this database imports or wants, or has met."""
    cursor = await conn.execute(
        "SELECT n.nspname, c.relname FROM parity_state_tables t JOIN pg_class c ON c.oid = t.state_table"
        " JOIN pg_namespace n ON n.oid = c.relnamespace"
    )
    tables = [sql.Identifier(*row) for row in await cursor.fetchall()]
    # each by the index on its DIDs, whatever the planner knows of a table that grows
    parts = [
        sql.SQL("SELECT did FROM {} WHERE did = ANY(%(dids)s)").format(table)
        for table in (sql.Identifier("parity_identities"), *tables)
    ]
    cursor = await conn.execute(sql.SQL(" UNION ").join(parts), {"dids": dids})
    return {row[0] for row in await cursor.fetchall()}
