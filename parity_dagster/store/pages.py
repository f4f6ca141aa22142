"""Writing pages: records, failed records, cursor and counts in one transaction.

Pairs that were never imported are COPYed straight into the table. All others go through a temporary table and an
upsert that leaves identical rows untouched, so that reading an unchanged repository again writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count

from psycopg import AsyncConnection, AsyncCursor, sql
from psycopg.rows import DictRow, dict_row

from parity_dagster.models import POSITION_COLUMNS, ImportState, Pair
from parity_dagster.store.copy_text import encode_array, encode_rows
from parity_dagster.store.live import ask_tombstones, drop_tombstones, lock_pairs, read_tombstones
from parity_dagster.store.mapper_tables import MappedStore, MappedWrite
from parity_dagster.store.outbox import EVERYBODY, Recipients, add_endings
from parity_dagster.store.sessions import enlarge_send_buffer
from parity_dagster.store.state_tables import regclass
from parity_dagster.store.states import COLUMNS, state_from_row
from parity_dagster.store.walk_pages import ALL_PAGES, drop_page_rows, have_read_again, pages_of, save_page_rows
from parity_dagster.store.writes import LostClaim, PairWrite, UnprovenEnding, fingerprint
from parity_dagster.text import storable

_COLUMNS = {
    **POSITION_COLUMNS,
    "records_synced": "bigint", "records_skipped": "bigint", "records_failed": "bigint",
    "status": "text", "error": "text", "error_code": "text", "attempts": "int",
}  # fmt: skip
"""Columns of the state table that a batch sets to what `PairWrite.values` says, with their types."""
_ASSIGNED = ", ".join(f"{name} = u.{name}" for name in _COLUMNS)
_TYPES = {"id": "bigint", **_COLUMNS, "retry_in": "float8"}
_VALUES = f"unnest({', '.join(f'%({name})s::{kind}[]' for name, kind in _TYPES.items())}) AS u({', '.join(_TYPES)})"


class PageStore:
    """Saves batches on a connection of its own."""

    def __init__(self, table: str, mapped: MappedStore | None = None, recipients: Recipients = EVERYBODY) -> None:
        self._name = table
        self._table = sql.Identifier(table)
        self._composed: dict[str, bytes] = {}
        self.mapped = mapped or MappedStore({})
        self._recipients = recipients

    def _sql(self, text: str) -> bytes:
        if text not in self._composed:
            state_table = regclass(self._name)
            self._composed[text] = (
                sql.SQL(text)
                .format(
                    table=self._table,
                    columns=COLUMNS,
                    state_table=state_table,
                    all_pages=ALL_PAGES.format(state_table=state_table),
                )
                .as_bytes()
            )
        return self._composed[text]

    async def prepare(self, conn: AsyncConnection) -> None:
        """Make a writer's own session ready for batches; among other things, upserts go through a temporary table."""
        await conn.execute(
            "CREATE TEMPORARY TABLE IF NOT EXISTS parity_incoming (did text, collection text, rkey text, cid text,"
            " value jsonb, rev text) ON COMMIT DELETE ROWS"
        )
        await self.mapped.prepare(conn)
        enlarge_send_buffer(conn)

    # I3
    async def save(
        self, conn: AsyncConnection, importer_id: int, writes: Sequence[PairWrite]
    ) -> dict[int, ImportState]:
        """Commit a batch.

        Args:
            conn: a prepared connection, in no transaction.
            importer_id: who must still hold every pair.

        Returns:
            The final row of each pair that ended, by its id.

        Raises:
            LostClaim: some pairs are no longer this importer's; nothing was written.
            UnprovenEnding: some walks cannot be shown to be complete; nothing was written.
            psycopg.Error: what Postgres said; nothing was written.
        """
        direct = [write for write in writes if write.is_direct]
        others = [write for write in writes if not write.is_direct]
        trusted = [write for write in others if not write.compares_values]
        ended = [write for write in writes if write.ending]
        # Statements of a pipeline go out together; one by one, each would wait for its turn on a busy event loop.
        async with conn.transaction():
            async with conn.pipeline():
                updated = await self._update_states(conn, importer_id, writes)
                await drop_page_rows(conn, self._name, writes)
                await lock_pairs(conn, (Pair(write.did, write.collection) for write in writes), shared=True)
                deleted = await ask_tombstones(conn, [w for w in writes if w.rows])
                new = await self._ask_new(conn, trusted) if trusted else None
            await _check_claims(updated, writes)
            if new is not None:
                await _keep_new(new, trusted)
            await _drop_deleted(deleted, writes)
            await self._copy(conn, "atproto_records", direct)
            await self._merge(conn, others)
            if self.mapped:
                await self.mapped.save(conn, [MappedWrite(w.did, w.collection, w.mapped) for w in writes])
            async with conn.pipeline():
                await self._save_rejects(conn, writes)
                await save_page_rows(conn, self._name, writes)
                proven = await self._end(conn, importer_id, ended) if ended else None
                states = await self._ask_states(conn, [write.state_id for write in ended]) if ended else None
            if proven is not None:
                await _check_pages(proven, ended)
            return {} if states is None else await _read_states(states)

    async def find_states(self, conn: AsyncConnection, state_ids: Sequence[int]) -> dict[int, ImportState]:
        """Rows by their ids."""
        return await _read_states(await self._ask_states(conn, state_ids))

    async def _ask_states(self, conn: AsyncConnection, state_ids: Sequence[int]) -> AsyncCursor[DictRow]:
        cursor = conn.cursor(row_factory=dict_row)
        return await cursor.execute(self._sql("SELECT {columns} FROM {table} WHERE id = ANY(%s)"), (list(state_ids),))

    async def _update_states(self, conn: AsyncConnection, importer_id: int, writes: Sequence[PairWrite]) -> AsyncCursor:
        values = [write.values() for write in writes]
        columns: dict[str, object] = {name: [row[name] for row in values] for name in values[0]}
        return await conn.execute(
            self._sql(
                f"UPDATE {{table}} s SET {_ASSIGNED}, next_attempt_at = now() + make_interval(secs => u.retry_in),"
                " completed_at = CASE WHEN u.status = 'completed' THEN now() END,"
                " importer_id = CASE WHEN u.status = 'in_progress' THEN s.importer_id END,"
                " refresh = s.refresh AND u.status <> 'completed', reread = s.reread AND u.status <> 'completed',"
                " reread_at = CASE WHEN s.reread AND u.status = 'completed' THEN now() ELSE s.reread_at END,"
                f" updated_at = now() FROM {_VALUES} WHERE s.id = u.id AND s.importer_id = %(importer)s RETURNING s.id"
            ),
            {**columns, "importer": importer_id},
        )

    # I6
    async def _ask_new(self, conn: AsyncConnection, writes: Sequence[PairWrite]) -> AsyncCursor:
        """Ask which rows the table does not hold yet, so that an unchanged page costs one look-up."""
        rows = [row for write in writes for row in write.rows]
        return await conn.execute(
            # LIMIT makes it one look into the index per row; asked with NOT EXISTS, PostgreSQL reads tables of up to
            # some million rows as a whole.
            "SELECT n FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[])"
            " WITH ORDINALITY AS u(did, collection, rkey, cid, n) LEFT JOIN LATERAL (SELECT true AS is_held"
            " FROM atproto_records r WHERE r.did = u.did AND r.collection = u.collection AND r.rkey = u.rkey"
            " AND r.cid = u.cid AND r.active LIMIT 1) r ON true WHERE is_held IS NULL",
            (
                encode_array([write.did for write in writes for _ in write.rows]),
                encode_array([write.collection for write in writes for _ in write.rows]),
                encode_array([row[0] for row in rows]),
                encode_array([row[1] for row in rows]),
            ),
        )

    async def _copy(self, conn: AsyncConnection, table: str, writes: Sequence[PairWrite]) -> None:
        if not any(write.rows for write in writes):
            return
        statement = sql.SQL("COPY {} (did, collection, rkey, cid, value, rev) FROM STDIN").format(sql.Identifier(table))
        async with conn.cursor() as cursor, cursor.copy(statement) as copy:
            for write in writes:
                if write.rows:
                    assert write.position.fence_rev is not None
                    rows = encode_rows(write.did, write.collection, write.position.fence_rev, write.rows)
                    await copy.write(memoryview(rows))  # sent in pieces, which are no copies then

    # I6, I7
    async def _merge(self, conn: AsyncConnection, writes: Sequence[PairWrite]) -> None:
        writes = [write for write in writes if write.rows]
        if not writes:
            return
        await self._copy(conn, "parity_incoming", writes)
        incoming = "parity_incoming"
        if any(write.compares_values for write in writes):
            # Most are held as they are; in a conflict, PostgreSQL would lock each of them, which writes to the disk.
            incoming += (
                " i LEFT JOIN LATERAL (SELECT true AS is_held FROM atproto_records h WHERE h.did = i.did"
                " AND h.collection = i.collection AND h.rkey = i.rkey AND h.cid = i.cid AND h.value = i.value"
                " AND h.active LIMIT 1) h ON true WHERE is_held IS NULL"
            )
        async with conn.pipeline():
            await conn.execute(
                "INSERT INTO atproto_records AS r (did, collection, rkey, cid, value, rev)"
                f" SELECT did, collection, rkey, cid, value, rev FROM {incoming}"
                " ON CONFLICT (did, collection, rkey) DO UPDATE SET cid = EXCLUDED.cid, value = EXCLUDED.value,"
                " rev = EXCLUDED.rev, active = true, updated_at = now() WHERE (r.rev IS NULL OR r.rev <= EXCLUDED.rev)"
                " AND (NOT r.active OR r.cid IS DISTINCT FROM EXCLUDED.cid OR r.value IS DISTINCT FROM EXCLUDED.value)"
            )
            await conn.execute("TRUNCATE parity_incoming")

    async def _save_rejects(self, conn: AsyncConnection, writes: Iterable[PairWrite]) -> None:
        found = {}
        for write in writes:
            for rkey, reason, detail, body in write.failed_rows:
                key = fingerprint(body)
                found[write.state_id, key] = (
                    write.did, write.collection, rkey, key, reason, storable(detail), body, write.position.pds,
                    write.position.walk, write.position.fence_rev,
                )  # fmt: skip
        if not found:
            return
        async with conn.cursor() as cursor:
            await cursor.executemany(
                "INSERT INTO parity_failed_records AS f (did, collection, rkey, fingerprint, reason, detail, body, pds,"
                " walk, rev) SELECT * FROM (VALUES (%s, %s, %s, %s, %s, %s, %s::bytea, %s, %s::int, %s))"
                " AS u(did, collection, rkey, fingerprint, reason, detail, body, pds, walk, rev)"
                # What a live event has deleted or replaced since the walk began is not to be tried again.
                " WHERE NOT EXISTS (SELECT FROM parity_tombstones t WHERE t.did = u.did"
                " AND t.collection = u.collection AND t.rkey = u.rkey AND t.rev > u.rev) AND NOT EXISTS"
                " (SELECT FROM atproto_records r WHERE r.did = u.did AND r.collection = u.collection"
                " AND r.rkey = u.rkey AND r.rev > u.rev) ON CONFLICT (did, collection, fingerprint)"
                " DO UPDATE SET walk = EXCLUDED.walk, pds = EXCLUDED.pds, reason = EXCLUDED.reason,"
                " detail = EXCLUDED.detail, rev = greatest(f.rev, EXCLUDED.rev), last_seen_at = now()",
                list(found.values()),
            )

    async def _end(self, conn: AsyncConnection, importer_id: int, writes: Sequence[PairWrite]) -> AsyncCursor:
        """End pairs; the answer names those whose page rows are all there."""
        for write in writes:
            assert write.ending is not None
            if write.ending.deactivate:
                await conn.execute(
                    "UPDATE atproto_records SET active = false, updated_at = now()"
                    " WHERE did = %s AND collection = %s AND active",
                    (write.did, write.collection),
                )
        proven = await self._recount(conn, [w for w in writes if not w.is_at_once and not _is_unchanged(w)])
        complete = [write for write in writes if write.completes]
        for write in complete:
            if not write.is_fresh:
                await self._sweep(conn, write)
        if noted := [write.state_id for write in complete if not write.is_at_once]:
            await conn.execute(pages_of(self._name), (noted,))
        if complete:
            await drop_tombstones(conn, complete)
        endings = [(write.did, write.collection, write.fetched) for write in writes]
        await add_endings(conn, self._name, importer_id, endings, self._recipients)
        if hidden := [
            Pair(write.did, write.collection) for write in writes if write.ending and write.ending.deactivate
        ]:
            await have_read_again(conn, self._name, hidden)
        return proven

    # I2, I9
    async def _recount(self, conn: AsyncConnection, writes: Sequence[PairWrite]) -> AsyncCursor:
        """Make the counts of walks exact whose page rows are all there."""
        return await conn.execute(
            # by byte: the order does not matter, and a locale's takes several times as long
            self._sql(
                "UPDATE {table} s SET records_synced = CASE WHEN is_counted THEN s.records_synced ELSE (SELECT"
                ' count(DISTINCT k COLLATE "C") FROM parity_walk_pages, unnest(rkeys) k'
                " WHERE state_table = {state_table} AND state_id = s.id AND walk = s.walk) END,"
                " records_skipped = CASE WHEN is_counted THEN s.records_skipped ELSE (SELECT"
                ' count(DISTINCT k COLLATE "C") FROM parity_walk_pages, unnest(skipped_rkeys) k'
                " WHERE state_table = {state_table} AND state_id = s.id AND walk = s.walk) END,"
                " records_failed = (SELECT count(*) FROM parity_failed_records f WHERE f.did = s.did"
                " AND f.collection = s.collection AND (f.rev > s.fence_rev OR f.fingerprint IN (SELECT unnest(failed)"
                " FROM parity_walk_pages WHERE state_table = {state_table} AND state_id = s.id AND walk = s.walk)))"
                " FROM unnest(%s::bigint[], %s::int[], %s::bool[]) AS u(id, walk, is_counted)"
                " WHERE s.id = u.id AND s.walk = u.walk AND {all_pages} RETURNING s.id"
            ),
            [[write.state_id for write in writes], [w.position.walk for w in writes], [w.is_counted for w in writes]],
        )

    # I1, I2
    async def _sweep(self, conn: AsyncConnection, write: PairWrite) -> None:
        """Drop what the PDS no longer shows, if the rows of all pages of this very walk are there to prove it.

        What a live event wrote after the walk began stays: the walk may have passed the place where it would have been
        seen. So does what was seen at the very revision that the walk reads, as a list that lags behind it must show;
        a signed archive of that revision does not lag.
        """
        told = None if write.compares_values else write.position.rev
        keys = {
            "id": write.state_id, "did": write.did, "collection": write.collection, "walk": write.position.walk,
            "rev": write.position.fence_rev, "told": told,
        }  # fmt: skip
        proof = (
            "WITH proof AS (SELECT s.id, s.walk FROM {table} s WHERE s.id = %(id)s AND s.walk = %(walk)s"
            " AND (s.did, s.collection) = (%(did)s, %(collection)s) AND s.status = 'completed' AND s.cursor IS NULL"
            " AND {all_pages}), seen AS (SELECT p.* FROM parity_walk_pages p JOIN proof ON state_table = {state_table}"
            " AND state_id = proof.id AND p.walk = proof.walk)"
        )
        # NOT IN is a look into a hash table whatever the planner believes; NOT EXISTS compared every row with every key
        # of a large pair, as long as nobody had analyzed the table.
        await conn.execute(
            self._sql(
                f"{proof} DELETE FROM atproto_records r WHERE did = %(did)s AND collection = %(collection)s"
                " AND (rev IS NULL OR rev <= %(rev)s) AND EXISTS (SELECT FROM proof)"
                " AND rkey NOT IN (SELECT unnest(rkeys) FROM seen)"
                " AND (rev IS DISTINCT FROM %(told)s OR %(told)s IS NULL OR EXISTS (SELECT FROM seen"
                " WHERE r.rkey = ANY(skipped_rkeys)) OR EXISTS (SELECT FROM parity_failed_records f WHERE"
                " (f.did, f.collection, f.rkey) = (r.did, r.collection, r.rkey)))"
            ),
            keys,
        )
        await conn.execute(
            self._sql(
                f"{proof} DELETE FROM parity_failed_records f WHERE did = %(did)s AND collection = %(collection)s"
                " AND (rev IS NULL OR rev <= %(rev)s) AND EXISTS (SELECT FROM proof)"
                " AND fingerprint NOT IN (SELECT unnest(failed) FROM seen)"
            ),
            keys,
        )


