"""The outbox: endings that are committed and not yet delivered to listeners, or to Dagster."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from psycopg import AsyncConnection, Connection, sql
from psycopg.rows import dict_row

from parity_dagster.models import ImportState
from parity_dagster.store.state_tables import regclass
from parity_dagster.store.states import COLUMNS, LIVE_IMPORTERS, LOCK_CLASS, state_from_row


class Recipients(NamedTuple):
    """Whom endings are delivered to."""

    listeners: bool = True
    dagster: bool = True


EVERYBODY = Recipients()

RUN_LOCK = LOCK_CLASS + 1
"""First key of the advisory locks of Dagster runs at work; the second is made of the run's id."""
REPORT_LOCK = LOCK_CLASS + 2
"""First key of the advisory lock of whoever reports to Dagster; the second is the state table's number."""
ALONE_LOCK = LOCK_CLASS + 3
"""First key of the advisory locks of what two daemons may launch twice; the second is made of a run's id or a batch."""

# A run writes down itself how its pairs end. Until it is over, nobody else does.
_LIVE_RUNS = sql.SQL(
    "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2"
    f" AND classid = {RUN_LOCK}"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


class Delivered(NamedTuple):
    """An ending that recipients know of."""

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


def drop_reset(conn: Connection, table: str) -> None:
    """Drop endings of pairs that were reset since."""
    conn.execute(
        sql.SQL(
            "DELETE FROM parity_announcements a USING (SELECT did, collection, ended_at FROM parity_announcements o"
            " WHERE state_table = {own} AND NOT EXISTS"
            " (SELECT FROM {table} s WHERE s.did = o.did AND s.collection = o.collection)) gone"
            " WHERE a.state_table = {own} AND a.did = gone.did AND a.collection = gone.collection"
            # the pair may have been imported anew, and have ended, while this waits for the row
            " AND a.ended_at = gone.ended_at"
        ).format(table=sql.Identifier(table), own=regclass(table))
    )


def find_pending(conn: Connection, table: str, limit: int) -> list[Pending]:
    """Read endings that listeners have not been told by an importer that is gone."""
    parts = {"table": sql.Identifier(table), "own": regclass(table), "columns": COLUMNS, "live": LIVE_IMPORTERS}
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


# Dagster.


def hold_run(conn: Connection, run_id: str) -> None:
    """Show that a Dagster run is at work, for as long as the session lives; any number of processes may."""
    conn.execute("SELECT pg_advisory_lock_shared(%s, hashtext(%s))", (RUN_LOCK, run_id))


def take_alone(conn: Connection, what: str) -> bool:
    """Be the only one who begins a Dagster run, or imports a batch, while the session lives; False if another one is.

    Args:
        what: the id of the run, or the batch.
    """
    row = conn.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", (ALONE_LOCK, what)).fetchone()
    return row == (True,)


def find_runs_at_work(conn: Connection, run_ids: Sequence[str]) -> set[str]:
    """Those of these Dagster runs whose lock is held."""
    rows = conn.execute(
        sql.SQL(
            "SELECT run_id FROM unnest(%s::text[]) run_id WHERE (hashtext(run_id)::bigint & 4294967295) IN ({})"
        ).format(_LIVE_RUNS),
        (list(run_ids),),
    ).fetchall()
    return {row[0] for row in rows}


def lock_reporting(conn: Connection, table: sql.Composed, *, wait: bool) -> bool:
    """Be the only one who reports the pairs of a state table (a regclass) until the transaction ends.

    False if another one is.
    """
    key = sql.SQL("{}, {}::oid::bigint::bit(32)::int").format(sql.Literal(REPORT_LOCK), table)
    if wait:
        conn.execute(sql.SQL("SELECT pg_advisory_xact_lock({})").format(key))
        return True
    row = conn.execute(sql.SQL("SELECT pg_try_advisory_xact_lock({})").format(key)).fetchone()
    return row == (True,)


_UNREPORTED = sql.SQL(
    "(SELECT did, collection, ended_at FROM parity_announcements WHERE state_table = {own} AND report) a"
    " JOIN {table} s USING (did, collection) WHERE s.status IN ('completed', 'failed') AND (s.run_id IS NULL"
    " OR (hashtext(s.run_id)::bigint & 4294967295) NOT IN ({runs}))"
)


def is_run_to_tell(table: sql.Composed) -> sql.Composed:
    """A condition on rows `s` of a state table (a regclass): a run that is at work has yet to tell how they ended."""
    return sql.SQL(
        "(coalesce((hashtext(s.run_id)::bigint & 4294967295) IN ({runs}), false) AND EXISTS (SELECT FROM"
        " parity_announcements a WHERE a.state_table = {table} AND a.did = s.did AND a.collection = s.collection"
        " AND a.report))"
    ).format(table=table, runs=_LIVE_RUNS)


def find_unreported(conn: Connection, table: str, limit: int) -> list[ImportState]:
    """The rows of pairs that have ended and that Dagster is still to be told of, in the order in which they ended."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            sql.SQL("SELECT {columns} FROM {unreported} ORDER BY ended_at, did, collection LIMIT %s").format(
                columns=COLUMNS, unreported=_unreported(table)
            ),
            (limit,),
        )
        return [state_from_row(row) for row in cursor.fetchall()]


def count_unreported(conn: Connection, table: str) -> int:
    """How many `find_unreported` would find without a limit."""
    row = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(_unreported(table))).fetchone()
    assert row is not None
    return int(row[0])


def have_all_reported(conn: Connection, table: str, dids: Sequence[str] | None = None) -> None:
    """Put every pair that has ended (of all accounts, or of some) into the outbox for Dagster, whatever it was told."""
    conn.execute(
        sql.SQL(
            "INSERT INTO parity_announcements AS a (state_table, did, collection, importer_id, fetched, ended_at,"
            " deliver, report) SELECT {own}, did, collection, 0, true, updated_at, false, true FROM {table}"
            " WHERE status IN ('completed', 'failed') AND {which} ON CONFLICT (state_table, did, collection)"
            " DO UPDATE SET report = true WHERE NOT a.report"
        ).format(
            own=regclass(table),
            table=sql.Identifier(table),
            which=sql.SQL("true") if dids is None else sql.SQL("did = ANY({})").format(list(dids)),
        )
    )


def name_accounts(conn: Connection, table: str, dids: Sequence[str]) -> None:
    """Note accounts that Dagster is to show, however many it shows already."""
    conn.execute(
        sql.SQL(
            "INSERT INTO parity_named_accounts SELECT {}, did FROM unnest(%s::text[]) did ON CONFLICT DO NOTHING"
        ).format(regclass(table)),
        (list(dids),),
    )


def count_named_accounts(conn: Connection, table: str) -> int:
    """How many accounts wait to be taken."""
    row = conn.execute(
        sql.SQL("SELECT count(*) FROM parity_named_accounts WHERE state_table = {}").format(regclass(table))
    ).fetchone()
    assert row is not None
    return int(row[0])


def take_named_accounts(conn: Connection, table: str, limit: int) -> list[str]:
    """Take accounts from those that were named, in the transaction that has them shown."""
    rows = conn.execute(
        sql.SQL(
            "DELETE FROM parity_named_accounts WHERE state_table = {own} AND did IN (SELECT did FROM"
            " parity_named_accounts WHERE state_table = {own} ORDER BY did LIMIT %s) RETURNING did"
        ).format(own=regclass(table)),
        (limit,),
    )
    return [did for (did,) in rows]


def _unreported(table: str) -> sql.Composed:
    return _UNREPORTED.format(own=regclass(table), table=sql.Identifier(table), runs=_LIVE_RUNS)
