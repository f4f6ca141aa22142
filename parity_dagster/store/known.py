"""The accounts that are known, and which of the registered collections they have no row for.

An account is known if the state table has any row of it. The table's own index is in the order of accounts, so each
question here is one pass over that index at most, whatever it holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from parity_dagster.models import Pair
from parity_dagster.store.queue import AGAIN, IS_WANTED_AGAIN
from parity_dagster.store.states import LIVE_IMPORTERS

ACCOUNTS_PER_STATEMENT = 2000


class MissingCollection(NamedTuple):
    """A collection that some accounts have no row for."""

    collection: str
    accounts: int
    example: str = ""
    """The DID of one of them."""


def missing_sentence(missing: Iterable[MissingCollection]) -> str:
    """`3 accounts have no row for app.x.y, 2 for app.x.z`."""
    first, *others = missing
    accounts = "1 account has" if first.accounts == 1 else f"{first.accounts:,} accounts have"
    more = "".join(f", {other.accounts:,} for {other.collection}" for other in others)
    return f"{accounts} no row for {first.collection}{more}"


def find_missing(conn: psycopg.Connection[Any], table: str, collections: Sequence[str]) -> list[MissingCollection]:
    """Which of the collections how many known accounts have no row for, in their order; nothing if all have all."""
    rows = conn.execute(
        sql.SQL(
            "SELECT wanted.collection, count(*), min(known.did) FROM"
            " (SELECT did, array_agg(collection) AS held FROM {} GROUP BY did) known"
            " CROSS JOIN unnest(%s::text[]) WITH ORDINALITY AS wanted(collection, place)"
            " WHERE wanted.collection <> ALL(known.held) GROUP BY wanted.collection, place ORDER BY place"
        ).format(sql.Identifier(table)),
        (list(collections),),
    )
    return [MissingCollection(*row) for row in rows]


def pairs_after(
    conn: psycopg.Connection[Any], table: str, after: str, collections: Sequence[str], *, only_missing: bool
) -> list[Pair]:
    """Pairs of some known accounts, in the order of the DIDs.

    Args:
        after: only of greater DIDs.
        only_missing: only those that have no row yet.

    Returns:
        None of them only if there is no more.
    """
    rows = conn.execute(
        sql.SQL(
            "SELECT known.did, wanted.collection FROM (SELECT did, array_agg(collection) AS held FROM {}"
            " WHERE did > %(after)s GROUP BY did"
            " HAVING NOT (%(only_missing)s AND array_agg(collection) @> %(collections)s::text[])"
            " ORDER BY did LIMIT %(limit)s) known"
            " CROSS JOIN unnest(%(collections)s::text[]) WITH ORDINALITY AS wanted(collection, place)"
            " WHERE NOT (%(only_missing)s AND wanted.collection = ANY(known.held)) ORDER BY known.did, place"
        ).format(sql.Identifier(table)),
        {
            "after": after,
            "collections": list(collections),
            "only_missing": only_missing,
            "limit": ACCOUNTS_PER_STATEMENT,
        },
    )
    return [Pair(*row) for row in rows]


def enqueue_known(
    conn: psycopg.Connection[Any],
    table: str,
    collections: Sequence[str],
    *,
    refresh: bool = False,
    reread: bool = False,
) -> int:
    """Make pending what known accounts have no row for.

    Args:
        refresh: and what they have a row for, as `enqueue` with a refresh does.
        reread: as `enqueue`.

    Returns:
        How many pairs are newly pending, or are now to be read from their start.
    """
    values = {"collections": list(collections), "refresh": refresh or reread, "reread": reread}
    parts = {"table": sql.Identifier(table), "live": LIVE_IMPORTERS}
    with conn.transaction():
        again = 0
        if refresh or reread:
            # Not by a conflict of the INSERT, which would lock the rows that are being imported as well.
            again = conn.execute(
                sql.SQL(
                    f"UPDATE {{table}} s SET {AGAIN} WHERE s.collection = ANY(%(collections)s) AND ({IS_WANTED_AGAIN})"
                ).format(**parts),
                values,
            ).rowcount
        new = conn.execute(
            sql.SQL(
                "INSERT INTO {table} (did, collection, refresh, reread) SELECT known.did, wanted.collection,"
                " %(refresh)s, %(reread)s FROM (SELECT did, array_agg(collection) AS held FROM {table} GROUP BY did)"
                " known CROSS JOIN unnest(%(collections)s::text[]) AS wanted(collection)"
                " WHERE wanted.collection <> ALL(known.held) ORDER BY 1, 2 ON CONFLICT DO NOTHING"
            ).format(**parts),
            values,
        ).rowcount
    return again + new
