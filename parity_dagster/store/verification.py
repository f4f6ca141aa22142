"""What a verification asks of the table: a pair's rows in the order of a repository, and what excuses a difference."""

from __future__ import annotations

from collections.abc import Collection, Generator
from typing import Any, Literal, NamedTuple

import psycopg
from psycopg import sql

from parity_dagster.models import Pair

ACCOUNTS_PER_STATEMENT = 500


class Excuse(NamedTuple):
    """Why a record of a repository need not be in the table."""

    kind: Literal["failed", "newer"]
    """`failed`, it could not be stored and is kept; `newer`, a live event has deleted it since."""
    cids: set[str]
    """What a failed record calls a cid: its own, and those of what it refers to."""


class StoredRecord(NamedTuple):
    """A row of `atproto_records`."""

    rkey: str
    cid: str | None
    value: bytes
    """JSON as PostgreSQL spells it."""
    rev: str | None


def stream_stored(conn: psycopg.Connection[Any], pair: Pair, *, hidden: bool) -> Generator[StoredRecord]:
    """Read a pair's rows, least record key first; a COPY, which takes the memory of one row however large they are.

    Args:
        hidden: also those that no view shows, because the account was not active.
    """
    statement = sql.SQL(
        "COPY (SELECT rkey, cid, convert_to(value::text, 'UTF8'), rev FROM atproto_records"
        ' WHERE did = {} AND collection = {} AND (active OR {}) ORDER BY rkey COLLATE "C") TO STDOUT (FORMAT binary)'
    ).format(*map(sql.Literal, (*pair, hidden)))
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(["text", "text", "bytea", "text"])
        for row in copy.rows():
            yield StoredRecord(*row)


def find_excuses(conn: psycopg.Connection[Any], pair: Pair, rev: str) -> dict[str, Excuse]:
    """Which records of a repository need not be in the table, and why.

    Args:
        rev: the repository's revision.

    Returns:
        By rkey.
    """
    rows = conn.execute(
        "SELECT rkey, NULL FROM parity_tombstones WHERE did = %(did)s AND collection = %(collection)s"
        " AND rev > %(rev)s UNION ALL SELECT rkey, ARRAY(SELECT cid[1] FROM"
        r""" regexp_matches(encode(body, 'escape'), '"cid"\s*:\s*"([0-9A-Za-z]+)"', 'g') cid)"""
        " FROM parity_failed_records WHERE did = %(did)s AND collection = %(collection)s AND rkey IS NOT NULL",
        {**pair._asdict(), "rev": rev},
    )
    excuses: dict[str, Excuse] = {}
    for rkey, cids in rows:
        known = excuses.get(rkey)
        if cids is None:
            excuses[rkey] = Excuse("newer", set())
        elif known is None or known.kind == "newer":
            excuses[rkey] = Excuse("failed", set(cids))
        else:  # several versions of it have failed
            known.cids.update(cids)
    return excuses


def completed_accounts(
    conn: psycopg.Connection[Any], table: str, after: str, collections: Collection[str] | None = None
) -> list[str]:
    """Some accounts that have complete pairs, in the order of the DIDs.

    Args:
        after: only greater DIDs.
        collections: only complete pairs of these count; None for all.

    Returns:
        None of them only if there is no more.
    """
    rows = conn.execute(
        sql.SQL(
            "SELECT DISTINCT did FROM {} WHERE did > %(after)s AND status = 'completed'"
            " AND (%(only)s::text[] IS NULL OR collection = ANY(%(only)s)) ORDER BY did LIMIT %(limit)s"
        ).format(sql.Identifier(table)),
        {
            "after": after,
            "only": None if collections is None else list(collections),
            "limit": ACCOUNTS_PER_STATEMENT,
        },
    )
    return [did for (did,) in rows]
