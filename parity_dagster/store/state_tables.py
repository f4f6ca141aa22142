"""Which state tables a database holds; what belongs to one of them is marked with it, so that no other takes it for its
own.

Two projects may keep their imports apart in one database (`PARITY_STATE_TABLE`). They share the records, what is known
about records (tombstones, failed records), identities and importers' numbers. Pages of a walk and endings to be told
are each table's own.
"""

from __future__ import annotations

from functools import cache

from psycopg import AsyncConnection, sql


@cache
def regclass(table: str) -> sql.Composed:
    """A state table as the value that marks its rows elsewhere.

    Args:
        table: its name (`PARITY_STATE_TABLE`).

    Returns:
        An expression of the type regclass.
    """
    return sql.SQL("{}::regclass").format(sql.Literal(sql.Identifier(table).as_string()))


# I12, I14
async def other_tables(conn: AsyncConnection, table: str) -> list[sql.SQL]:
    """The state tables of other projects, as far as this role may read them.

    Args:
        conn: any connection.
        table: name of one's own.

    Returns:
        Their names, qualified and quoted where need be.
    """
    cursor = await conn.execute(
        sql.SQL(
            "SELECT state_table::text FROM parity_state_tables JOIN pg_class ON oid = state_table"
            " WHERE state_table <> {} AND has_table_privilege(state_table, 'SELECT') ORDER BY state_table"
        ).format(regclass(table))
    )
    return [sql.SQL(name) for (name,) in await cursor.fetchall()]
