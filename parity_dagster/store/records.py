"""A collection's records as rows of typed columns, streamed out of one snapshot.

What PostgreSQL sends is a COPY: a row at a time whatever its size, where a cursor would be asked for thousands at once.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from difflib import get_close_matches
from typing import Any, Literal

import psycopg
from psycopg import sql

from parity_dagster.errors import DatabaseError, InvalidIdentifier, SettingsError
from parity_dagster.identifiers import parse_nsid
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect
from parity_dagster.store.postgres_errors import cure_for, first_line
from parity_dagster.store.typed import BLUESKY_VIEWS, Column, registered_views
from parity_dagster.store.typed.columns import SQL_TYPES, Kind
from parity_dagster.store.typed.view import COMMON, TRACKING

VALUE = "value"
"""Column of a collection without a view: the whole record."""

_RECORD = ("did", "collection", "rkey", "cid", "active", VALUE)

_KINDS: Mapping[str, Kind] = {sql_type: kind for kind, sql_type in SQL_TYPES.items()}
_LARGEST_OFFSET = timedelta(hours=16)
"""Where PostgreSQL no longer takes a zone for one; the easternmost is 14 hours from UTC."""
_WRITTEN = Column("created_at", "createdAt", "timestamp")

Form = Literal["python", "csv", "json"]

_FORMS: Mapping[Form, Mapping[Kind, str]] = {
    # Python's own dates and floats cannot hold all of it: microseconds and digits can.
    "python": {
        "timestamp": "(extract(epoch FROM {0}) * 1000000)::int8",
        "number": "({0})::text",
        "json": "({0})::text",
    },
    "csv": {
        "timestamp": "to_json({0}) #>> '{{}}'",
        "texts": "to_json({0})::text",
        "boolean": "({0})::text",
    },
    "json": {
        "text": "to_json({0})::text",
        "timestamp": "to_json({0})::text",
        "texts": "to_json({0})::text",
    },
}
_TRANSFERRED: Mapping[Kind, str] = {
    "text": "text",
    "timestamp": "int8",
    "texts": "text[]",
    "integer": "int8",
    "number": "text",
    "boolean": "bool",
    "json": "text",
}
# What a spreadsheet takes for a formula when a cell begins with it: some skip white space, some know wide characters.
_GUARDED = r"regexp_replace({0}, '^(?:[\t\r\n]|\s*[-=+@＝＋－＠])', '''\&')"


@dataclass(frozen=True, slots=True)
class Source:
    """What is read: a typed view, or a collection's records as they are."""

    name: str
    """The view's, or the NSID."""
    collection: str
    columns: Mapping[str, tuple[Kind, str]]
    """Kind and SQL expression of each column, in their order."""

    def choose(self, wanted: Sequence[str] | None) -> Source:
        """The same with some of its columns.

        Raises:
            SettingsError: there is no such column.
        """
        if wanted is None:
            return self
        if not wanted:
            raise SettingsError(f"no column of {self.name} is asked for; there are {', '.join(self.columns)}")
        for name in wanted:
            if name not in self.columns:
                raise SettingsError(
                    f"{self.name} has no column {name!r}{_nearest(name, self.columns)}; there are"
                    f" {', '.join(self.columns)}"
                )
        return replace(self, columns={name: self.columns[name] for name in wanted})

    def as_records(self) -> Source:
        """The same with what makes a record that stands for itself; a view stays as it is."""
        if self.name != self.collection:
            return self
        columns: dict[str, tuple[Kind, str]] = {"collection": ("text", "collection"), **self.columns}
        return replace(self, columns={name: columns[name] for name in _RECORD})


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows of a source."""

    dids: Sequence[str] | None = None
    """Only these accounts' rows; None for all."""
    since: datetime | None = None
    """Only records that say that they were written then or later."""


def moment(given: str | date) -> datetime:
    """A time as a person writes it.

    Args:
        given: a date or a time, or one of them as ISO 8601; without a zone it is in UTC.

    Raises:
        SettingsError: it is none.
    """
    if isinstance(given, str):
        try:
            found: date = datetime.fromisoformat(given.strip())
        except ValueError:
            raise _no_moment(ascii(given[:40])) from None
    else:
        found = given
    if found != found:
        raise _no_moment("NaT")  # pandas takes it for a time
    if not isinstance(found, datetime):
        found = datetime.combine(found, time())
    if abs(found.utcoffset() or timedelta()) >= _LARGEST_OFFSET:
        raise _no_moment(found.isoformat())
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _no_moment(given: str) -> SettingsError:
    return SettingsError(f"{given} is not a time; write it as 2024-07-01 or 2024-07-01T12:00:00Z")


