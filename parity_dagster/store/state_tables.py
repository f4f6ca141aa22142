"""Which state tables a database holds; what belongs to one of them is marked with it, so that no other takes it for its
own.

Two projects may keep their imports apart in one database (`PARITY_STATE_TABLE`). They share the records, what is known
about records (tombstones, failed records), identities and importers' numbers. Pages of a walk and the outbox are
each table's own.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from psycopg import AsyncConnection, sql


@cache
def regclass(table: str) -> sql.Composed:
    """A state table as the value, of the type regclass, that marks its rows elsewhere."""
    return sql.SQL("{}::regclass").format(sql.Literal(sql.Identifier(table).as_string()))


class StateTable(NamedTuple):
    """A state table that this role may read."""

    oid: int
    name: sql.SQL
    """Qualified and quoted where need be."""
    is_own: bool
    may_write: bool


# I12, I14
async def readable_tables(conn: AsyncConnection, table: str) -> list[StateTable]:
    """The state tables of all projects, as far as this role may read them, in the order in which rows are locked."""
    cursor = await conn.execute(
        sql.SQL(
            "SELECT state_table::oid::bigint, state_table::text, state_table = {}, has_table_privilege(state_table,"
            " 'UPDATE') FROM parity_state_tables JOIN pg_class ON oid = state_table"
            " WHERE has_table_privilege(state_table, 'SELECT') ORDER BY parity_state_tables.state_table"
        ).format(regclass(table))
    )
    return [StateTable(oid, sql.SQL(name), *rest) for oid, name, *rest in await cursor.fetchall()]


async def other_tables(conn: AsyncConnection, table: str) -> list[sql.SQL]:
    """The names of the state tables of other projects, as far as this role may read them."""
    return [each.name for each in await readable_tables(conn, table) if not each.is_own]
