"""An export: the rows of one snapshot of the database, streamed to where they go, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import psycopg

from parity_dagster.exporting.destinations import NewFile, NewFolder, OpenStream
from parity_dagster.exporting.parquet import check_pyarrow, write_parts
from parity_dagster.settings import Settings
from parity_dagster.store.records import (
    Selection,
    Source,
    count_rows,
    find_absent,
    find_source,
    open_snapshot,
    stream_csv,
    stream_jsonl,
    stream_rows,
)
from parity_dagster.store.typed.columns import Kind

_BLOCK = 2**18
"""Bytes that are written at once."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

LineFormat = Literal["csv", "spreadsheet", "jsonl"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is exported."""

    name: str
    """A typed view, or an NSID for the records as they are."""
    selection: Selection
    columns: Sequence[str] | None = None
    """Only these, in this order; None for all."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote."""

    rows: int
    size: int
    """Bytes."""
    absent: Sequence[str]
    """Accounts that were asked for and have no record in the collection."""
    parts: Sequence[str] = ()
    """Names of the files in the folder, if it is one."""


class Watcher(Protocol):
    """Who is told how far an export is."""

    def expect(self, rows: int) -> None:
        """Take how many rows there are; not called if that is not known."""

    def advance(self, rows: int) -> None:
        """Take how many more were written."""


def export_lines(
    wanted: Wanted,
    destination: NewFile | OpenStream,
    form: LineFormat,
    settings: Settings,
    watcher: Watcher | None = None,
) -> Exported:
    """Write rows as CSV, in which null is an empty cell and an empty text is `""`, or as lines of a JSON object each.

    Args:
        form: `spreadsheet` is CSV with a byte order mark, in which a text that would be run as a formula follows a `'`.
        watcher: who wants to know how far it is.

    Raises:
        SettingsError: there is no such view, collection or column, or nothing can be written there.
        DatabaseError: PostgreSQL cannot be read.
        OSError: it cannot be written to its end.
    """
    selection = wanted.selection
    with open_snapshot(settings) as conn:
        source = find_source(conn, settings, wanted.name)
        # a line of JSON stands for itself, so it says which collection it is of
        is_record = form == "jsonl" and wanted.columns is None
        source = source.as_records() if is_record else source.choose(wanted.columns)
        with destination.open() as out:
            absent = _begin(conn, source, selection, watcher)
            if form == "jsonl":
                lines = stream_jsonl(conn, source, selection)
            else:
                lines = stream_csv(conn, source, selection, for_spreadsheets=form == "spreadsheet")
            with closing(lines):
                size = 0
                if form != "jsonl":
                    titles = (_BYTE_ORDER_MARK if form == "spreadsheet" else b"") + next(lines)
                    size += len(titles)
                    out.write(titles)
                rows = 0
                for block in _blocks(lines):
                    text = b"".join(block)
                    out.write(text)
                    size += len(text)
                    rows += len(block)
                    if watcher is not None:
                        watcher.advance(len(block))
    return Exported(rows, size, absent)


def export_parquet(
    wanted: Wanted, destination: NewFolder, settings: Settings, watcher: Watcher | None = None
) -> Exported:
    """Write rows as Parquet files of 200,000 rows each, with the types that frames of `read_records` have.

    Lists of texts are lists, and JSON is its text. No rows are one file without any.

    Args:
        watcher: who wants to know how far it is.

    Raises:
        SettingsError: there is no such view, collection or column, nothing can be written there, or pyarrow is missing.
        DatabaseError: PostgreSQL cannot be read.
        OSError: it cannot be written to its end.
    """
    check_pyarrow()
    selection = wanted.selection
    with open_snapshot(settings) as conn:
        source = find_source(conn, settings, wanted.name).choose(wanted.columns)
        kinds: dict[str, Kind] = {name: kind for name, (kind, _) in source.columns.items()}
        with destination.open() as folder:
            absent = _begin(conn, source, selection, watcher)
            with closing(stream_rows(conn, source, selection)) as rows:
                advance = (lambda count: None) if watcher is None else watcher.advance
                parts = list(write_parts(rows, kinds, folder, advance))
    names = [part.name for part in parts]
    return Exported(sum(part.rows for part in parts), sum(part.size for part in parts), absent, names)


def _begin(conn: psycopg.Connection[Any], source: Source, selection: Selection, watcher: Watcher | None) -> list[str]:
    """Count the rows, if somebody wants to know, and find the accounts that have none."""
    # of those since a time, counting takes as long as reading
    if watcher is not None and selection.since is None:
        watcher.expect(count_rows(conn, source, selection))
    return find_absent(conn, source, selection.dids) if selection.dids else []


def _blocks(lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    block: list[bytes] = []
    size = 0
    for line in lines:
        block.append(line)
        size += len(line)
        if size >= _BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block
