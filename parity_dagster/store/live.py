"""Live events and pages on the same table, and the rule that lets both write it in any order.

Every row carries the revision of its repository at which it was observed (`atproto_records.rev`, a TID, which orders
like a time). A page's rows carry the revision read before its walk began, because the page is at least that new.

- A page leaves a row alone whose revision is greater, and a key whose tombstone's revision is greater.
- An event is ignored if the row or the tombstone has a greater revision: it is a replay.
- A deletion leaves a tombstone, until a walk completes that began after it.

Pages and events of one pair never overlap in time: pages hold the pair's advisory lock shared, events exclusively,
so neither can miss what the other has written and not yet committed. Pairs share 256 locks, which keeps a batch of
thousands of pairs within the server's lock table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple
from zlib import crc32

from psycopg import AsyncConnection, AsyncCursor, sql

from parity_dagster.errors import Reason
from parity_dagster.models import Pair
from parity_dagster.store.mapper_tables import MappedRow, MappedStore, MappedWrite
from parity_dagster.store.state_tables import other_tables
from parity_dagster.store.writes import PairWrite, fingerprint
from parity_dagster.text import storable

LOCK_CLASS = 1_885_434_490
"""First key of these advisory locks; the second is the pair's bucket."""
LOCK_BUCKETS = 256
STAND_IN_END = "zzzzz"
"""What the times end with that stand in for revisions; of the revisions of hosts, one in 2²⁵ does."""

Key = tuple[str, str, str]
"""did, collection, rkey."""


class LiveRow(NamedTuple):
    """A record that an event created or updated."""

    did: str
    collection: str
    rkey: str
    rev: str
    cid: str | None
    value: bytes
    """JSON."""


class LiveFailure(NamedTuple):
    """A record that an event created or updated and that cannot be stored."""

    did: str
    collection: str
    rkey: str | None
    """None if it is none that the protocol allows: then no row can have it."""
    rev: str
    reason: Reason
    detail: str
    body: bytes
    """The record as a listRecords entry."""


# I7
async def lock_pairs(conn: AsyncConnection, pairs: Iterable[Pair], *, shared: bool) -> None:
    """Keep pages and events of pairs apart until the transaction ends.

    Args:
        conn: a connection in a transaction that has not read any of their records yet.
        shared: True for pages, which may be written side by side; False for events.
    """
    buckets = sorted({crc32(f"{pair.did}/{pair.collection}".encode()) % LOCK_BUCKETS for pair in pairs})
    if buckets:
        # In a fixed order, so that two of them never wait for each other.
        await conn.execute(
            f"SELECT pg_advisory_xact_lock{'_shared' if shared else ''}(%s, bucket) FROM unnest(%s::int[]) bucket",
            (LOCK_CLASS, buckets),
        )


async def ask_tombstones(conn: AsyncConnection, writes: Iterable[PairWrite]) -> AsyncCursor:
    """Ask for the keys that a page must not bring back; `read_tombstones` reads the answer."""
    return await conn.execute(
        "SELECT did, collection, t.rkey FROM unnest(%s::text[], %s::text[], %s::text[]) AS u(did, collection, rev)"
        " JOIN parity_tombstones t USING (did, collection) WHERE t.rev > u.rev",
        _observed_revs(writes),
    )


async def read_tombstones(found: AsyncCursor) -> dict[Pair, set[str]]:
    """The rkeys deleted after each pair's revision; pairs without any are left out."""
    deleted: dict[Pair, set[str]] = {}
    for did, collection, rkey in await found.fetchall():
        deleted.setdefault(Pair(did, collection), set()).add(rkey)
    return deleted


async def drop_tombstones(conn: AsyncConnection, writes: Iterable[PairWrite]) -> None:
    """Forget deletions that the walks completed in this transaction began after: no older page can come any more."""
    await conn.execute(
        "DELETE FROM parity_tombstones t USING unnest(%s::text[], %s::text[], %s::text[]) AS u(did, collection, rev)"
        " WHERE t.did = u.did AND t.collection = u.collection AND t.rev <= u.rev",
        _observed_revs(writes),
    )


def _observed_revs(writes: Iterable[PairWrite]) -> list[list[str | None]]:
    marks = [(write.did, write.collection, write.position.fence_rev) for write in writes]
    return [[mark[column] for mark in marks] for column in range(3)]


