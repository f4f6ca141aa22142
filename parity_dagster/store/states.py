"""The state table: which pairs there are, who works on them, what is due.

A claim is a row's `importer_id`. An importer is alive as long as a session of its process holds the advisory lock
of its number: PostgreSQL drops the lock when the process or its machine is gone, so nothing has to be renewed and
a killed importer's pairs are free at once. Connections must therefore be sessions (a transaction pooler between
breaks that).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

from psycopg import AsyncConnection, AsyncCursor, sql
from psycopg.rows import dict_row

from parity_dagster.models import ImportState, ImportStatus, Pair
from parity_dagster.store.state_tables import other_tables

LOCK_CLASS = 1_885_434_489
"""First key of our advisory locks; the second is the importer's number, 0 guards the claiming itself."""

COLUMNS = sql.SQL(
    "id, did, collection, status, cursor, records_synced, records_skipped, records_failed, started_at, completed_at,"
    " error, created_at, updated_at, pds, rev, walk, pages, attempts, next_attempt_at, error_code, run_id, importer_id,"
    " fence_rev, source, commit"
)

# I13
LIVE_IMPORTERS = sql.SQL(
    "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2"
    f" AND classid = {LOCK_CLASS}"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


def state_from_row(row: dict[str, Any]) -> ImportState:
    """An `ImportState` from a row of `COLUMNS`."""
    return ImportState(**{**row, "status": ImportStatus(row["status"])})


class Claim(NamedTuple):
    """What came of claiming a pair."""

    state: ImportState
    """The row as it was before."""
    is_mine: bool
    holder: str | None
    """Who has it, if somebody else does."""
    is_fresh: bool
    """Whether nothing is known of the pair's records yet: the table holds none, none has failed, and no live event has
    deleted one."""
    refresh: bool
    """Whether a refresh was asked for, by this call or by the queue."""
    reread: bool = False
    """Whether the list is to be read whatever the revision, and every row that differs from it rewritten."""


async def current_backend(conn: AsyncConnection) -> int:
    """The server process of a session."""
    row = await (await conn.execute("SELECT pg_backend_pid()")).fetchone()
    assert row is not None
    return int(row[0])


class StateStore:
    """Statements on the state table; every method takes the connection it works on."""

    def __init__(self, table: str) -> None:
        self._name = table
        self.table = sql.Identifier(table)

    def _sql(self, text: str, **parts: sql.Composable) -> sql.Composed:
        return sql.SQL(text).format(table=self.table, columns=COLUMNS, live=LIVE_IMPORTERS, **parts)

    async def new_importer_id(self, conn: AsyncConnection) -> int:
        """A number that no importer has, known before its row: whoever is stopped meanwhile takes it back."""
        row = await (await conn.execute("SELECT nextval(pg_get_serial_sequence('parity_importers', 'id'))")).fetchone()
        assert row is not None
        return int(row[0])

    async def register_importer(self, conn: AsyncConnection, importer_id: int, run_id: str | None) -> None:
        """Make the row of a new importer and hold its lock for as long as `conn` lives; can be repeated."""
        async with conn.transaction():  # nobody sees the row before its lock is held
            await conn.execute(
                "INSERT INTO parity_importers (id, hostname, pid, run_id) OVERRIDING SYSTEM VALUE"
                " VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (importer_id, socket.gethostname(), os.getpid(), run_id),
            )
            await self.hold_importer(conn, importer_id)
        # Those that were killed; their pairs are free without this.
        await conn.execute(
            self._sql(
                "WITH dead AS (DELETE FROM parity_importers WHERE id < %(own)s AND id NOT IN ({live}))"
                " DELETE FROM parity_host_importers WHERE importer_id < %(own)s AND importer_id NOT IN ({live})"
            ),
            {"own": importer_id},
        )

    async def hold_importer(self, conn: AsyncConnection, importer_id: int) -> None:
        """Take the lock of an importer's number, again after the session was lost."""
        await conn.execute("SELECT pg_advisory_lock(%s, %s)", (LOCK_CLASS, importer_id))

    async def find_backend(self, conn: AsyncConnection, importer_id: int) -> int | None:
        """The server process of a session that holds an importer's lock; None if the session does not."""
        cursor = await conn.execute(
            "SELECT pg_backend_pid() WHERE EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted"
            f" AND classid = {LOCK_CLASS} AND objid::bigint = %s AND objsubid = 2 AND pid = pg_backend_pid())",
            (importer_id,),
        )
        row = await cursor.fetchone()
        return None if row is None else int(row[0])

    async def release_importer(self, conn: AsyncConnection, importer_id: int) -> None:
        """Give back every pair that the importer still holds, and its number."""
        await conn.execute(
            self._sql("UPDATE {table} SET importer_id = NULL WHERE importer_id = %s AND status = 'in_progress'"),
            (importer_id,),
        )
        await conn.execute(
            "WITH gone AS (DELETE FROM parity_importers WHERE id = %(own)s)"
            " DELETE FROM parity_host_importers WHERE importer_id = %(own)s",
            {"own": importer_id},
        )
        await conn.execute("SELECT pg_advisory_unlock(%s, %s)", (LOCK_CLASS, importer_id))

    # I12
    async def claim(
        self,
        conn: AsyncConnection,
        pairs: Sequence[Pair],
        importer_id: int,
        run_id: str | None,
        *,
        refresh: bool,
        reread: bool = False,
    ) -> list[Claim]:
        """Take pairs for an importer, making their rows if need be.

        A pair that is complete is not taken unless a refresh is asked for; one that a live importer holds never is, be
        it through another state table.

        Args:
            reread: whether they are all to be read from their start, whatever their revision; noted on the rows until
                a walk completes, so that one that is interrupted keeps its meaning.
        """
        async with conn.transaction(), conn.cursor(row_factory=dict_row) as cursor:
            # Claims are short and take turns, so that "is its importer alive?" and taking it are one step.
            await cursor.execute("SELECT pg_advisory_xact_lock(%s, 0)", (LOCK_CLASS,))
            # Two projects that read one list at the same time would bring back what the other has just deleted.
            held_elsewhere = [sql.SQL("NULL")] + [
                self._sql(
                    "(SELECT o.importer_id FROM {other} o WHERE o.did = s.did AND o.collection = s.collection"
                    " AND o.importer_id IN ({live}))",
                    other=other,
                )
                for other in await other_tables(conn, self._name)
            ]
            rows: list[dict[str, Any]] = []
            missing = list(pairs)
            while missing:
                rows += await self._lock(cursor, missing, held_elsewhere)
                # a reset may have taken a row away while we waited for it; then the pair gets a new one
                found = {Pair(row["did"], row["collection"]) for row in rows}
                missing = [pair for pair in missing if pair not in found]
            claims = [_claim(row, refresh or reread, reread) for row in rows]
            await cursor.execute(
                self._sql(
                    "UPDATE {table} s SET status = 'in_progress', importer_id = %(importer)s, run_id = %(run)s,"
                    " updated_at = now(),"
                    " started_at = CASE WHEN status = 'completed' THEN now() ELSE coalesce(started_at, now()) END,"
                    f" completed_at = NULL, confirmed_at = NULL, next_attempt_at = NULL, batch = NULL, {FROM_THE_START}"
                    " WHERE id = ANY(%(ids)s)"
                ),
                {
                    "importer": importer_id,
                    "run": run_id,
                    "reread": reread,
                    "ids": [claim.state.id for claim in claims if claim.is_mine],
                },
            )
        return claims

    async def _lock(
        self, cursor: AsyncCursor[dict[str, Any]], pairs: Sequence[Pair], held_elsewhere: Sequence[sql.Composable]
    ) -> list[dict[str, Any]]:
        """Lock the rows of pairs, made if need be, and look who holds them."""
        keys = ([pair.did for pair in pairs], [pair.collection for pair in pairs])
        await cursor.execute(
            self._sql(
                "INSERT INTO {table} (did, collection) SELECT * FROM unnest(%s::text[], %s::text[])"
                " ON CONFLICT DO NOTHING"
            ),
            keys,
        )
        await cursor.execute(
            self._sql(
                "SELECT {columns}, refresh AS wants_refresh, reread AS wants_reread, held_by,"
                " (SELECT 'process ' || i.pid || ' on ' || i.hostname || coalesce(', run ' || i.run_id, '')"
                "  FROM parity_importers i WHERE i.id = held_by) AS holder,"
                # not EXISTS, which may be planned as a scan of the whole table: one look into the index each
                " (SELECT true FROM atproto_records r"
                "  WHERE r.did = s.did AND r.collection = s.collection LIMIT 1) IS NULL AND (SELECT true"
                "  FROM parity_failed_records f WHERE f.did = s.did AND f.collection = s.collection LIMIT 1)"
                "  IS NULL AND (SELECT true FROM parity_tombstones t WHERE t.did = s.did"
                "  AND t.collection = s.collection LIMIT 1) IS NULL AS is_fresh"
                " FROM {table} s JOIN unnest(%s::text[], %s::text[]) AS wanted(did, collection)"
                " USING (did, collection) CROSS JOIN LATERAL (SELECT coalesce(CASE WHEN importer_id IN ({live})"
                " THEN importer_id END, {held_elsewhere}) AS held_by) h FOR UPDATE OF s",
                held_elsewhere=sql.SQL(", ").join(held_elsewhere),
            ),
            keys,
        )
        return await cursor.fetchall()


# A walk that was begun without the mark has passed over rows that looked the same, so it starts again.
FROM_THE_START = (
    "reread = s.reread OR %(reread)s, cursor = CASE WHEN %(reread)s AND NOT s.reread THEN NULL ELSE s.cursor END,"
    " pages = CASE WHEN %(reread)s AND NOT s.reread THEN 0 ELSE s.pages END"
)


def _claim(row: dict[str, Any], refresh: bool, reread: bool) -> Claim:
    holder, held_by = row.pop("holder"), row.pop("held_by")
    is_fresh, wants_refresh = row.pop("is_fresh"), row.pop("wants_refresh") or refresh
    was_rereading = row.pop("wants_reread")
    refresh = refresh or was_rereading
    if reread and not was_rereading:
        row.update(cursor=None, pages=0)
    state = state_from_row(row)
    is_done = state.status is ImportStatus.COMPLETED and not wants_refresh
    return Claim(
        state=state,
        is_mine=held_by is None and not is_done,
        holder=None if held_by is None or is_done else holder or f"importer {held_by}",
        is_fresh=is_fresh,
        refresh=wants_refresh,
        reread=reread or was_rereading,
    )
