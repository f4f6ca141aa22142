"""Records that could not be stored.

What lives here: finding them in a batch that Postgres refused, reading `parity_failed_records`, and moving a row
from there to the records. What must not: writing pages, or deciding whether a record is sound.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.rows import class_row

from parity_dagster.importing.models import FailedRecord
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


async def store_failed_record(
    conn: AsyncConnection,
    table: str,
    failed: FailedRecord,
    row: tuple[str, str | None, bytes],
    save_more: Callable[[AsyncConnection], Awaitable[None]] | None = None,
) -> None:
    """Move a failed record that has turned out to be sound to the records, and correct its pair's counts.

    Args:
        conn: any connection, in no transaction.
        table: name of the state table.
        failed: the row of `parity_failed_records`.
        row: rkey, cid and JSON bytes.
        save_more: called in the same transaction once the record is there.

    Raises:
        psycopg.Error: Postgres refuses the value; nothing was changed.
    """
    rkey, cid, value = row
    async with conn.transaction():
        state = await _lock_state(conn, table, failed)
        # What is there already came from a page or a live event that could be stored, so it is at least as new.
        cursor = await conn.execute(
            "INSERT INTO atproto_records (did, collection, rkey, cid, value, rev)"
            " VALUES (%s, %s, %s, %s, %s::jsonb, %s) ON CONFLICT DO NOTHING",
            (failed.did, failed.collection, rkey, cid, value.decode(), state[1] if state else None),
        )
        is_new = cursor.rowcount == 1
        if is_new and save_more is not None:
            await save_more(conn)
        if state is not None:
            # A walk that is not at its end yet must know the key, or it would take the record for a deleted one.
            await add_key(conn, table, state[0], rkey)
        await _forget(conn, table, failed, synced=int(is_new))


async def skip_failed_record(conn: AsyncConnection, table: str, failed: FailedRecord) -> None:
    """Drop a failed record that is not wanted any more, and count it as skipped.

    Args:
        conn: any connection, in no transaction.
        table: name of the state table.
        failed: the row of `parity_failed_records`.
    """
    async with conn.transaction():
        await _lock_state(conn, table, failed)
        await _forget(conn, table, failed, skipped=1)


async def _lock_state(conn: AsyncConnection, table: str, failed: FailedRecord) -> tuple[int, str | None] | None:
    cursor = await conn.execute(
        sql.SQL("SELECT id, rev FROM {} WHERE did = %s AND collection = %s FOR UPDATE").format(sql.Identifier(table)),
        (failed.did, failed.collection),
    )
    row = await cursor.fetchone()
    return None if row is None else (row[0], row[1])


async def _forget(
    conn: AsyncConnection, table: str, failed: FailedRecord, *, synced: int = 0, skipped: int = 0
) -> None:
    await conn.execute("DELETE FROM parity_failed_records WHERE id = %s", (failed.id,))
    await conn.execute(
        sql.SQL(
            "UPDATE {} SET records_failed = records_failed - 1, records_synced = records_synced + %s,"
            " records_skipped = records_skipped + %s, updated_at = now()"
            " WHERE did = %s AND collection = %s AND walk = %s AND records_failed > 0"
        ).format(sql.Identifier(table)),
        (synced, skipped, failed.did, failed.collection, failed.walk),
    )


async def count_retry(conn: AsyncConnection, failed: FailedRecord, reason: str, detail: str) -> None:
    """Note that a failed record was tried again in vain.

    Args:
        conn: any connection.
        failed: the row.
        reason: why it cannot be stored, as of now.
        detail: the same for people.
    """
    await conn.execute(
        "UPDATE parity_failed_records SET retries = retries + 1, reason = %s, detail = %s WHERE id = %s",
        (reason, storable(detail), failed.id),
    )
