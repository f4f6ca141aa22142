"""The outbox: endings that are committed and not yet delivered to listeners, or to Dagster."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from psycopg import AsyncConnection, Connection, sql
from psycopg.rows import dict_row

from parity_dagster.models import ImportState
from parity_dagster.store.state_tables import regclass
from parity_dagster.store.states import COLUMNS, LIVE_IMPORTERS, state_from_row


class Recipients(NamedTuple):
    """Whom endings are delivered to."""

    listeners: bool = True
    dagster: bool = True


EVERYBODY = Recipients()


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
    conn: AsyncConnection,
    table: str,
    importer_id: int,
    endings: Sequence[tuple[str, str, bool]],
    recipients: Recipients,
) -> None:
    """Put the endings of pairs into the outbox, in the transaction that makes them true."""
    if not any(recipients):
        return
    await conn.execute(
        sql.SQL(
            "INSERT INTO parity_announcements AS a (state_table, did, collection, importer_id, fetched, deliver,"
            " report) SELECT {}, did, collection, %s, fetched, %s, %s FROM unnest(%s::text[], %s::text[], %s::bool[])"
            " AS ended(did, collection, fetched) ON CONFLICT (state_table, did, collection) DO UPDATE"
            " SET importer_id = EXCLUDED.importer_id, fetched = EXCLUDED.fetched, ended_at = EXCLUDED.ended_at,"
            # whoever has not had the ending before gets this one instead
            " deliver = a.deliver OR EXCLUDED.deliver, report = a.report OR EXCLUDED.report"
        ).format(regclass(table)),
        (importer_id, *recipients, *(list(column) for column in zip(*endings, strict=True))),
    )


# I15
def drop_delivered(conn: Connection, table: str, delivered: Collection[Delivered], recipients: Recipients) -> None:
    """Note what was delivered to whom, and drop what everybody has; a later ending of a pair stays.

    One statement that looks at each row as it is once it is locked, so that two deliveries at the same moment leave
    nothing behind.
    """
    conn.execute(
        sql.SQL(
            "MERGE INTO parity_announcements a USING unnest(%(did)s::text[], %(collection)s::text[],"
            " %(ended_at)s::timestamptz[]) AS t(did, collection, ended_at)"
            " ON a.state_table = {} AND a.did = t.did AND a.collection = t.collection"
            " WHEN MATCHED AND a.ended_at <= t.ended_at AND (NOT a.deliver OR %(listeners)s)"
            " AND (NOT a.report OR %(dagster)s) THEN DELETE"
            " WHEN MATCHED AND a.ended_at <= t.ended_at THEN UPDATE"
            " SET deliver = a.deliver AND NOT %(listeners)s, report = a.report AND NOT %(dagster)s"
        ).format(regclass(table)),
        {
            **dict(zip(Delivered._fields, ([*column] for column in zip(*delivered, strict=True)), strict=True)),
            **recipients._asdict(),
        },
    )


def find_pending(conn: Connection, table: str, limit: int) -> list[Pending]:
    """Read endings whose importer is gone, and drop those of pairs that were reset."""
    parts = {"table": sql.Identifier(table), "own": regclass(table), "columns": COLUMNS, "live": LIVE_IMPORTERS}
    conn.execute(
        sql.SQL(
            "DELETE FROM parity_announcements a WHERE a.state_table = {own} AND a.deliver"
            " AND a.importer_id NOT IN ({live})"
            " AND NOT EXISTS (SELECT FROM {table} s WHERE s.did = a.did AND s.collection = a.collection)"
        ).format(**parts)
    )
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            sql.SQL(
                "SELECT {columns}, fetched FROM (SELECT did, collection, importer_id AS importer, fetched, ended_at"
                " FROM parity_announcements WHERE state_table = {own} AND deliver) a"
                " JOIN {table} s USING (did, collection) WHERE s.status IN ('completed', 'failed')"
                " AND importer NOT IN ({live}) ORDER BY ended_at, id LIMIT %s"
            ).format(**parts),
            (limit,),
        )
        return [Pending(fetched=row.pop("fetched"), state=state_from_row(row)) for row in cursor.fetchall()]
