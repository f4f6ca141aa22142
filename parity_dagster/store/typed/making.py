"""Typed views in the database: making them, and looking at what they show."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from parity_dagster.errors import SettingsError
from parity_dagster.store.typed.view import TypedView


class View(Protocol):
    """What can be made: it has a name, and its comment tells its definition."""

    @property
    def name(self) -> str:
        """What it is called."""

    def statements(self) -> Iterator[str]:
        """What makes it, with its comments."""

    def mark(self) -> str:
        """What its comment ends with."""


class ViewSummary(NamedTuple):
    """What a view shows, in numbers."""

    rows: int
    accounts: int
    inactive: int
    """Rows of accounts that are not active."""
    nulls: dict[str, int]
    """Rows in which a typed column is null, by column: missing or malformed."""
    first: datetime | None
    """Earliest `created_at`, if the view has that column."""
    last: datetime | None
    sampled: int | None = None
    """Rows that were looked at, if not all were."""


COUNTED_BYTES = 64 * 2**20
"""Of the table of records, at most: what is read of it for each view."""


def make_view(conn: psycopg.Connection[Any], view: View) -> bool:
    """Bring a view to its present definition.

    Raises:
        SettingsError: the name belongs to something else, or other views depend on the former definition.
    """
    with conn.transaction():
        # Two at once would both find nothing.
        conn.execute("SELECT pg_advisory_xact_lock(hashtext('parity_dagster'), hashtext(%s))", (view.name,))
        found = _found(conn, view)
        if found is not None:
            kind, comment = found
            if comment.endswith(view.mark()):
                return False
            if not _is_ours(kind, comment):
                what = {"v": "view", "r": "table", "m": "materialized view"}.get(kind, "relation")
                raise SettingsError(
                    f"the database has a {what} called {view.name} that parity_dagster did not make, so its own "
                    f"view cannot be made: rename that {what}, or give parity_dagster a schema of its own (CREATE "
                    "SCHEMA parity, add ?options=-csearch_path%3Dparity to PARITY_DATABASE_URL, `parity migrate`)"
                )
            try:
                with conn.transaction():
                    _make(conn, view)  # what depends on it, and who may read it, stays
                return True
            except psycopg.errors.InvalidTableDefinition:
                pass  # other columns than before
            try:
                conn.execute(sql.SQL("DROP VIEW {}").format(sql.Identifier(view.name)))
            except psycopg.errors.DependentObjectsStillExist as exc:
                raise SettingsError(
                    f"the view {view.name} has a new definition, but other objects depend on the old one "
                    f"({exc.diag.message_detail}): drop them, materialize {view.name} and make them again"
                ) from exc
        _make(conn, view)
        return True


def _found(conn: psycopg.Connection[Any], view: View) -> tuple[str, str] | None:
    """Kind and comment of what bears the view's name where the view would be made."""
    row = conn.execute(
        "SELECT c.relkind::text, coalesce(obj_description(c.oid, 'pg_class'), '') FROM pg_class c"
        " WHERE c.relname = %s AND c.relnamespace = current_schema()::regnamespace",
        (view.name,),
    ).fetchone()
    return (row[0], row[1]) if row else None


def _is_ours(kind: str, comment: str) -> bool:
    return kind == "v" and "[parity_dagster " in comment


def _make(conn: psycopg.Connection[Any], view: View) -> None:
    for statement in view.statements():
        conn.execute(statement.encode())


def summarize_view(
    conn: psycopg.Connection[Any], view: TypedView, table: str, *, counted_bytes: int = COUNTED_BYTES
) -> ViewSummary:
    """Count what a view shows.

    Of a table of records that is larger than `counted_bytes`, so many of them are looked at, anywhere in it, and rows
    and accounts are what the imports have counted: there are several views, and each would read the whole table.

    Args:
        table: name of the state table.
    """
    _show_utc(conn)
    has_time = any(column.name == "created_at" for column in view.columns)
    span = "min(created_at), max(created_at)" if has_time else "NULL, NULL"
    filled = "".join(f", count({column.name})" for column in view.columns)
    source, is_sampled = _source(conn, view, counted_bytes)
    row = conn.execute(
        f"SELECT count(*), count(DISTINCT did), count(*) FILTER (WHERE NOT active), {span}{filled}"
        f" FROM {source}".encode()
    ).fetchone()
    assert row is not None
    rows, accounts, inactive, first, last, *counts = row
    nulls = {column.name: rows - count for column, count in zip(view.columns, counts, strict=True)}
    if not is_sampled:
        return ViewSummary(rows, accounts, inactive, nulls, first, last)
    known = conn.execute(
        sql.SQL(
            "SELECT coalesce(sum(records_synced), 0)::bigint, count(*) FILTER (WHERE records_synced > 0) FROM {}"
            " WHERE collection = %s"
        ).format(sql.Identifier(table)),
        (view.collection,),
    ).fetchone()
    assert known is not None
    share = known[0] / rows if rows else 0.0
    return ViewSummary(
        known[0],
        known[1],
        round(inactive * share),
        {name: round(count * share) for name, count in nulls.items()},
        first,
        last,
        sampled=rows,
    )


def _source(conn: psycopg.Connection[Any], view: TypedView, counted_bytes: int) -> tuple[str, bool]:
    """What is looked at of a view: the view, or as if it were over a part of the records."""
    # a table that somebody has partitioned has nothing itself
    row = conn.execute(
        "SELECT coalesce((SELECT sum(pg_relation_size(relid)) FROM pg_partition_tree('atproto_records')),"
        " pg_relation_size('atproto_records'))::bigint"
    ).fetchone()
    assert row is not None
    if row[0] <= counted_bytes:
        return view.name, False
    percent = 100 * counted_bytes / row[0]
    return f"({view.select(f'TABLESAMPLE SYSTEM ({percent:.6f})')}) AS sampled", True


def find_samples(
    conn: psycopg.Connection[Any], view: TypedView, limit: int = 5, *, counted_bytes: int = COUNTED_BYTES
) -> list[dict[str, Any]]:
    """A few rows, those stored last first, of what is looked at."""
    _show_utc(conn)
    source, _ = _source(conn, view, counted_bytes)
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            f"SELECT * FROM {source} WHERE active ORDER BY updated_at DESC, rkey DESC LIMIT {limit:d}".encode()
        )
        return cursor.fetchall()


def _show_utc(conn: psycopg.Connection[Any]) -> None:
    """In a time zone of the server's the last second of the year 9999 may be one that Python cannot hold."""
    conn.execute("SET TIME ZONE 'UTC'")
