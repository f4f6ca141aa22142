"""Records that could not be stored.

What lives here: finding them in a batch that Postgres refused, reading `parity_failed_records`, and moving a row
from there to the records. What must not: writing pages, or deciding whether a record is sound.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import NamedTuple

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.rows import class_row

from parity_dagster.models import FailedRecord, Pair
from parity_dagster.store.live import lock_pairs
from parity_dagster.store.sessions import REFUSED_DATA, first_line, storable
from parity_dagster.store.walk_pages import add_key


# I5
async def find_unstorable(conn: AsyncConnection, rows: Sequence[tuple[str, str | None, bytes]]) -> dict[str, str]:
    """Ask Postgres which values it cannot hold, halving the batch around each of them.

    Args:
        conn: any connection, in no transaction.
        rows: rkey, cid and JSON bytes.

    Returns:
        Postgres' reason by rkey.
    """
    bad: dict[str, str] = {}
    pending = [list(rows)]
    while pending:
        part = pending.pop()
        if not part:
            continue
        try:
            # text[] reaches the server as it is; the cast is the same work that storing would be.
            await conn.execute("SELECT count(v::jsonb) FROM unnest(%s::text[]) v", ([row[2].decode() for row in part],))
        except (*REFUSED_DATA, UnicodeDecodeError) as exc:
            if len(part) == 1:
                reason = first_line(exc) if isinstance(exc, psycopg.Error) else "not valid UTF-8"
                bad[part[0][0]] = reason
            else:
                middle = len(part) // 2
                pending += [part[:middle], part[middle:]]
    return bad


_COLUMNS = (
    "id, did, collection, rkey, fingerprint, reason, detail, body, pds, walk, first_seen_at, last_seen_at, retries"
)


async def find_failed_records(
    conn: AsyncConnection, *, did: str | None = None, after: int = 0, limit: int | None = None
) -> list[FailedRecord]:
    """Read failed records in the order of their numbers.

    Args:
        conn: any connection.
        did: only this account's.
        after: only those whose number is greater.
        limit: rows at most.

    Returns:
        The rows.
    """
    async with conn.cursor(row_factory=class_row(FailedRecord)) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM parity_failed_records WHERE id > %(after)s"
            " AND (%(did)s::text IS NULL OR did = %(did)s) ORDER BY id LIMIT %(limit)s",
            {"did": did, "after": after, "limit": limit},
        )
        return await cursor.fetchall()


class Retried(Enum):
    """What became of a failed record that is sound by today's rules."""

    STORED = "stored"
    """Its pair holds it, or a version that is as new."""
    GONE = "gone"
    """It was deleted since, or somebody else has dealt with it."""
    WAITS = "waits"
    """The table holds an older version, which the walk under way will replace or drop: nothing was changed."""


async def store_failed_record(
    conn: AsyncConnection,
    table: str,
    failed: FailedRecord,
    row: tuple[str, str | None, bytes],
    save_more: Callable[[AsyncConnection], Awaitable[None]] | None = None,
) -> Retried:
    """Move a failed record that has turned out to be sound to the records, and correct its pair's counts.

    Args:
        conn: any connection, in no transaction.
        table: name of the state table.
        failed: the row of `parity_failed_records` as it was read.
        row: rkey, cid and JSON bytes.
        save_more: called in the same transaction once the record is there.

    Returns:
        What became of it.

    Raises:
        psycopg.Error: Postgres refuses the value; nothing was changed.
    """
    rkey, cid, value = row
    key = {"did": failed.did, "collection": failed.collection, "rkey": rkey, "cid": cid}
    async with conn.transaction():
        state = await _lock(conn, table, failed)
        seen = await _find(conn, failed)
        if seen is None:
            return Retried.GONE
        # A row of a version that did not note it was met by the pair's last walk, or before.
        key["rev"] = seen.rev or state.rev
        cursor = await conn.execute(
            "SELECT EXISTS (SELECT FROM parity_tombstones t WHERE did = %(did)s AND collection = %(collection)s"
            " AND rkey = %(rkey)s AND t.rev > %(rev)s), coalesce((SELECT r.rev < %(rev)s AND r.cid IS DISTINCT FROM"
            " %(cid)s FROM atproto_records r WHERE did = %(did)s AND collection = %(collection)s AND rkey = %(rkey)s),"
            " false)",
            key,
        )
        is_deleted, is_older_there = await cursor.fetchone() or (False, False)
        if is_older_there:
            return Retried.WAITS
        is_new = False
        if not is_deleted:
            # What is there already came from a page or a live event that could be stored, so it is at least as new.
            cursor = await conn.execute(
                "INSERT INTO atproto_records (did, collection, rkey, cid, value, rev) VALUES (%(did)s, %(collection)s,"
                " %(rkey)s, %(cid)s, %(value)s::jsonb, %(rev)s) ON CONFLICT DO NOTHING",
                {**key, "value": value.decode()},
            )
            is_new = cursor.rowcount == 1
            if is_new and save_more is not None:
                await save_more(conn)
            if state.id is not None and state.walk == seen.walk:
                # A walk that is not at its end yet must know the key, or it would take the record for a deleted one.
                # What an earlier walk has met is for this one's pages to show.
                await add_key(conn, table, state.id, rkey)
        await _forget(conn, table, failed, seen.walk, synced=int(is_new))
        return Retried.GONE if is_deleted else Retried.STORED


