"""Mappers: what a user's own code says about each record of a collection."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import msgspec

from parity_dagster.atproto.pages import FailedEntry
from parity_dagster.errors import InvalidIdentifier, Reason, SettingsError
from parity_dagster.identifiers import parse_nsid
from parity_dagster.settings import load_object
from parity_dagster.store.mapper_tables import MappedRow, MappedTable

if TYPE_CHECKING:
    from parity_dagster.importing.pair_task import FetchedPage
    from parity_dagster.store.copy_text import Row

_TABLE = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?")
_COLUMN = re.compile(r"[a-z_][a-z0-9_]*")
_KEY = ("did", "collection", "rkey")
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """A record as a mapper sees it."""

    did: str
    collection: str
    rkey: str
    cid: str | None
    value: dict[str, Any]
    """The record's JSON object; a stranger wrote it, so any field may be missing or of any type."""

    @property
    def uri(self) -> str:
        """`at://did/collection/rkey`."""
        return f"at://{self.did}/{self.collection}/{self.rkey}"


class RecordMapper:
    """Decides about the records of one collection, and turns them into rows of a table of the user's.

    Subclass it, override what is needed, and name the class in `PARITY_MAPPERS`. One object serves all imports of
    a process, and its methods run between two pages: they must be quick, must not wait for anything, and must give
    the same answer for the same record.

    Attributes:
        collection: NSID that the mapper is for.
        table: table that `to_row` fills, `name` or `schema.name`; empty if there is none. It needs the columns
            `did, collection, rkey` with a primary key (or unique index) over just these. A foreign key to
            `atproto_records` with ON DELETE CASCADE lets rows go when their record goes.
        columns: further columns that `to_row` gives.
    """

    collection: ClassVar[str] = ""
    table: ClassVar[str] = ""
    columns: ClassVar[tuple[str, ...]] = ()

    def should_import(self, record: SourceRecord) -> bool:
        """Whether a record is wanted; one that is not counts as skipped and is not stored.

        Args:
            record: the record.

        Returns:
            True to import it.
        """
        return True

    def validate(self, record: SourceRecord) -> None:
        """Raise any exception to refuse a record; it is kept as a failed record with the exception's text.

        Args:
            record: a record that is wanted.
        """

    def to_row(self, record: SourceRecord) -> Mapping[str, Any]:
        """The record's row in `table`.

        Args:
            record: a record that is wanted and valid.

        Returns:
            Values by column; a column that is left out is null. Lists fill arrays, or jsonb columns, as does a dict.
        """
        return {}


class SortedPage(NamedTuple):
    """What a mapper made of records."""

    kept: list[Row]
    skipped: list[str]
    """rkeys."""
    failed: list[FailedEntry]
    mapped: list[MappedRow]


class Mappers:
    """The mappers of an importer, by collection; each name is a `package.module:Class`."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._mappers: dict[str, RecordMapper] = {}
        for name in names:
            mapper = load_mapper(name)
            if mapper.collection in self._mappers:
                raise SettingsError(f"PARITY_MAPPERS: {name} is the second mapper for {mapper.collection}; keep one")
            self._mappers[mapper.collection] = mapper

    def __contains__(self, collection: str) -> bool:
        return collection in self._mappers

    def tables(self) -> dict[str, MappedTable]:
        """The tables to fill, by collection."""
        return {
            nsid: MappedTable(mapper.table, mapper.columns) for nsid, mapper in self._mappers.items() if mapper.table
        }

    def apply(self, item: FetchedPage) -> None:
        """Ask the collection's mapper about each record of a page, and move it to where it belongs."""
        sorted_page = self.sort(item.task.did, item.task.collection, item.rows)
        item.rows, item.skipped, item.mapped = sorted_page.kept, sorted_page.skipped, sorted_page.mapped
        item.failed = [*item.failed, *sorted_page.failed]

    def sort(self, did: str, collection: str, rows: Iterable[Row]) -> SortedPage:
        """Ask a collection's mapper about records; each ends in one place, and one that makes it raise costs itself."""
        mapper = self._mappers[collection]
        page = SortedPage([], [], [], [])
        step = ""
        for row in rows:
            rkey, cid, value = row
            try:
                step = "reading the record"
                source = SourceRecord(did, collection, rkey, cid, _decode(value))
                step = "should_import"
                if not mapper.should_import(source):
                    page.skipped.append(rkey)
                    continue
                step = "validate"
                mapper.validate(source)
                if mapper.table:
                    step = "to_row"
                    page.mapped.append(MappedRow(rkey, cid, _row(mapper, source)))
            except Exception as exc:  # noqa: BLE001 - whatever it is, it must cost one record
                page.failed.append(_refused(mapper, step, exc, source_entry(did, collection, row), rkey))
                continue
            page.kept.append(row)
        return page


def _row(mapper: RecordMapper, source: SourceRecord) -> tuple[Any, ...]:
    row = mapper.to_row(source)
    if unknown := row.keys() - set(mapper.columns):
        raise ValueError(f"not among the mapper's columns: {', '.join(sorted(unknown))}")
    return tuple(row.get(column) for column in mapper.columns)


def _refused(mapper: RecordMapper, step: str, error: Exception, body: bytes, rkey: str) -> FailedEntry:
    try:
        text = f"no field {error}" if isinstance(error, KeyError) else str(error)
    except Exception:  # noqa: BLE001 - an exception whose text raises another one
        text = "its text cannot be read"
    return FailedEntry(
        rkey, Reason.MAPPER_REFUSED, f"{type(mapper).__name__}, {step}: {type(error).__name__}: {text}", body
    )


def source_entry(did: str, collection: str, row: Row) -> bytes:
    """A record as it stands in a page: JSON with `uri`, `cid` and `value`, the latter byte for byte."""
    rkey, cid, value = row
    return msgspec.json.encode({"uri": f"at://{did}/{collection}/{rkey}", "cid": cid, "value": msgspec.Raw(value)})


@cache
def load_mapper(name: str) -> RecordMapper:
    """Import a mapper and check that it can work.

    Args:
        name: `package.module:Class`.

    Returns:
        An object of the class.

    Raises:
        SettingsError: the message says what is wrong.
    """
    mapper = load_object("PARITY_MAPPERS", name, call=True)
    if not isinstance(mapper, RecordMapper):
        raise SettingsError(f"PARITY_MAPPERS: {name} is not a subclass of parity_dagster.RecordMapper")
    try:
        parse_nsid(mapper.collection)
    except InvalidIdentifier as exc:
        raise SettingsError(f"PARITY_MAPPERS: the collection of {name}: {exc}") from exc
    if bool(mapper.table) != bool(mapper.columns):
        raise SettingsError(f"PARITY_MAPPERS: {name} needs both a table and its columns, or neither")
    if mapper.table and not _TABLE.fullmatch(mapper.table):
        raise SettingsError(f"PARITY_MAPPERS: {name}: {mapper.table!r} is not a table's name; write it in lower case")
    if wrong := [column for column in mapper.columns if not _COLUMN.fullmatch(column) or column in _KEY]:
        raise SettingsError(
            f"PARITY_MAPPERS: {name}: {wrong[0]!r} cannot be one of its columns (did, collection and rkey are filled"
            " in by the importer; names are in lower case)"
        )
    return mapper