async def prune_tombstones(conn: AsyncConnection, table: str) -> int:
    """Forget deletions of more than a day ago that no walk under way, or to be resumed, is older than."""
    unfinished = sql.SQL(
        " AND NOT EXISTS (SELECT FROM {} s WHERE s.did = t.did AND s.collection = t.collection"
        " AND s.status <> 'completed' AND (s.rev IS NULL OR s.rev < t.rev))"
    )
    # Every project's walks write the same records.
    tables = [sql.Identifier(table), *await other_tables(conn, table)]
    cursor = await conn.execute(
        sql.SQL("DELETE FROM parity_tombstones t WHERE deleted_at < now() - interval '1 day'")
        + sql.SQL("").join(unfinished.format(each) for each in tables)
    )
    return cursor.rowcount


class Newest(NamedTuple):
    """The greatest revisions that anything known about a pair's records carries; None if nothing does."""

    told: str | None = None
    """That the pair's hosts told, or an event."""
    known: str | None = None
    """The same, or the time that stood in for one."""


async def newest_rev(conn: AsyncConnection, pair: Pair, limit: str) -> Newest:
    """Look what is known about a pair's records.

    Args:
        limit: greater revisions are of no clock that can be right, and do not count.
    """
    cursor = await conn.execute(
        f"SELECT max(rev) FILTER (WHERE right(rev, {len(STAND_IN_END)}) <> %(end)s), max(rev) FROM ("
        + " UNION ALL ".join(
            f"SELECT rev FROM {table} WHERE did = %(did)s AND collection = %(collection)s AND rev < %(limit)s"
            for table in ("atproto_records", "parity_tombstones", "parity_failed_records")
        )
        + ") known",
        {**pair._asdict(), "limit": limit, "end": STAND_IN_END},
    )
    row = await cursor.fetchone()
    return Newest() if row is None else Newest(*row)


async def is_seen_at(conn: AsyncConnection, pair: Pair, rev: str) -> bool:
    """Whether a pair holds a record that was seen at a revision."""
    cursor = await conn.execute(
        "SELECT FROM atproto_records WHERE did = %s AND collection = %s AND rev = %s LIMIT 1", (*pair, rev)
    )
    return cursor.rowcount == 1


class LiveBatch(NamedTuple):
    """What some events brought; each key at most once over the three lists of records."""

    rows: Sequence[LiveRow]
    failed: Sequence[LiveFailure] = ()
    """Kept as failed records; what the table held of them is out of date and goes."""
    unwanted: Sequence[LiveRow] = ()
    """Declined by a mapper; what the table held of them goes."""
    mapped: Sequence[tuple[LiveRow, MappedRow]] = ()
    """Rows of mappers' own tables, and which of `rows` they are made from."""


async def upsert_live(
    conn: AsyncConnection, table: str, batch: LiveBatch, mapped_store: MappedStore | None = None
) -> int:
    """Store what events created and updated.

    Args:
        conn: a connection in no transaction, prepared by `mapped_store` if there is one.
        mapped_store: writes `batch.mapped`.

    Returns:
        Number of records that were not older than what is known.

    Raises:
        psycopg.Error: Postgres refuses a value, for one; nothing was written.
    """
    rows, failed, unwanted, mapped = batch
    pairs = {Pair(row.did, row.collection) for row in (*rows, *unwanted)}
    pairs |= {Pair(record.did, record.collection) for record in failed}
    async with conn.transaction():
        await lock_pairs(conn, pairs, shared=False)
        written = await _upsert(conn, rows) if rows else set()
        count = len(written)
        if mapped_store and mapped:
            fresh = [(row, made) for row, made in mapped if row[:3] in written]
            await mapped_store.save(conn, [MappedWrite(row.did, row.collection, [made]) for row, made in fresh])
        for row in unwanted:
            count += await _delete(conn, row.did, row.collection, row.rkey, row.rev)
        for record in failed:
            did, collection, rkey, rev = record[:4]
            if rkey is None or await _delete(conn, did, collection, rkey, rev):
                await _keep(conn, table, record)
                count += 1
    return count


async def delete_live(conn: AsyncConnection, did: str, collection: str, rkey: str, rev: str) -> bool:
    """Delete what an event deleted, and remember it; False, and nothing done, if something newer is known.

    The connection is in no transaction.
    """
    async with conn.transaction():
        await lock_pairs(conn, (Pair(did, collection),), shared=False)
        return await _delete(conn, did, collection, rkey, rev)


