"""What a walk has seen so far: one small row per committed page, until the walk completes.

What lives here: writing and asking these rows. What must not: counting and sweeping by them, which is part of an
ending (`pages`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from psycopg import AsyncConnection

from parity_dagster.store.copy_text import encode_array
from parity_dagster.store.writes import PairWrite


async def count_keys(conn: AsyncConnection, state_id: int) -> tuple[int, int]:
    """How many rkeys the committed pages of a walk show, and how many different ones.

    Args:
        conn: any connection.
        state_id: the pair.

    Returns:
        Both numbers.
    """
    cursor = await conn.execute(
        'SELECT count(k), count(DISTINCT k COLLATE "C") FROM parity_walk_pages, unnest(rkeys) k WHERE state_id = %s',
        (state_id,),
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[1]


async def last_page(conn: AsyncConnection, state_id: int) -> tuple[int, frozenset[str]]:
    """Number and rkeys of a walk's last committed page.

    Args:
        conn: any connection.
        state_id: the pair.

    Returns:
        The number, 0 if there is none; and the rkeys, stored and skipped ones.
    """
    cursor = await conn.execute(
        "SELECT page, rkeys || skipped_rkeys FROM parity_walk_pages WHERE state_id = %s ORDER BY page DESC LIMIT 1",
        (state_id,),
    )
    row = await cursor.fetchone()
    return (row[0], frozenset(row[1])) if row else (0, frozenset())


async def drop_page_rows(conn: AsyncConnection, writes: Sequence[PairWrite]) -> None:
    """Drop page rows of an earlier walk, or of this very batch if its first commit went through unnoticed.

    Args:
        conn: the writer's connection, in its transaction.
        writes: the batch.
    """
    old = [
        (write.state_id, 0 if write.is_new_walk else write.page_rows[0][0])
        for write in writes
        if write.page_rows or write.is_new_walk
    ]
    old = [(state_id, page) for state_id, page in old if page != 1]
    again = [write for write in writes if write.is_new_walk and not write.is_fresh]
    if again:
        # A pair that was reset counts its walks from 1 again; what failed in its earlier life is not of this walk.
        await conn.execute(
            "UPDATE parity_failed_records f SET walk = 0 FROM unnest(%s::text[], %s::text[], %s::int[])"
            " AS u(did, collection, walk) WHERE f.did = u.did AND f.collection = u.collection AND f.walk >= u.walk",
            [list(column) for column in zip(*((w.did, w.collection, w.walk) for w in again), strict=True)],
        )
    if old:
        await conn.execute(
            "DELETE FROM parity_walk_pages p USING unnest(%s::bigint[], %s::int[]) AS u(state_id, page)"
            " WHERE p.state_id = u.state_id AND p.page >= u.page",
            ([state_id for state_id, _ in old], [page for _, page in old]),
        )


async def save_page_rows(conn: AsyncConnection, writes: Iterable[PairWrite]) -> None:
    """Note which rkeys each page showed.

    Args:
        conn: the writer's connection, in its transaction.
        writes: the batch.
    """
    rows = [
        (write.state_id, page, encode_array(rkeys), encode_array(skipped))
        for write in writes
        for page, rkeys, skipped in write.page_rows
    ]
    if not rows:
        return
    # Arrays of arrays would have to be rectangular, so each page's keys travel as the text of an array.
    state_ids, pages, rkeys, skipped = zip(*rows, strict=True)
    await conn.execute(
        "INSERT INTO parity_walk_pages (state_id, page, rkeys, skipped_rkeys)"
        " SELECT state_id, page, rkeys::text[], skipped::text[] FROM unnest(%s::bigint[], %s::int[], %s::text[],"
        " %s::text[]) AS u(state_id, page, rkeys, skipped)",
        (list(state_ids), list(pages), encode_array(rkeys), encode_array(skipped)),
    )
