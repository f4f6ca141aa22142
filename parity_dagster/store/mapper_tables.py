"""Rows of the users' own typed tables, written in the transaction of the page they come from.

A row is written only if `atproto_records` holds the very version that it was made from: a page that is older than a
live event changes neither table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.types.json import Json

from parity_dagster.errors import SettingsError
from parity_dagster.store.postgres_errors import REFUSED_DATA, first_line

REFUSALS = (*REFUSED_DATA, psycopg.IntegrityError)
"""What Postgres says about a row that does not fit its table."""


@dataclass(frozen=True, slots=True)
class MappedTable:
    """A table of the user's and the columns that a mapper fills."""

    name: str
    columns: tuple[str, ...]


class MappedRow(NamedTuple):
    """One row: key, the version it was made from, values in the order of the table's columns."""

    rkey: str
    cid: str | None
    values: tuple[Any, ...]


class MappedWrite(NamedTuple):
    """The rows of one pair."""

    did: str
    collection: str
    rows: Sequence[MappedRow]


class MappedStore:
    """Writes to the tables of a run's mappers."""

    def __init__(self, tables: Mapping[str, MappedTable]) -> None:
        self._tables = dict(tables)
        self._incoming = {nsid: sql.Identifier(f"parity_mapped_{n}") for n, nsid in enumerate(self._tables)}
        self._json_columns: dict[str, frozenset[int]] = {}

    def __bool__(self) -> bool:
        return bool(self._tables)

    async def prepare(self, conn: AsyncConnection) -> None:
        """Check the tables, and make a temporary twin of each that upserts go through.

        Raises:
            SettingsError: a table cannot take a mapper's rows; the message says why.
        """
        for collection, table in self._tables.items():
            make = (
                "CREATE TEMPORARY TABLE IF NOT EXISTS {incoming} ON COMMIT DELETE ROWS AS"
                " SELECT did, collection, rkey, NULL::text AS cid, {columns} FROM {table} WITH NO DATA"
            )
            try:
                await conn.execute(self._sql(collection, make))
                await conn.execute(sql.SQL("EXPLAIN ") + self._sql(collection, _MERGE))
                cursor = await conn.execute(self._sql(collection, "SELECT {columns} FROM {table} LIMIT 0"))
            except psycopg.ProgrammingError as exc:
                raise SettingsError(
                    f"the table {table.name} of the mapper for {collection} cannot be filled ({first_line(exc)}); it"
                    " needs the columns did, collection, rkey with a primary key over them, and"
                    f" {', '.join(table.columns)}"
                ) from exc
            types = {"json", "jsonb"}
            self._json_columns[collection] = frozenset(
                n for n, column in enumerate(cursor.description or ()) if column.type_display in types
            )

    async def save(self, conn: AsyncConnection, writes: Iterable[MappedWrite]) -> None:
        """Upsert rows whose records are stored already, in the same transaction; at most one row per record.

        If Postgres refuses a row, the transaction is lost.
        """
        by_collection: dict[str, list[MappedWrite]] = {}
        for write in writes:
            if write.rows:
                by_collection.setdefault(write.collection, []).append(write)
        for collection, of_collection in by_collection.items():
            copy_in = self._sql(collection, "COPY {incoming} FROM STDIN")
            wrapped = self._json_columns[collection]
            async with conn.cursor() as cursor, cursor.copy(copy_in) as copy:
                for write in of_collection:
                    for rkey, cid, values in write.rows:
                        row = _wrap(values, wrapped) if wrapped else values
                        try:
                            await copy.write_row((write.did, collection, rkey, cid, *row))
                        except (psycopg.ProgrammingError, TypeError, ValueError) as exc:
                            # A value that no column could hold, found before Postgres has seen it.
                            raise psycopg.DataError(first_line(exc)) from exc
            await conn.execute(self._sql(collection, _MERGE))
            await conn.execute(self._sql(collection, "TRUNCATE {incoming}"))

    async def find_refused(
        self, conn: AsyncConnection, write: MappedWrite, records: Sequence[tuple[str, str | None, bytes]]
    ) -> dict[str, str]:
        """Find the rows that a table does not take, by trying them and taking everything back.

        Args:
            conn: a prepared session, in no transaction.

        Returns:
            Postgres' reason by rkey; empty if it takes them all.
        """
        bad: dict[str, str] = {}
        async with conn.transaction(force_rollback=True):
            async with conn.cursor() as cursor:
                await cursor.executemany(
                    "INSERT INTO atproto_records (did, collection, rkey, cid, value) VALUES (%s, %s, %s, %s, %s::jsonb)"
                    " ON CONFLICT (did, collection, rkey) DO UPDATE SET cid = EXCLUDED.cid",
                    [(write.did, write.collection, rkey, cid, value.decode()) for rkey, cid, value in records],
                )
            pending = [list(write.rows)]
            while pending:
                part = pending.pop()
                try:
                    async with conn.transaction():
                        await self.save(conn, [write._replace(rows=part)])
                except REFUSALS as exc:
                    if len(part) == 1:
                        bad[part[0].rkey] = first_line(exc)
                    else:
                        middle = len(part) // 2
                        pending += [part[middle:], part[:middle]]
        return bad

    def _sql(self, collection: str, text: str) -> sql.Composed:
        table = self._tables[collection]
        columns = [sql.Identifier(column) for column in table.columns]
        return sql.SQL(text).format(
            table=sql.Identifier(*table.name.split(".")),
            incoming=self._incoming[collection],
            columns=sql.SQL(", ").join(columns),
            set=sql.SQL(", ").join(sql.SQL("{0} = EXCLUDED.{0}").format(column) for column in columns),
            old=sql.SQL(", ").join(sql.SQL("t.{}").format(column) for column in columns),
            new=sql.SQL(", ").join(sql.SQL("EXCLUDED.{}").format(column) for column in columns),
            given=sql.SQL(", ").join(sql.SQL("i.{}").format(column) for column in columns),
        )


# Compared as text, because a type such as json has no equality of its own.
_MERGE = (
    "INSERT INTO {table} AS t (did, collection, rkey, {columns}) SELECT i.did, i.collection, i.rkey, {given}"
    " FROM {incoming} i JOIN atproto_records r USING (did, collection, rkey) WHERE r.cid IS NOT DISTINCT FROM i.cid"
    " ON CONFLICT (did, collection, rkey) DO UPDATE SET {set} WHERE ROW({old})::text IS DISTINCT FROM ROW({new})::text"
)


def _wrap(values: tuple[Any, ...], json_columns: frozenset[int]) -> tuple[Any, ...]:
    return tuple(Json(value) if n in json_columns and value is not None else value for n, value in enumerate(values))
