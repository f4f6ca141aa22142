"""The queue of pairs that wait for a Dagster run, kept in the state table.

A batch is a mark on rows (`batch`), written when a run is about to be asked for. The run reads its pairs by this
mark, and claiming a pair removes it. So a pair is never launched twice while its run waits, and what a run left
behind, for whatever reason, can be found and launched again. What a run left behind that somebody has canceled is held:
it has a mark that belongs to no run to come, until a person asks for the pair again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import LiteralString, NamedTuple
from uuid import uuid4

import psycopg
from psycopg import sql

from parity_dagster.models import Pair
from parity_dagster.store.states import FROM_THE_START, LIVE_IMPORTERS, LOCK_CLASS

LOCK = 2**31 - 1
"""Second key of the advisory lock under which batches are made; importers' numbers never get there."""

HELD: LiteralString = "held:"
"""What the mark of a held pair begins with; the id of the canceled run follows."""
IS_HELD: LiteralString = f"coalesce(starts_with(batch, '{HELD}'), false)"

_OLD = "s.error_code = 'interrupted'"
_NEW = "s.error_code IS DISTINCT FROM 'interrupted'"

# What is due, most urgent first. Each part uses an index of its own, so that it costs the same whatever waits or is
# done. A queued row is locked so that a claim and the mark cannot cross.
_DUE = (
    # interrupted: whoever imported it is gone
    f"{_NEW} AND s.status = 'in_progress' AND (s.next_attempt_at IS NULL OR s.next_attempt_at <= now())"
    " AND (s.importer_id IS NULL OR s.importer_id NOT IN ({live})) ORDER BY s.id",
    # failed in a way that may pass, and the pause is over
    f"{_NEW} AND s.status = 'failed' AND s.next_attempt_at <= now() ORDER BY s.next_attempt_at",
    # queued, oldest first; what is only to be read again waits for what was never read
    "s.status = 'pending' AND NOT s.refresh AND (s.next_attempt_at IS NULL OR s.next_attempt_at <= now())"
    " ORDER BY s.id",
    "s.status = 'pending' AND s.refresh AND (s.next_attempt_at IS NULL OR s.next_attempt_at <= now()) ORDER BY s.id",
    # last, what has had a run's time already and is not done
    f"{_OLD} AND s.status = 'failed' AND s.next_attempt_at <= now() ORDER BY s.next_attempt_at",
    f"{_OLD} AND s.status = 'in_progress' AND (s.next_attempt_at IS NULL OR s.next_attempt_at <= now())"
    " AND (s.importer_id IS NULL OR s.importer_id NOT IN ({live})) ORDER BY s.id",
)


class DuePair(NamedTuple):
    """A pair to import, and where it was last known to live."""

    id: int
    did: str
    collection: str
    host: str | None
    run_id: str | None = None
    """The run that worked on it and did not complete it."""


def make_batches(
    connection: psycopg.Connection,
    table: str,
    collections: Collection[str],
    *,
    size: int,
    count: int,
    find_canceled: Callable[[Collection[str]], Collection[str]] = lambda run_ids: (),
) -> dict[str, int]:
    """Mark what is due as batches, each to be imported by one run.

    Every batch holds pairs of as many hosts as there are, and an account's pairs stay together.

    Args:
        collections: registered NSIDs; pairs of others wait until theirs is registered again.
        count: batches to make, at most.
        find_canceled: tells which of some runs were canceled; what they left is held.
    """
    batches: dict[str, int] = {}
    if count < 1:
        return batches
    with connection.transaction():
        # one tick at a time, also if one that ran out of time still goes on
        connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCK_CLASS, LOCK))
        due = _find_due(connection, table, collections, size * count)
        canceled = set(find_canceled({pair.run_id for pair in due if pair.run_id is not None}))
        for run_id in canceled:
            _mark(connection, table, HELD + run_id, [pair for pair in due if pair.run_id == run_id])
        due = [pair for pair in due if pair.run_id not in canceled]
        for chunk in _chunks(spread(due), size):
            name = uuid4().hex
            _mark(connection, table, name, chunk)
            batches[name] = len(chunk)
    return batches


