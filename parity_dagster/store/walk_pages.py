"""What a walk has seen so far: one small row per committed page, until the walk completes.

These rows are the evidence on which an ending counts, and deletes what the list no longer shows. A row belongs to one
walk of one row of one state table, and only rows of all pages of that very walk prove anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from psycopg import AsyncConnection, sql

from parity_dagster.models import Pair
from parity_dagster.store.copy_text import encode_array
from parity_dagster.store.state_tables import StateTable, readable_tables, regclass
from parity_dagster.store.writes import PairWrite

# I2, I14
ALL_PAGES = sql.SQL(
    "(SELECT count(*) = s.pages AND min(page) = 1 AND max(page) = s.pages FROM parity_walk_pages"
    " WHERE state_table = {state_table} AND state_id = s.id AND walk = s.walk)"
)
"""Whether the pages 1 to n of the walk of the state row `s` are all there, and no others; not true without any page."""


class StateRow(NamedTuple):
    """A pair's row in a state table."""

    table: StateTable
    id: int


class Walk(NamedTuple):
    """Whose page rows."""

    table: str
    """Name of the state table."""
    state_id: int
    walk: int


async def count_keys(conn: AsyncConnection, walk: Walk) -> tuple[int, int]:
    """How many rkeys the committed pages of a walk show, and how many different ones."""
    cursor = await conn.execute(
        sql.SQL(
            'SELECT count(k), count(DISTINCT k COLLATE "C") FROM parity_walk_pages, unnest(rkeys) k'
            " WHERE state_table = {} AND state_id = %s AND walk = %s"
        ).format(regclass(walk.table)),
        (walk.state_id, walk.walk),
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[1]


# I2
async def find_last_page(conn: AsyncConnection, walk: Walk, pages: int) -> frozenset[str] | None:
    """The rkeys, stored and skipped ones, of the last of the committed pages 1 to `pages` of a walk.

    None if the rows of these pages are not all there, so that the walk cannot go on.
    """
    cursor = await conn.execute(
        sql.SQL(
            "SELECT rkeys || skipped_rkeys FROM parity_walk_pages JOIN (SELECT count(*) AS rows, min(page) AS first,"
            " max(page) AS page FROM parity_walk_pages WHERE state_table = {table} AND state_id = %(id)s"
            " AND walk = %(walk)s) seen USING (page) WHERE state_table = {table} AND state_id = %(id)s"
            " AND walk = %(walk)s AND (rows, first, page) = (%(pages)s, 1, %(pages)s)"
        ).format(table=regclass(walk.table)),
        {"pages": pages, "id": walk.state_id, "walk": walk.walk},
    )
    row = await cursor.fetchone()
    return None if row is None else frozenset(row[0])


async def drop_page_rows(conn: AsyncConnection, table: str, writes: Sequence[PairWrite]) -> None:
    """Drop page rows of an earlier walk, or of this very batch if its first commit went through unnoticed."""
    old = [
        (write.state_id, 0 if write.is_new_walk else write.page_rows[0].page)
        for write in writes
        if write.page_rows or write.is_new_walk
    ]
    again = [write for write in writes if write.is_new_walk and not write.is_fresh]
    if again:
        # A pair that was reset counts its walks from 1 again; what failed in its earlier life is not of this walk.
        await conn.execute(
            "UPDATE parity_failed_records f SET walk = 0 FROM unnest(%s::text[], %s::text[], %s::int[])"
            " AS u(did, collection, walk) WHERE f.did = u.did AND f.collection = u.collection AND f.walk >= u.walk",
            [list(column) for column in zip(*((w.did, w.collection, w.position.walk) for w in again), strict=True)],
        )
    if old:
        await conn.execute(
            sql.SQL(
                "DELETE FROM parity_walk_pages p USING unnest(%s::bigint[], %s::int[]) AS u(state_id, page)"
                " WHERE p.state_table = {} AND p.state_id = u.state_id AND p.page >= u.page"
            ).format(regclass(table)),
            ([state_id for state_id, _ in old], [page for _, page in old]),
        )


async def save_page_rows(conn: AsyncConnection, table: str, writes: Iterable[PairWrite]) -> None:
    """Note what each page showed."""
    rows = [
        (write.state_id, write.position.walk, row.page, *map(encode_array, (row.rkeys, row.skipped, row.failed)))
        for write in writes
        for row in write.page_rows
    ]
    if not rows:
        return
    # Arrays of arrays would have to be rectangular, so each page's keys travel as the text of an array.
    state_ids, walks, pages, rkeys, skipped, failed = zip(*rows, strict=True)
    await conn.execute(
        sql.SQL(
            "INSERT INTO parity_walk_pages (state_table, state_id, walk, page, rkeys, skipped_rkeys, failed)"
            " SELECT {}, state_id, walk, page, rkeys::text[], skipped::text[], failed::text[] FROM unnest(%s::bigint[],"
            " %s::int[], %s::int[], %s::text[], %s::text[], %s::text[])"
            " AS u(state_id, walk, page, rkeys, skipped, failed)"
        ).format(regclass(table)),
        (list(state_ids), list(walks), list(pages), *map(encode_array, (rkeys, skipped, failed))),
    )


def pages_of(table: str) -> sql.Composed:
    """The statement that drops all page rows of the pairs whose numbers are its parameter."""
    return sql.SQL("DELETE FROM parity_walk_pages WHERE state_table = {} AND state_id = ANY(%s)").format(
        regclass(table)
    )


# I11, I14
async def have_read_again(conn: AsyncConnection, table: str, pairs: Sequence[Pair]) -> None:
    """Have every project read pairs from the first page whose records were hidden: only a list that is read to its end
    shows them all again, and neither the rest of one nor an equal revision does.

    Args:
        conn: the writer's connection, in the transaction that hides the records.
        table: name of the writer's state table.
        pairs: whose account is not active.
    """
    keys = [[pair.did for pair in pairs], [pair.collection for pair in pairs]]
    mine = sql.SQL("FROM unnest(%s::text[], %s::text[]) AS u(did, collection)")
    for each in await readable_tables(conn, table):
        await conn.execute(
            sql.SQL(
                "DELETE FROM parity_walk_pages WHERE state_table = {}::oid AND state_id IN"
                " (SELECT s.id {} JOIN {} s USING (did, collection))"
            ).format(sql.Literal(each.oid), mine, each.name),
            keys,
        )
        if each.may_write and not each.is_own:
            await conn.execute(
                sql.SQL(
                    "UPDATE {} s SET rev = NULL {} WHERE s.did = u.did AND s.collection = u.collection"
                    " AND s.completed_at IS NOT NULL"
                ).format(each.name, mine),
                keys,
            )


# I1, I2
async def move_failed(
    conn: AsyncConnection, state: StateRow, fingerprint: str, *, rkey: str | None = None, skipped: str | None = None
) -> None:
    """Let the walk under way know what became of a record that one of its pages showed as failed.

    Without this, its end would take a record that is stored meanwhile for one that was deleted.

    Args:
        conn: in the transaction that stores the record, or drops it.
        rkey: the record key, if it is stored.
        skipped: the record key, if it is not wanted any more.
    """
    await conn.execute(
        "UPDATE parity_walk_pages SET rkeys = rkeys || %s::text[], skipped_rkeys = skipped_rkeys || %s::text[]"
        " WHERE state_table = %s::oid AND state_id = %s AND %s = ANY(failed)",
        ([rkey] if rkey else [], [skipped] if skipped else [], state.table.oid, state.id, fingerprint),
    )
