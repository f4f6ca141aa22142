"""A typed view: a name, a collection, columns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from parity_dagster.errors import InvalidIdentifier, SettingsError
from parity_dagster.identifiers import parse_nsid
from parity_dagster.store.typed.columns import NAME, Column

COMMON = {
    "did": ("text", "Account"),
    "rkey": ("text", "Record key"),
    "uri": ("text", "at://did/collection/rkey"),
    "cid": ("text", "Content identifier of this version; null when the PDS names none"),
}
"""Columns that every view begins with."""

TRACKING = {
    "active": ("boolean", "False while the account is deactivated, suspended or taken down"),
    "first_seen_at": ("timestamptz", "When the record was stored first"),
    "updated_at": ("timestamptz", "When this version was stored"),
}
"""Columns that every view ends with."""


@dataclass(frozen=True, slots=True)
class TypedView:
    """A collection as a view with typed columns.

    Args:
        name: of the view, and of its asset in Dagster.
        collection: NSID of the records it shows.
        columns: besides `did, rkey, uri, cid` and `active, first_seen_at, updated_at`, which each view has.
        comment: what a row is.
        link: web address of a row, with `{did}` and `{rkey}`; empty if there is none.

    Raises:
        SettingsError: a name, collection or column that cannot be one.
    """

    name: str
    collection: str
    columns: tuple[Column, ...]
    comment: str = ""
    link: str = ""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise SettingsError(f"{self.name!r} is not a name for a view; use lower-case letters, digits and _")
        try:
            parse_nsid(self.collection)
        except InvalidIdentifier as exc:
            raise SettingsError(f"typed view {self.name}: {exc}") from exc
        names = [*COMMON, *(column.name for column in self.columns), *TRACKING]
        if twice := {name for name in names if names.count(name) > 1}:
            raise SettingsError(f"typed view {self.name}: two columns are called {', '.join(sorted(twice))}")

    def described_columns(self) -> Iterator[tuple[str, str, str]]:
        """Name, PostgreSQL type and comment of each column, in the view's order."""
        for name, (sql_type, comment) in COMMON.items():
            yield name, sql_type, comment
        for column in self.columns:
            yield column.name, column.sql_type, column.comment or f"Field {column.path} of the record"
        for name, (sql_type, comment) in TRACKING.items():
            yield name, sql_type, comment

    def source_of(self, name: str) -> str:
        """Which column of `atproto_records` a column of this view is made from."""
        return "value" if any(column.name == name for column in self.columns) else name

    def select(self, part: str = "") -> str:
        """The view's query, or one over a part of the records."""
        typed = (f"{column.expression} AS {column.name}" for column in self.columns)
        wanted = ",\n       ".join([*COMMON, *typed, *TRACKING])
        source = f"atproto_records {part}".rstrip()
        return f"SELECT {wanted}\n  FROM {source}\n WHERE collection = '{self.collection}'"

    def statements(self) -> Iterator[str]:
        """What makes the view, with its comments."""
        yield f"CREATE OR REPLACE VIEW {self.name} AS\n{self.select()}"
        for name, _, comment in self.described_columns():
            yield f"COMMENT ON COLUMN {self.name}.{name} IS {quoted(comment)}"
        yield f"COMMENT ON VIEW {self.name} IS {quoted(f'{self.comment} {self.mark()}'.strip())}"

    def mark(self) -> str:
        """What the view's comment ends with, so that it is known to be ours, and of which definition."""
        return f"[parity_dagster {self.version()}]"

    def version(self) -> str:
        """A digest of all that makes the view."""
        definition = [self.comment, self.select(), *(comment for _, _, comment in self.described_columns())]
        return hashlib.sha256(repr(definition).encode()).hexdigest()[:12]


def quoted(text: str) -> str:
    """A text without NUL as an SQL literal: an escape string, which means the same under every server setting."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"
