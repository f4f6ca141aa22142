"""State rows that are written or dropped because of something outside of an import: a rebuild, a wipe, a reset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import LiteralString

import psycopg
from psycopg import sql

from parity_dagster.models import ImportState, Pair
from parity_dagster.store.overview import CHANGED
from parity_dagster.store.selection import CONDITION, Selection
from parity_dagster.store.state_tables import regclass
from parity_dagster.store.walk_pages import ALL_PAGES, pages_of

_COLUMNS = tuple(field.name for field in fields(ImportState))

# Restored rows keep the number they had, unless the pair has a row by now or another pair took the number.
_NUMBER = (
    "UPDATE restored r SET id = s.id, moved = r.id <> s.id FROM {table} s"
    " WHERE s.did = r.did AND s.collection = r.collection",
    "SELECT setval(pg_get_serial_sequence({name}, 'id'), greatest((SELECT max(id) FROM restored),"
    " (SELECT max(id) FROM {table}), nextval(pg_get_serial_sequence({name}, 'id'))))",
    "UPDATE restored r SET id = nextval(pg_get_serial_sequence({name}, 'id')), moved = true"
    " WHERE NOT EXISTS (SELECT FROM {table} s WHERE s.did = r.did AND s.collection = r.collection)"
    " AND (EXISTS (SELECT FROM {table} s WHERE s.id = r.id)"
    " OR EXISTS (SELECT FROM restored o WHERE o.id = r.id AND (o.did, o.collection) < (r.did, r.collection)))",
)

# A walk can only go on where the keys of all its pages are known; without them its end would take the records of
# the missing pages for deleted ones. Such a pair starts again from its first page instead.
_UNKNOWN_PLACE = (
    "UPDATE restored s SET cursor = NULL, pages = 0 WHERE status <> 'completed' AND cursor IS NOT NULL"
    " AND (moved OR {all_pages} IS NOT TRUE)"
)

_MERGE = (
    "INSERT INTO {table} AS s ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM restored"
    " ON CONFLICT (did, collection) DO UPDATE SET ({changed}) = ROW ({excluded})"
    " WHERE s.importer_id IS NULL AND s.updated_at <= excluded.updated_at"
    " AND ({current}) IS DISTINCT FROM ({excluded})"
)


def restore_states(connection: psycopg.Connection, table: str, states: Iterable[ImportState]) -> int:
    """Write rows back as they were, at most one per pair; rows that know something newer stay.

    Their claims are dropped: whoever held the pair then does not now.
    """
    changed = tuple(name for name in _COLUMNS if name not in ("id", "did", "collection"))
    parts = {
        "table": sql.Identifier(table),
        "name": sql.Literal(f'"{table}"'),
        "columns": _list(_COLUMNS),
        "changed": _list(changed),
        "current": _list(changed, "s"),
        "excluded": _list(changed, "excluded"),
        "all_pages": ALL_PAGES.format(state_table=regclass(table)),
    }
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(
            sql.SQL(
                "CREATE TEMP TABLE restored (LIKE {table} INCLUDING DEFAULTS, moved boolean NOT NULL DEFAULT false)"
                " ON COMMIT DROP"
            ).format(**parts)
        )
        with cursor.copy(sql.SQL("COPY restored ({columns}) FROM STDIN").format(**parts)) as copy:
            for state in states:
                copy.write_row([getattr(state, name) for name in _COLUMNS])
        # without these, tens of thousands of rows are compared each with each
        cursor.execute("CREATE INDEX ON restored (id)")
        cursor.execute("CREATE INDEX ON restored (did, collection)")
        cursor.execute("ANALYZE restored")
        cursor.execute("UPDATE restored SET importer_id = NULL WHERE importer_id IS NOT NULL")
        # nobody may take a number or a pair between our looks
        cursor.execute(sql.SQL("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE").format(**parts))
        for statement in (*_NUMBER, _UNKNOWN_PLACE):
            cursor.execute(sql.SQL(statement).format(**parts))
        cursor.execute(sql.SQL(_MERGE).format(**parts))
        return cursor.rowcount


def forget_states(connection: psycopg.Connection, table: str, pairs: Iterable[Pair] | None) -> int:
    """Make pairs (None: all) not imported; their records stay. What is queued or being imported now is left alone."""
    wanted = None if pairs is None else list(pairs)
    return _forget(
        connection,
        table,
        "status IN ('completed', 'failed') AND (%(all)s OR (did, collection) IN"
        " (SELECT * FROM unnest(%(dids)s::text[], %(collections)s::text[])))",
        {
            "all": wanted is None,
            "dids": [pair.did for pair in wanted or ()],
            "collections": [pair.collection for pair in wanted or ()],
        },
    )


def reset_states(connection: psycopg.Connection, table: str, did: str, collection: str | None) -> int:
    """Forget how far an account's import got, in one collection or all, whoever is at it; its records stay."""
    return _forget(
        connection,
        table,
        "did = %(did)s AND (%(collection)s::text IS NULL OR collection = %(collection)s)",
        {"did": did, "collection": collection},
    )


def reset_selected(connection: psycopg.Connection, table: str, selection: Selection) -> int:
    """Forget how far the selected imports got, whoever is at them; their records stay."""
    return _forget(connection, table, f"id IN (SELECT s.id FROM {{table}} s WHERE {CONDITION})", selection.values())


def _forget(connection: psycopg.Connection, table: str, which: LiteralString, values: Mapping[str, object]) -> int:
    with connection.transaction():
        rows = connection.execute(
            sql.SQL(f"DELETE FROM {{table}} WHERE {which} RETURNING id").format(table=sql.Identifier(table)), values
        ).fetchall()
        gone = [state_id for (state_id,) in rows]
        # A statement of its own: it sees the page that was being committed while the rows above were waited for.
        connection.execute(pages_of(table), (gone,))
        if gone:
            connection.execute(CHANGED)
    return len(gone)


def _list(names: Iterable[str], qualifier: str | None = None) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(qualifier, name) if qualifier else sql.Identifier(name) for name in names)
