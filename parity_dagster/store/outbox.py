"""The outbox: endings that are committed and not yet delivered to the listeners."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from psycopg import AsyncConnection, Connection, sql
from psycopg.rows import dict_row

from parity_dagster.models import ImportState
from parity_dagster.store.state_tables import regclass
from parity_dagster.store.states import COLUMNS, LIVE_IMPORTERS, state_from_row


class Delivered(NamedTuple):
    """An ending that listeners know of."""

    did: str
    collection: str
    ended_at: datetime
    """`updated_at` of the state row they were shown."""


class Pending(NamedTuple):
    """An ending that its importer did not live to deliver."""

    state: ImportState
    fetched: bool


# I15
async def add_endings(
    conn: AsyncConnection, table: str, importer_id: int, endings: Sequence[tuple[str, str, bool]]
) -> None:
    """Put the endings of pairs into the outbox, in the transaction that makes them true."""
    await conn.execute(
        sql.SQL(
            "INSERT INTO parity_announcements (state_table, did, collection, importer_id, fetched)"
            " SELECT {}, did, collection, %s, fetched FROM unnest(%s::text[], %s::text[], %s::bool[])"
            " AS ended(did, collection, fetched) ON CONFLICT (state_table, did, collection) DO UPDATE"
            " SET importer_id = EXCLUDED.importer_id, fetched = EXCLUDED.fetched, ended_at = EXCLUDED.ended_at"
        ).format(regclass(table)),
        (importer_id, *(list(column) for column in zip(*endings, strict=True))),
    )


def drop_delivered(conn: Connection, table: str, delivered: Collection[Delivered]) -> None:
    """Drop what listeners know of; a later ending of the same pair stays."""
    conn.execute(
        sql.SQL(
            "DELETE FROM parity_announcements a USING unnest(%s::text[], %s::text[], %s::timestamptz[])"
            " AS d(did, collection, ended_at) WHERE a.state_table = {} AND a.did = d.did"
            " AND a.collection = d.collection AND a.ended_at <= d.ended_at"
        ).format(regclass(table)),
        [list(column) for column in zip(*delivered, strict=True)],
    )


def find_pending(conn: Connection, table: str, limit: int) -> list[Pending]:
    """Read endings whose importer is gone, and drop those of pairs that were reset."""
    parts = {"table": sql.Identifier(table), "own": regclass(table), "columns": COLUMNS, "live": LIVE_IMPORTERS}
    conn.execute(
        sql.SQL(
            "DELETE FROM parity_announcements a WHERE a.state_table = {own} AND a.importer_id NOT IN ({live})"
            " AND NOT EXISTS (SELECT FROM {table} s WHERE s.did = a.did AND s.collection = a.collection)"
        ).format(**parts)
    )
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            sql.SQL(
                "SELECT {columns}, fetched FROM (SELECT did, collection, importer_id AS importer, fetched, ended_at"
                " FROM parity_announcements WHERE state_table = {own}) a JOIN {table} s USING (did, collection)"
                " WHERE s.status IN ('completed', 'failed') AND importer NOT IN ({live}) ORDER BY ended_at, id LIMIT %s"
            ).format(**parts),
            (limit,),
        )
        return [Pending(fetched=row.pop("fetched"), state=state_from_row(row)) for row in cursor.fetchall()]
