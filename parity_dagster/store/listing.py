"""Rows for people: the state table and the failed records, read as a stream."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from psycopg import sql
from psycopg.rows import dict_row

from parity_dagster.models import ImportStatus
from parity_dagster.store.states import COLUMNS

if TYPE_CHECKING:
    import psycopg

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
        connection: not in autocommit; the cursor lives in its transaction.
        table: name of the state table (`PARITY_STATE_TABLE`).
        dids: only these accounts' rows; None for all.
        statuses: only rows of these statuses; None or empty for all.

    Yields:
        One dictionary per row, keyed by column name in the table's order.
    """
    query = sql.SQL(
        "SELECT {columns} FROM {table} WHERE (%(dids)s::text[] IS NULL OR did = ANY(%(dids)s))"
        " AND (%(statuses)s::text[] IS NULL OR status = ANY(%(statuses)s)) ORDER BY did, collection"
    ).format(columns=COLUMNS, table=sql.Identifier(table))
    wanted = [str(status) for status in statuses] if statuses else None
    accounts = list(dids) if dids is not None else None
    yield from _stream(connection, query, {"dids": accounts, "statuses": wanted})


def stream_failed_records(connection: psycopg.Connection, *, did: str | None = None) -> Iterator[dict[str, Any]]:
    """Read the records that could not be stored, in the order (did, collection, id).

    Args:
        connection: not in autocommit; the cursor lives in its transaction.

    Yields:
        One dictionary per record, keyed by column name; `body` is the record as the PDS sent it, in bytes.
    """
    query = sql.SQL(
        "SELECT id, did, collection, rkey, fingerprint, reason, detail, body, pds, walk, first_seen_at,"
        " last_seen_at, retries FROM parity_failed_records WHERE (%(did)s::text IS NULL OR did = %(did)s)"
        " ORDER BY did, collection, id"
    )
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
    """Look up who claims a handle among the accounts that were met before.

    A DID document may claim any handle, and whether the handle's domain names the account back is not known here.

    Returns:
        The DIDs whose documents claim the handle, the one met first first.
    """
    rows = connection.execute(
        "SELECT did FROM parity_identities WHERE handle = %s ORDER BY resolved_at, did LIMIT %s", (handle, limit)
    )
    return [did for (did,) in rows.fetchall()]


def _stream(
    connection: psycopg.Connection, query: sql.SQL | sql.Composed, parameters: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    with connection.cursor("parity_listing", row_factory=dict_row) as cursor:
        cursor.itersize = _ROWS_PER_FETCH
        cursor.execute(query, parameters)
        yield from cursor
