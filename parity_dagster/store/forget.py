"""Removing an account altogether: its records, what is known of them, and its imports in every project."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from zlib import crc32

import psycopg
from psycopg import sql

from parity_dagster.errors import DatabaseError, PairBusy
from parity_dagster.store.live import LOCK_BUCKETS, LOCK_CLASS
from parity_dagster.store.outbox import is_run_to_tell, lock_reporting
from parity_dagster.store.overview import CHANGED
from parity_dagster.store.states import LIVE_IMPORTERS

OF_PAIRS = ("atproto_records", "parity_failed_records", "parity_tombstones", "parity_announcements")
"""Tables that have rows of a pair. State tables and pages of walks are besides."""
OF_ACCOUNTS = ("parity_named_accounts", "parity_identities")
"""Tables that have a row, or rows, of an account."""


class Forgotten(NamedTuple):
    """What was removed of an account."""

    did: str
    imports: int
    records: int
    failed_records: int
    collections: list[str]
    """Of which anything was known."""


def count_account(connection: psycopg.Connection, did: str) -> Forgotten:
    """What `forget_account` would remove."""
    tables = writable_tables(connection)
    rows = [sql.SQL("SELECT collection, 1 AS imports FROM {} WHERE did = %(did)s").format(table) for table in tables]
    imports = connection.execute(
        sql.SQL("SELECT collection, sum(imports)::bigint FROM ({}) s GROUP BY 1").format(
            sql.SQL(" UNION ALL ").join(rows)
        ),
        {"did": did},
    ).fetchall()
    records = connection.execute(
        "SELECT collection, count(*) FROM atproto_records WHERE did = %s GROUP BY 1", (did,)
    ).fetchall()
    failed = connection.execute(
        "SELECT collection, count(*) FROM parity_failed_records WHERE did = %s GROUP BY 1", (did,)
    ).fetchall()
    others = connection.execute(
        "SELECT collection, 0 FROM parity_tombstones WHERE did = %(did)s"
        " UNION SELECT collection, 0 FROM parity_announcements WHERE did = %(did)s",
        {"did": did},
    ).fetchall()
    known = {collection for collection, _ in (*imports, *records, *failed, *others)}
    sums = (sum(count for _, count in counts) for counts in (imports, records, failed))
    return Forgotten(did, next(sums), next(sums), next(sums), sorted(known))


def forget_account(connection: psycopg.Connection, did: str) -> Forgotten:
    """Remove an account in one transaction.

    Rows of mappers' tables go with their records if a foreign key says so.

    Raises:
        PairBusy: somebody imports it at this moment; nothing is removed.
        DatabaseError: this role may not write another project's state table, or a foreign key of a mapper's table
            keeps the records; nothing is removed.
    """
    with connection.transaction():
        tables = writable_tables(connection)
        for table in tables:
            # first of all locks, as whoever reports does: he would show again what he has read already
            lock_reporting(connection, _marked(table), wait=True)
        ids: list[tuple[sql.Composed, list[int]]] = []
        for table in tables:
            # in the order in which all lock rows; whoever claims one of them waits, and begins anew
            rows = connection.execute(
                sql.SQL(
                    "SELECT id, coalesce(importer_id IN ({live}), false) OR {is_to_tell}, collection FROM {table} s"
                    " WHERE did = %s ORDER BY id FOR UPDATE"
                ).format(live=LIVE_IMPORTERS, is_to_tell=is_run_to_tell(_marked(table)), table=table),
                (did,),
            ).fetchall()
            if busy := [collection for _, is_busy, collection in rows if is_busy]:
                raise PairBusy(
                    f"{did} is being imported at this moment ({', '.join(busy)}); cancel that first, or wait"
                )
            ids.append((table, [state_id for state_id, _, _ in rows]))
        found = count_account(connection, did)
        _keep_events_away(connection, did, found.collections)
        for table, state_ids in ids:
            # Of a pair that somebody began to import since, pages may be committed: neither they nor its row are taken.
            begun = connection.execute(
                sql.SQL("SELECT collection FROM {} WHERE did = %s AND id <> ALL(%s)").format(table), (did, state_ids)
            ).fetchall()
            if begun:
                raise PairBusy(
                    f"the import of {did} began at this moment ({', '.join(nsid for (nsid,) in begun)}); cancel that"
                    " first, or wait"
                )
        for table, state_ids in ids:
            connection.execute(
                sql.SQL("DELETE FROM parity_walk_pages WHERE state_table = {} AND state_id = ANY(%s)").format(
                    _marked(table)
                ),
                (state_ids,),
            )
            connection.execute(sql.SQL("DELETE FROM {} WHERE id = ANY(%s)").format(table), (state_ids,))
        for name in OF_PAIRS:
            statement = sql.SQL("DELETE FROM {} WHERE did = %s AND collection = ANY(%s)").format(sql.Identifier(name))
            try:
                connection.execute(statement, (did, found.collections))
            except psycopg.errors.ForeignKeyViolation as exc:
                raise DatabaseError(
                    f"rows of the table {exc.diag.schema_name}.{exc.diag.table_name} belong to records of {did}, which"
                    f" its foreign key {exc.diag.constraint_name} keeps; remove them first, or let it say ON DELETE"
                    " CASCADE"
                ) from exc
        for name in OF_ACCOUNTS:
            connection.execute(sql.SQL("DELETE FROM {} WHERE did = %s").format(sql.Identifier(name)), (did,))
        connection.execute(CHANGED)
    return found


def writable_tables(connection: psycopg.Connection) -> list[sql.Composed]:
    """The state tables of all projects, in the order in which rows are locked.

    Raises:
        DatabaseError: this role may not write one of them.
    """
    rows = connection.execute(
        # of several in one call, any would do
        "SELECT nspname, relname, has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'UPDATE')"
        " AND has_table_privilege(c.oid, 'DELETE') FROM parity_state_tables p"
        " JOIN pg_class c ON c.oid = p.state_table JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY p.state_table"
    ).fetchall()
    for schema, name, may_write in rows:
        if not may_write:
            raise DatabaseError(
                f"this role may not write the state table {schema}.{name}, whose project has a part in the records; let"
                " a role forget the account that may"
            )
    return [sql.SQL("{}").format(sql.Identifier(schema, name)) for schema, name, _ in rows]


def _marked(table: sql.Composed) -> sql.Composed:
    """A state table as the value that marks its rows elsewhere."""
    return sql.SQL("{}::regclass").format(sql.Literal(table.as_string()))


# I7
def _keep_events_away(connection: psycopg.Connection, did: str, collections: Iterable[str]) -> None:
    """Live events of the account wait until the transaction ends, and are then the first that is known of it."""
    buckets = sorted({crc32(f"{did}/{collection}".encode()) % LOCK_BUCKETS for collection in collections})
    connection.execute("SELECT pg_advisory_xact_lock(%s, bucket) FROM unnest(%s::int[]) bucket", (LOCK_CLASS, buckets))
