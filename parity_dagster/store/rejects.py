"""Records that could not be stored.

What lives here: finding them in a batch that Postgres refused, and reading `parity_failed_records`. What must not:
writing pages.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import AsyncConnection

from parity_dagster.store.sessions import REFUSED_DATA, first_line


async def find_unstorable(conn: AsyncConnection, rows: Sequence[tuple[str, str | None, bytes]]) -> dict[str, str]:
    """Ask Postgres which values it cannot hold, halving the batch around each of them.

    Args:
        conn: any connection, in no transaction.
        rows: rkey, cid and JSON bytes.

    Returns:
        Postgres' reason by rkey.
    """
    bad: dict[str, str] = {}
    pending = [list(rows)]
    while pending:
        part = pending.pop()
        if not part:
            continue
        try:
            # text[] reaches the server as it is; the cast is the same work that storing would be.
            await conn.execute("SELECT count(v::jsonb) FROM unnest(%s::text[]) v", ([row[2].decode() for row in part],))
        except (*REFUSED_DATA, UnicodeDecodeError) as exc:
            if len(part) == 1:
                reason = first_line(exc) if isinstance(exc, psycopg.Error) else "not valid UTF-8"
                bad[part[0][0]] = reason
            else:
                middle = len(part) // 2
                pending += [part[:middle], part[middle:]]
    return bad