@contextmanager
def open_snapshot(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    """Open a connection whose one transaction sees everything as it is now, and can change nothing.

    Raises:
        DatabaseError: whatever PostgreSQL says while it is used, as one line.
    """
    try:
        with closing(connect(settings)) as conn:
            conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            conn.read_only = True
            yield conn
    except psycopg.errors.ProgramLimitExceeded as exc:
        raise DatabaseError(
            f"PostgreSQL cannot write a record out: {first_line(exc)}; `parity doctor` finds records whose numbers have"
            " thousands of digits"
        ) from exc
    except psycopg.Error as exc:
        cure = cure_for(exc, grants="grant the role SELECT on the database's tables")
        raise DatabaseError(f"PostgreSQL failed: {first_line(exc)}; {cure} and try again") from exc


def find_source(conn: psycopg.Connection[Any], settings: Settings, name: str) -> Source:
    """Look up what a name means.

    Args:
        name: a typed view, or an NSID, which means the records as they are.

    Raises:
        SettingsError: there is no such view or collection; names what there is.
    """
    # of one name the user's comes last
    views = {view.name: view for view in (*BLUESKY_VIEWS, *registered_views(settings))}
    tracking: dict[str, tuple[Kind, str]] = {each: (_KINDS[sql_type], each) for each, (sql_type, _) in TRACKING.items()}
    common: dict[str, tuple[Kind, str]] = {each: (_KINDS[sql_type], each) for each, (sql_type, _) in COMMON.items()}
    if view := views.get(name):
        typed = {column.name: (column.kind, column.expression) for column in view.columns}
        return Source(name, view.collection, {**common, **typed, **tracking})
    try:
        collection = parse_nsid(name)
    except InvalidIdentifier:
        raise SettingsError(
            f"there is no view {name[:80]!a}{_nearest(name, views)}; views are {', '.join(views)}, and a"
            " collection is named by its NSID, as app.bsky.feed.post"
        ) from None
    if collection not in settings.collections and not _is_held(conn, collection):
        known = dict.fromkeys([*settings.collections, *(view.collection for view in views.values())])
        raise SettingsError(
            f"no record of {collection} was imported{_nearest(collection, known)}; registered are"
            f" {', '.join(settings.collections)} (PARITY_COLLECTIONS)"
        )
    return Source(collection, collection, {**common, VALUE: ("json", "value"), **tracking})


def _is_held(conn: psycopg.Connection[Any], collection: str) -> bool:
    return (
        conn.execute("SELECT 1 FROM atproto_records WHERE collection = %s LIMIT 1", (collection,)).fetchone()
        is not None
    )


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    near = get_close_matches(name, known, 1)
    return f" (did you mean {near[0]}?)" if near else ""


def find_absent(conn: psycopg.Connection[Any], source: Source, dids: Sequence[str]) -> list[str]:
    """Which of these accounts have no record in the source's collection."""
    rows = conn.execute(
        "SELECT given FROM unnest(%s::text[]) given WHERE NOT EXISTS"
        " (SELECT FROM atproto_records WHERE did = given AND collection = %s)",
        (list(dids), source.collection),
    )
    return [did for (did,) in rows]


def count_rows(conn: psycopg.Connection[Any], source: Source, selection: Selection) -> int:
    """Count what the streams below will bring."""
    row = conn.execute(sql.SQL("SELECT count(*) ") + _rows_of(source, selection)).fetchone()
    assert row is not None
    return int(row[0])


def stream_rows(conn: psycopg.Connection[Any], source: Source, selection: Selection) -> Generator[tuple[Any, ...]]:
    """Read rows in no order.

    Yields:
        A tuple of the source's columns: times as microseconds since 1970, numbers and JSON as text, `texts` as lists.
    """
    statement = _copy(_columns(source, "python"), source, selection, "(FORMAT binary)")
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types([_TRANSFERRED[kind] for kind, _ in source.columns.values()])
        yield from copy.rows()


def nearest_float(number: str | None) -> float | None:
    """The nearest float to a number of `stream_rows`; None if there is none."""
    value = None if number is None else float(number)
    return None if value is None or math.isinf(value) else value


def stream_csv(
    conn: psycopg.Connection[Any], source: Source, selection: Selection, *, for_spreadsheets: bool = False
) -> Generator[bytes]:
    """Read rows as the lines of a CSV file, in no order, after one with the columns' names.

    Args:
        for_spreadsheets: whether a text that a spreadsheet would take for a formula gets a `'` before it.
    """
    columns = _columns(source, "csv", guarded=for_spreadsheets)
    with conn.cursor() as cursor, cursor.copy(_copy(columns, source, selection, "(FORMAT csv, HEADER)")) as copy:
        yield from map(bytes, copy)


def stream_jsonl(conn: psycopg.Connection[Any], source: Source, selection: Selection) -> Generator[bytes]:
    """Read rows as lines of one JSON object each, in no order."""
    forms = _FORMS["json"]
    # concatenated, because json_build_object would read a record as JSON again
    fields = (
        f"""'"{name}":' || coalesce({forms.get(kind, "({0})::text").format(expression)}, 'null')"""
        for name, (kind, expression) in source.columns.items()
    )
    line = "'{' || " + " || ',' || ".join(fields) + " || '}'"
    with conn.cursor() as cursor, cursor.copy(_copy(line, source, selection, "")) as copy:
        for row in copy:
            # JSON as PostgreSQL writes it has no control characters: of what COPY escapes, only backslashes occur
            yield bytes(row).replace(b"\\\\", b"\\")


def _columns(source: Source, form: Form, *, guarded: bool = False) -> str:
    forms = _FORMS[form]
    written = []
    for kind, expression in source.columns.values():
        made = forms.get(kind, "{0}").format(expression)
        written.append(_GUARDED.format(f"({made})") if guarded and kind == "text" else made)
    names = [f'{made} AS "{name}"' for made, name in zip(written, source.columns, strict=True)]
    return ", ".join(names)


def _copy(columns: str, source: Source, selection: Selection, form: str) -> sql.Composed:
    return sql.SQL("COPY (SELECT {columns} {rows}) TO STDOUT {form}").format(
        columns=sql.SQL(columns), rows=_rows_of(source, selection), form=sql.SQL(form)
    )


def _rows_of(source: Source, selection: Selection) -> sql.Composed:
    conditions = [sql.SQL("collection = {}").format(sql.Literal(source.collection))]
    if selection.dids is not None:
        conditions.append(sql.SQL("did = ANY({}::text[])").format(sql.Literal(list(selection.dids))))
    if selection.since is not None:
        conditions.append(sql.SQL(_WRITTEN.expression + " >= {}").format(sql.Literal(selection.since)))
    return sql.SQL("FROM atproto_records WHERE ") + sql.SQL(" AND ").join(conditions)