def _mark(connection: psycopg.Connection, table: str, name: str, pairs: Iterable[DuePair]) -> None:
    connection.execute(
        sql.SQL("UPDATE {table} SET batch = %s WHERE id = ANY(%s)").format(table=sql.Identifier(table)),
        (name, [pair.id for pair in pairs]),
    )


def _find_due(connection: psycopg.Connection, table: str, collections: Collection[str], limit: int) -> list[DuePair]:
    due: list[DuePair] = []
    for part in _DUE:
        if len(due) < limit:
            rows = connection.execute(
                sql.SQL(
                    "SELECT s.id, s.did, s.collection, coalesce(s.pds, i.pds),"
                    " CASE WHEN s.status <> 'pending' THEN s.run_id END FROM {table} s"
                    " LEFT JOIN parity_identities i ON i.did = s.did"
                    f" WHERE s.batch IS NULL AND s.collection = ANY(%s) AND {part} LIMIT %s"
                    " FOR UPDATE OF s SKIP LOCKED"
                ).format(table=sql.Identifier(table), live=LIVE_IMPORTERS),
                (list(collections), limit - len(due)),
            ).fetchall()
            due += [DuePair(*row) for row in rows]
    return due


def open_batches(connection: psycopg.Connection, table: str) -> list[str]:
    """Batches with pairs that no run has taken up yet."""
    rows = connection.execute(
        sql.SQL(f"SELECT DISTINCT batch FROM {{table}} WHERE batch IS NOT NULL AND NOT {IS_HELD} ORDER BY 1").format(
            table=sql.Identifier(table)
        )
    ).fetchall()
    return [row[0] for row in rows]


def pairs_of_batch(connection: psycopg.Connection, table: str, batch: str) -> list[Pair]:
    """What a run is to import; pairs that somebody has begun meanwhile are not among it."""
    rows = connection.execute(
        sql.SQL(
            "SELECT s.id, s.did, s.collection, coalesce(s.pds, i.pds) FROM {table} s"
            " LEFT JOIN parity_identities i ON i.did = s.did WHERE s.batch = %s AND s.status <> 'completed'"
            f" AND (s.importer_id IS NULL OR s.importer_id NOT IN ({{live}})) ORDER BY {_NEW} DESC, s.id"
        ).format(table=sql.Identifier(table), live=LIVE_IMPORTERS),
        (batch,),
    ).fetchall()
    return [Pair(pair.did, pair.collection) for account in spread(DuePair(*row) for row in rows) for pair in account]


def dissolve_batch(connection: psycopg.Connection, table: str, batch: str, *, least: float, most: float) -> int:
    """Give back the pairs that a batch's run ended without taking up.

    They are due again after as long as they have waited already, within these bounds in seconds, so that a run that
    dies each time is started less and less often.
    """
    return connection.execute(
        sql.SQL(
            "UPDATE {table} SET batch = NULL, next_attempt_at = now() + make_interval(secs =>"
            " least(greatest(extract(epoch FROM now() - updated_at), %s), %s)) WHERE batch = %s"
        ).format(table=sql.Identifier(table)),
        (least, most, batch),
    ).rowcount


def hold_batch(connection: psycopg.Connection, table: str, batch: str, run_id: str) -> None:
    """Hold the pairs that a canceled run did not take up."""
    connection.execute(
        sql.SQL("UPDATE {table} SET batch = %s WHERE batch = %s").format(table=sql.Identifier(table)),
        (HELD + run_id, batch),
    )


AGAIN: LiteralString = (
    "status = 'pending', refresh = %(refresh)s, attempts = 0, next_attempt_at = NULL, run_id = NULL,"
    f" importer_id = NULL, updated_at = now(), {FROM_THE_START},"
    f" batch = CASE WHEN starts_with(s.batch, '{HELD}') THEN NULL ELSE s.batch END"
)
IS_WANTED_AGAIN: LiteralString = (
    f"starts_with(s.batch, '{HELD}') OR"
    " s.status = 'failed' OR (s.status = 'completed' AND %(refresh)s) OR (%(reread)s AND NOT s.reread"
    " AND s.status <> 'completed' AND (s.importer_id IS NULL OR s.importer_id NOT IN ({live})))"
)
"""Which rows `enqueue` makes pending again, and what of them it sets."""


