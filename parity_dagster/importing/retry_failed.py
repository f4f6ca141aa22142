"""Trying failed records again, from the bytes that were kept and with today's rules.

Nothing is fetched: a record that its author has corrected is met by the next refresh.
"""

from __future__ import annotations

from functools import partial

from parity_dagster.atproto.pages import FailedEntry, parse_entry
from parity_dagster.errors import Reason
from parity_dagster.importing.mappers import Mappers
from parity_dagster.models import FailedRecord, RetryResult
from parity_dagster.store.failed_records import (
    Retried,
    count_retry,
    next_failed_records,
    skip_failed_record,
    store_failed_record,
)
from parity_dagster.store.mapper_tables import REFUSALS, MappedStore, MappedWrite
from parity_dagster.store.overview import CHANGED
from parity_dagster.store.postgres_errors import first_line
from parity_dagster.store.sessions import Database, Session

CHUNK = 50
"""Records read at a time; each may be some megabytes."""


class Retry:
    """One attempt at the failed records of a project or of one account; what a mapper skips by now fails no more."""

    def __init__(self, database: Database, table: str, mappers: Mappers) -> None:
        self._table = table
        self._mappers = mappers
        self._mapped = MappedStore(mappers.tables())
        self._session: Session = database.session(self._mapped.prepare)

    async def run(self, did: str | None) -> RetryResult:
        """Store those failed records that can be stored now; what was stored before an error stays."""
        stored = left = last = 0
        try:
            while chunk := await self._session.run(
                partial(next_failed_records, table=self._table, did=did, after=last, limit=CHUNK)
            ):
                last = chunk[-1].id
                for failed in chunk:
                    found = await self._store(failed)
                    if isinstance(found, tuple):
                        left += await self._session.run(
                            partial(count_retry, failed=failed, reason=found[0], detail=found[1])
                        )
                    elif found is Retried.WAITS:
                        left += 1
                    else:
                        stored += found is Retried.STORED
            if stored:
                await self._session.run(lambda conn: conn.execute(CHANGED))
        finally:
            await self._session.close()
        return RetryResult(stored, left)

    async def _store(self, failed: FailedRecord) -> Retried | tuple[Reason, str]:
        """Store a record; reason and detail if it still cannot be."""
        if failed.reason == Reason.INVALID_CBOR:
            from parity_dagster.atproto.archive.repository import parse_kept_block

            entry = parse_kept_block(failed.body, failed.did, failed.collection)
        else:
            entry = parse_entry(failed.body, failed.did, failed.collection)
        if isinstance(entry, FailedEntry):
            return entry.reason, entry.detail
        save_more = None
        if failed.collection in self._mappers:
            page = self._mappers.sort(failed.did, failed.collection, [entry])
            if page.failed:
                return page.failed[0].reason, page.failed[0].detail
            if page.skipped:
                return await self._session.run(
                    partial(skip_failed_record, table=self._table, failed=failed, rkey=entry[0])
                )
            write = MappedWrite(failed.did, failed.collection, page.mapped)
            save_more = partial(self._mapped.save, writes=[write])
        try:
            return await self._session.run(
                partial(store_failed_record, table=self._table, failed=failed, row=entry, save_more=save_more)
            )
        except REFUSALS as exc:
            return Reason.REFUSED_BY_POSTGRES, first_line(exc)
