"""Records that could not be stored: found in a batch that Postgres refused, listed, and moved to the records."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from enum import Enum
from typing import NamedTuple

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.rows import class_row

from parity_dagster.errors import Reason
from parity_dagster.models import FailedRecord, Pair
from parity_dagster.store.listing import FAILED_COLUMNS
from parity_dagster.store.live import lock_pairs
from parity_dagster.store.postgres_errors import REFUSED_DATA, first_line
from parity_dagster.store.state_tables import readable_tables
from parity_dagster.store.walk_pages import StateRow, move_failed
from parity_dagster.text import storable


# I5
async def find_unstorable(conn: AsyncConnection, rows: Sequence[tuple[str, str | None, bytes]]) -> dict[str, str]:
    """Ask Postgres which values it cannot hold, halving the batch around each of them; in no transaction.

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


async def next_failed_records(
    conn: AsyncConnection, table: str, did: str | None, *, after: int, limit: int
) -> list[FailedRecord]:
    """Read failed records that a project may try again: of its own pairs, and of pairs that no state table knows.

    They come in the order of their numbers, those after `after`.
    """
    tables = sorted(await readable_tables(conn, table), key=lambda each: not each.is_own)
    rows = sql.SQL("EXISTS (SELECT FROM {} s WHERE (s.did, s.collection) = (f.did, f.collection))")
    # The first that knows the pair decides.
    known = [sql.SQL("WHEN {} THEN {}").format(rows.format(each.name), each.is_own) for each in tables]
    async with conn.cursor(row_factory=class_row(FailedRecord)) as cursor:
        await cursor.execute(
            sql.SQL(
                "SELECT {columns} FROM parity_failed_records f WHERE id > %(after)s"
                " AND (%(did)s::text IS NULL OR did = %(did)s) AND CASE {known} ELSE true END"
                " ORDER BY id LIMIT %(limit)s"
            ).format(columns=FAILED_COLUMNS, known=sql.SQL(" ").join(known)),
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

    If Postgres refuses the value, nothing is changed.

    Args:
        conn: in no transaction.
        save_more: called in the same transaction once the record is there.
    """
    rkey, cid, value = row
    key = {"did": failed.did, "collection": failed.collection, "rkey": rkey, "cid": cid}
    async with conn.transaction():
        states = await _lock(conn, table, failed)
        seen = await _find(conn, table, failed)
        if seen is None:
            return Retried.GONE
        key["rev"] = seen.rev
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
            for state in states:
                await move_failed(conn, state, failed.fingerprint, rkey=rkey)
        await _forget(conn, states, failed, seen, synced=int(is_new))
        return Retried.GONE if is_deleted else Retried.STORED


async def skip_failed_record(conn: AsyncConnection, table: str, failed: FailedRecord, rkey: str) -> Retried:
    """Drop a failed record that is not wanted any more, and count it as skipped; in no transaction."""
    async with conn.transaction():
        states = await _lock(conn, table, failed)
        seen = await _find(conn, table, failed)
        if seen is None:
            return Retried.GONE
        for state in states:
            await move_failed(conn, state, failed.fingerprint, skipped=rkey)
        await _forget(conn, states, failed, seen, skipped=1)
        return Retried.STORED


class _Seen(NamedTuple):
    first_seen_at: datetime
    rev: str | None


# I14
async def _lock(conn: AsyncConnection, table: str, failed: FailedRecord) -> list[StateRow]:
    """Keep everybody else from the pair: other retries, pages, and live events. In the order in which pages do.

    Returns:
        The pair's row in each state table that has one: every project's walks look for the same records.
    """
    states = []
    for each in await readable_tables(conn, table):
        cursor = await conn.execute(
            sql.SQL("SELECT id FROM {} WHERE did = %s AND collection = %s {}").format(
                each.name, sql.SQL("FOR UPDATE" if each.may_write else "")
            ),
            (failed.did, failed.collection),
        )
        states += [StateRow(each, state_id) for (state_id,) in await cursor.fetchall()]
    await lock_pairs(conn, (Pair(failed.did, failed.collection),), shared=False)
    return states


async def _find(conn: AsyncConnection, table: str, failed: FailedRecord) -> _Seen | None:
    """The row as it is by now; None if somebody has dealt with it meanwhile."""
    cursor = await conn.execute(
        # A row of a version that did not note its revision was met by the pair's last walk, or before.
        sql.SQL(
            "SELECT first_seen_at, coalesce(f.rev, (SELECT coalesce(s.fence_rev, s.rev) FROM {} s"
            " WHERE (s.did, s.collection) = (f.did, f.collection))) FROM parity_failed_records f WHERE id = %s"
            " FOR UPDATE OF f"
        ).format(sql.Identifier(table)),
        (failed.id,),
    )
    row = await cursor.fetchone()
    return None if row is None else _Seen(*row)


# I9
async def _forget(
    conn: AsyncConnection,
    states: Sequence[StateRow],
    failed: FailedRecord,
    seen: _Seen,
    *,
    synced: int = 0,
    skipped: int = 0,
) -> None:
    """Drop the row, and correct the counts of every state row that counts it.

    The counts of a walk under way are those of its pages. Those of a complete walk count what failed before its end,
    for it has dropped what it did not meet.
    """
    await conn.execute("DELETE FROM parity_failed_records WHERE id = %s", (failed.id,))
    for state in states:
        if not state.table.may_write:
            continue
        await conn.execute(
            sql.SQL(
                "UPDATE {} SET records_failed = records_failed - 1, records_synced = records_synced + %(synced)s,"
                " records_skipped = records_skipped + %(skipped)s, updated_at = now()"
                " WHERE id = %(id)s AND records_failed > 0 AND coalesce((SELECT bool_or(%(fingerprint)s = ANY(failed))"
                " FROM parity_walk_pages WHERE state_table = %(oid)s::oid AND state_id = %(id)s),"
                " %(first_seen_at)s <= coalesce(completed_at, started_at))"
            ).format(state.table.name),
            {
                "synced": synced,
                "skipped": skipped,
                "id": state.id,
                "oid": state.table.oid,
                "fingerprint": failed.fingerprint,
                "first_seen_at": seen.first_seen_at,
            },
        )


async def count_retry(conn: AsyncConnection, failed: FailedRecord, reason: Reason, detail: str) -> bool:
    """Note that a failed record was tried again in vain; False if somebody has dealt with it meanwhile."""
    cursor = await conn.execute(
        "UPDATE parity_failed_records SET retries = retries + 1, reason = %s, detail = %s WHERE id = %s",
        (reason, storable(detail), failed.id),
    )
    return cursor.rowcount == 1
