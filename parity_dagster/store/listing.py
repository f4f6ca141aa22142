"""Rows for people: the state table and the failed records, read as a stream."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from psycopg import sql
from psycopg.rows import dict_row

from parity_dagster.models import FailedRecord, ImportState, ImportStatus
from parity_dagster.store.states import COLUMNS, state_from_row

if TYPE_CHECKING:
    import psycopg

FAILED_COLUMNS = sql.SQL(", ").join(sql.Identifier(field.name) for field in fields(FailedRecord))

_ROWS_PER_FETCH = 2000


def stream_states(
    connection: psycopg.Connection,
    table: str,
    *,
    dids: Collection[str] | None = None,
    statuses: Collection[ImportStatus] | None = None,
) -> Iterator[dict[str, Any]]:
    """Read rows of the state table in the order (did, collection).

    Args:
        connection: in a transaction, or about to begin one: the cursor lives in it.
        dids: only these accounts' rows; None for all.
        statuses: only rows of these statuses; None for all.

    Yields:
        One dictionary per row, keyed by column name in the table's order.
    """
    yield from _stream(connection, *_states(table, dids, None, statuses))


def find_states(
    connection: psycopg.Connection,
    table: str,
    *,
    dids: Collection[str] | None = None,
    collection: str | None = None,
    statuses: Collection[ImportStatus] | None = None,
) -> list[ImportState]:
    """The same rows at once."""
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(*_states(table, dids, collection, statuses))
        return [state_from_row(row) for row in cursor.fetchall()]


def _states(
    table: str,
    dids: Collection[str] | None,
    collection: str | None,
    statuses: Collection[ImportStatus] | None,
) -> tuple[sql.Composed, dict[str, Any]]:
    query = sql.SQL(
        "SELECT {columns} FROM {table} WHERE (%(dids)s::text[] IS NULL OR did = ANY(%(dids)s))"
        " AND (%(collection)s::text IS NULL OR collection = %(collection)s)"
        " AND (%(statuses)s::text[] IS NULL OR status = ANY(%(statuses)s)) ORDER BY did, collection"
    ).format(columns=COLUMNS, table=sql.Identifier(table))
    return query, {
        "dids": None if dids is None else list(dids),
        "collection": collection,
        "statuses": None if statuses is None else [str(status) for status in statuses],
    }


def stream_failed_records(connection: psycopg.Connection, *, did: str | None = None) -> Iterator[dict[str, Any]]:
    """Read the records that could not be stored, in the order (did, collection, id).

    Args:
        connection: as for `stream_states`.

    Yields:
        One dictionary per record, keyed by column name; `body` is the record as the PDS sent it, in bytes.
    """
    query = sql.SQL(
        "SELECT {columns} FROM parity_failed_records WHERE (%(did)s::text IS NULL OR did = %(did)s)"
        " ORDER BY did, collection, id"
    ).format(columns=FAILED_COLUMNS)
    yield from _stream(connection, query, {"did": did})


def count_records(connection: psycopg.Connection, dids: Collection[str]) -> list[tuple[str, int, int]]:
    """Count the imported records of some accounts.

    Returns:
        Per collection, most records first: NSID, records, accounts that have any.
    """
    return connection.execute(
        "SELECT collection, count(*), count(DISTINCT did) FROM atproto_records WHERE did = ANY(%s)"
        " GROUP BY collection ORDER BY 2 DESC, 1",
        (list(dids),),
    ).fetchall()


def find_claimants(connection: psycopg.Connection, handle: str, limit: int) -> list[str]:
    """The accounts whose DID documents claim a handle, among those that were met before; the one met first first.

    A DID document may claim any handle, and whether the handle's domain names the account back is not known here.
    """
    rows = connection.execute(
        "SELECT did FROM parity_identities WHERE handle = %s ORDER BY resolved_at, did LIMIT %s", (handle, limit)
    )
    return [did for (did,) in rows.fetchall()]


def _stream(
    connection: psycopg.Connection, query: sql.Composed, parameters: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    with connection.cursor("parity_listing", row_factory=dict_row) as cursor:
        cursor.itersize = _ROWS_PER_FETCH
        cursor.execute(query, parameters)
        yield from cursor