# I8
async def _upsert(conn: AsyncConnection, rows: Sequence[LiveRow]) -> set[Key]:
    dids, collections, rkeys, revs, cids, values = (list(column) for column in zip(*rows, strict=True))
    keys = (dids, collections, rkeys, revs)
    cursor = await conn.execute(
        "INSERT INTO atproto_records AS r (did, collection, rkey, rev, cid, value)"
        " SELECT u.did, u.collection, u.rkey, u.rev, u.cid, u.value::jsonb"
        " FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])"
        " AS u(did, collection, rkey, rev, cid, value)"
        " WHERE NOT EXISTS (SELECT FROM parity_tombstones t WHERE t.did = u.did AND t.collection = u.collection"
        " AND t.rkey = u.rkey AND t.rev > u.rev)"
        " ON CONFLICT (did, collection, rkey) DO UPDATE SET cid = EXCLUDED.cid, value = EXCLUDED.value,"
        # A replay of what is known already says nothing about an account that became inactive since.
        " rev = EXCLUDED.rev, active = r.active OR r.rev IS DISTINCT FROM EXCLUDED.rev, updated_at = CASE"
        " WHEN (r.active OR r.rev = EXCLUDED.rev) AND r.cid = EXCLUDED.cid THEN r.updated_at ELSE now() END"
        " WHERE r.rev IS NULL OR r.rev <= EXCLUDED.rev"
        " RETURNING r.did, r.collection, r.rkey",
        (*keys, cids, [value.decode() for value in values]),
    )
    written = set(await cursor.fetchall())
    if not written:
        return written
    await conn.execute(
        "DELETE FROM parity_tombstones t USING unnest(%s::text[], %s::text[], %s::text[], %s::text[])"
        " AS u(did, collection, rkey, rev) WHERE t.did = u.did AND t.collection = u.collection AND t.rkey = u.rkey"
        " AND t.rev <= u.rev",
        keys,
    )
    await _drop_failed(conn, written)
    return written


# I8
async def _delete(conn: AsyncConnection, did: str, collection: str, rkey: str, rev: str) -> bool:
    key = {"did": did, "collection": collection, "rkey": rkey, "rev": rev}
    await conn.execute(
        "DELETE FROM atproto_records WHERE did = %(did)s AND collection = %(collection)s AND rkey = %(rkey)s"
        " AND (rev IS NULL OR rev <= %(rev)s)",
        key,
    )
    cursor = await conn.execute(
        "INSERT INTO parity_tombstones AS t (did, collection, rkey, rev) SELECT %(did)s, %(collection)s, %(rkey)s,"
        " %(rev)s WHERE NOT EXISTS (SELECT FROM atproto_records WHERE did = %(did)s AND collection = %(collection)s"
        " AND rkey = %(rkey)s) ON CONFLICT (did, collection, rkey) DO UPDATE SET rev = EXCLUDED.rev,"
        " deleted_at = now() WHERE t.rev <= EXCLUDED.rev",
        key,
    )
    if cursor.rowcount == 0:
        return False
    await _drop_failed(conn, [(did, collection, rkey)])
    return True


async def _drop_failed(conn: AsyncConnection, keys: Collection[Key]) -> None:
    """An older version that could not be stored must not be tried again after a newer one is known."""
    await conn.execute(
        "DELETE FROM parity_failed_records f USING unnest(%s::text[], %s::text[], %s::text[])"
        " AS u(did, collection, rkey)"
        " WHERE f.did = u.did AND f.collection = u.collection AND f.rkey = u.rkey",
        [list(column) for column in zip(*keys, strict=True)],
    )


async def _keep(conn: AsyncConnection, table: str, record: LiveFailure) -> None:
    # Like a failed record of the walk under way, or of the last one: the next walk that begins after it knows better.
    statement = sql.SQL(
        "INSERT INTO parity_failed_records AS f (did, collection, rkey, fingerprint, reason, detail, body, walk,"
        " rev) VALUES (%(did)s, %(collection)s, %(rkey)s, %(fingerprint)s, %(reason)s, %(detail)s, %(body)s, coalesce("
        "(SELECT walk FROM {} WHERE did = %(did)s AND collection = %(collection)s), 0), %(rev)s)"
        " ON CONFLICT (did, collection, fingerprint) DO UPDATE SET walk = EXCLUDED.walk,"
        " rev = greatest(f.rev, EXCLUDED.rev), last_seen_at = now()"
    ).format(sql.Identifier(table))
    key = fingerprint(record.body)
    await conn.execute(statement, {**record._asdict(), "detail": storable(record.detail), "fingerprint": key})
