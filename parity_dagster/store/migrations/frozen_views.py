"""Typed views as a revision defined them, in SQL, so that what a migration makes does not change with the package."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import psycopg


class FrozenViews(NamedTuple):
    """What stands in `views_0007.sql`."""

    function: bytes
    """Makes parity_timestamp, which the views need."""
    views: dict[str, bytes]
    """What makes each view, by its name."""


def read_views(revision: str) -> FrozenViews:
    """Read the definitions of a revision."""
    text = (Path(__file__).parent / f"views_{revision}.sql").read_text(encoding="utf-8")
    function, *parts = re.split(r"^-- view (\w+)\n", text, flags=re.MULTILINE)
    return FrozenViews(
        function.encode(), {name: sql.encode() for name, sql in zip(parts[::2], parts[1::2], strict=True)}
    )


def comment_of(conn: psycopg.Connection[Any], name: str) -> str | None:
    """The comment of what bears a view's name where it would be made, with its kind before it; None if it is free."""
    row = conn.execute(
        "SELECT c.relkind::text || ' ' || coalesce(obj_description(c.oid, 'pg_class'), '') FROM pg_class c"
        " WHERE c.relname = %s AND c.relnamespace = current_schema()::regnamespace",
        (name,),
    ).fetchone()
    return row[0] if row else None