def _is_unchanged(write: PairWrite) -> bool:
    return write.ending is not None and write.ending.is_unchanged


# I2
async def _check_pages(proven: AsyncCursor, writes: Sequence[PairWrite]) -> None:
    found = {row[0] for row in await proven.fetchall()}
    claimed = {write.state_id for write in writes if write.completes and not write.is_at_once}
    if claimed - found:
        raise UnprovenEnding(claimed - found)


# I12
async def _check_claims(updated: AsyncCursor, writes: Sequence[PairWrite]) -> None:
    lost = {write.state_id for write in writes} - {row[0] for row in await updated.fetchall()}
    if lost:
        raise LostClaim(lost)


async def _keep_new(found: AsyncCursor, writes: Sequence[PairWrite]) -> None:
    new = {n for (n,) in await found.fetchall()}
    numbers = count(1)
    for write in writes:
        write.rows = [row for row in write.rows if next(numbers) in new]


# I7
async def _drop_deleted(found: AsyncCursor, writes: Sequence[PairWrite]) -> None:
    """Take out rows that a live event has deleted meanwhile; the locks keep new events out until the commit."""
    deleted = await read_tombstones(found)
    for write in writes if deleted else ():
        gone = deleted.get(Pair(write.did, write.collection), set())
        write.rows = [row for row in write.rows if row[0] not in gone]


async def _read_states(found: AsyncCursor[DictRow]) -> dict[int, ImportState]:
    return {row["id"]: state_from_row(row) for row in await found.fetchall()}