def enqueue(
    connection: psycopg.Connection,
    table: str,
    pairs: Iterable[Pair],
    *,
    refresh: bool = False,
    reread: bool = False,
    only_new: bool = False,
) -> list[Pair]:
    """Make pairs pending, unless they are complete (and no refresh is asked for) or being worked on.

    Args:
        reread: whether they are all to be read from their start, whatever their revision; noted on the rows, those
            included that wait already, or that were interrupted.
        only_new: only those that were never asked for before; all others stay as they are.

    Returns:
        The pairs that are newly pending, or that are now to be read from their start.
    """
    wanted = list(dict.fromkeys(pairs))
    known: LiteralString = "NOTHING" if only_new else f"UPDATE SET {AGAIN} WHERE {IS_WANTED_AGAIN}"
    rows = connection.execute(
        sql.SQL(
            "INSERT INTO {table} AS s (did, collection, refresh, reread)"
            " SELECT did, collection, %(refresh)s, %(reread)s"
            " FROM unnest(%(dids)s::text[], %(collections)s::text[]) AS wanted(did, collection) ORDER BY 1, 2"
            f" ON CONFLICT (did, collection) DO {known} RETURNING did, collection"
        ).format(table=sql.Identifier(table), live=LIVE_IMPORTERS),
        {
            "dids": [pair.did for pair in wanted],
            "collections": [pair.collection for pair in wanted],
            "refresh": refresh or reread,
            "reread": reread,
        },
    ).fetchall()
    return [Pair(*row) for row in rows]


def wait_more_than(connection: psycopg.Connection, table: str, collections: Collection[str], most: int) -> bool:
    """Whether more pairs of some collections than that wait for a run; costs no more the more there are."""
    row = connection.execute(
        sql.SQL(
            f"SELECT count(*) FROM (SELECT FROM {{table}} WHERE status = 'pending' AND NOT {IS_HELD}"
            " AND collection = ANY(%s) LIMIT %s) some_of_them"
        ).format(table=sql.Identifier(table)),
        (list(collections), most + 1),
    ).fetchone()
    return row is not None and row[0] > most


def find_resumable(connection: psycopg.Connection, table: str) -> list[Pair]:
    """Pairs that are not complete and that no live importer holds."""
    rows = connection.execute(
        sql.SQL(
            "SELECT did, collection FROM {table} WHERE status <> 'completed'"
            " AND (importer_id IS NULL OR importer_id NOT IN ({live})) ORDER BY updated_at, id"
        ).format(table=sql.Identifier(table), live=LIVE_IMPORTERS)
    ).fetchall()
    return [Pair(*row) for row in rows]


def find_left_over(connection: psycopg.Connection, table: str, run_ids: Sequence[str]) -> list[Pair]:
    """Pairs that one of these Dagster runs worked on last, or was to work on when it was canceled.

    Without those that are complete or that a live importer holds.
    """
    rows = connection.execute(
        sql.SQL(
            "SELECT did, collection FROM {table} WHERE status <> 'completed' AND (run_id = ANY(%s) OR batch = ANY(%s))"
            " AND (importer_id IS NULL OR importer_id NOT IN ({live})) ORDER BY id"
        ).format(table=sql.Identifier(table), live=LIVE_IMPORTERS),
        (list(run_ids), [HELD + run_id for run_id in run_ids]),
    ).fetchall()
    return [Pair(*row) for row in rows]


def spread(pairs: Iterable[DuePair]) -> list[list[DuePair]]:
    """Order pairs so that hosts take turns, each host's in the order given.

    Returns:
        The pairs of each account; accounts whose host is not known yet keep their place.
    """
    accounts: defaultdict[str, list[DuePair]] = defaultdict(list)
    for pair in pairs:
        accounts[pair.did].append(pair)
    seen: defaultdict[str, int] = defaultdict(int)
    turns: list[tuple[int, list[DuePair]]] = []
    for account in accounts.values():
        host = account[0].host
        turns.append((len(turns) if host is None else seen[host], account))
        if host is not None:
            seen[host] += 1
    return [account for _, account in sorted(turns, key=lambda turn: turn[0])]


def _chunks(accounts: Sequence[Sequence[DuePair]], size: int) -> list[list[DuePair]]:
    chunks: list[list[DuePair]] = []
    for account in accounts:
        if not chunks or len(chunks[-1]) + len(account) > size:
            chunks.append([])
        chunks[-1] += account
    return chunks
