"""How old copies are, and which are the stalest: what was neither read nor confirmed for longest.

A copy is as old as its last complete import, or as the moment at which its host's list of accounts last showed its
revision, if that is later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg
from psycopg import sql

FRESH_AT: LiteralString = "greatest(s.completed_at, s.confirmed_at)"
"""When the copy of a state row `s` was last known to be what its host shows; an index is in this order."""


def age_text(seconds: float) -> str:
    """An age for people: `45 minutes`, `3.5 hours`, `6.2 days`."""
    if seconds < 3600:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 86_400 else f"{seconds / 86_400:,.1f} days"


def age_of_stalest(conn: psycopg.Connection[Any], table: str, collections: Sequence[str]) -> float | None:
    """Seconds since the stalest complete copy was read or confirmed; None if there is none.

    It is one look into the index for each collection.
    """
    row = conn.execute(
        sql.SQL(
            "SELECT extract(epoch FROM now() - min(fresh_at))::float8 FROM unnest(%s::text[]) AS c(collection)"
            f" CROSS JOIN LATERAL (SELECT {FRESH_AT} AS fresh_at FROM {{}} s WHERE s.status = 'completed'"
            f" AND s.collection = c.collection ORDER BY {FRESH_AT} LIMIT 1) oldest"
        ).format(sql.Identifier(table)),
        (list(collections),),
    ).fetchone()
    assert row is not None
    return None if row[0] is None else float(row[0])