async def skip_failed_record(conn: AsyncConnection, table: str, failed: FailedRecord) -> Retried:
    """Drop a failed record that is not wanted any more, and count it as skipped.

    Args:
        conn: any connection, in no transaction.
        table: name of the state table.
        failed: the row of `parity_failed_records`.

    Returns:
        What became of it.
    """
    async with conn.transaction():
        await _lock(conn, table, failed)
        seen = await _find(conn, failed)
        if seen is None:
            return Retried.GONE
        await _forget(conn, table, failed, seen.walk, skipped=1)
        return Retried.STORED


class _State(NamedTuple):
    id: int | None = None
    walk: int = 0
    rev: str | None = None


class _Seen(NamedTuple):
    walk: int
    rev: str | None


async def _lock(conn: AsyncConnection, table: str, failed: FailedRecord) -> _State:
    """Keep everybody else from the pair: other retries, pages, and live events. In the order in which pages do."""
    cursor = await conn.execute(
        sql.SQL(
            "SELECT id, walk, coalesce(fence_rev, rev) FROM {} WHERE did = %s AND collection = %s FOR UPDATE"
        ).format(sql.Identifier(table)),
        (failed.did, failed.collection),
    )
    row = await cursor.fetchone()
    await lock_pairs(conn, (Pair(failed.did, failed.collection),), shared=False)
    return _State() if row is None else _State(*row)


async def _find(conn: AsyncConnection, failed: FailedRecord) -> _Seen | None:
    """The row as it is by now; None if somebody has dealt with it meanwhile."""
    cursor = await conn.execute("SELECT walk, rev FROM parity_failed_records WHERE id = %s FOR UPDATE", (failed.id,))
    row = await cursor.fetchone()
    return None if row is None else _Seen(*row)


async def _forget(
    conn: AsyncConnection, table: str, failed: FailedRecord, walk: int, *, synced: int = 0, skipped: int = 0
) -> None:
    await conn.execute("DELETE FROM parity_failed_records WHERE id = %s", (failed.id,))
    await conn.execute(
        sql.SQL(
            "UPDATE {} SET records_failed = records_failed - 1, records_synced = records_synced + %s,"
            " records_skipped = records_skipped + %s, updated_at = now()"
            " WHERE did = %s AND collection = %s AND walk = %s AND records_failed > 0"
        ).format(sql.Identifier(table)),
        (synced, skipped, failed.did, failed.collection, walk),
    )


async def count_retry(conn: AsyncConnection, failed: FailedRecord, reason: str, detail: str) -> bool:
    """Note that a failed record was tried again in vain.

    Args:
        conn: any connection.
        failed: the row.
        reason: why it cannot be stored, as of now.
        detail: the same for people.

    Returns:
        False if somebody has dealt with it meanwhile.
    """
    cursor = await conn.execute(
        "UPDATE parity_failed_records SET retries = retries + 1, reason = %s, detail = %s WHERE id = %s",
        (reason, storable(detail), failed.id),
    )
    return cursor.rowcount == 1
