"""From pages to committed rows: several pages of several pairs per transaction, events after the commit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

import psycopg
from psycopg import AsyncConnection

from parity_dagster.errors import DatabaseError, PagesMissing, PairBusy, Reason
from parity_dagster.events import ImportCompleted, ImportEvent, ImportFailed
from parity_dagster.importing.batch import Item, PairBatch, by_pair
from parity_dagster.importing.claims import Claims
from parity_dagster.importing.pair_task import FetchedPage, PairTask, WalkEnd
from parity_dagster.importing.retry_policy import after_failure
from parity_dagster.models import ImportResult, ImportState, ImportStatus
from parity_dagster.settings import Settings
from parity_dagster.store.failed_records import find_unstorable
from parity_dagster.store.mapper_tables import REFUSALS, MappedWrite
from parity_dagster.store.pages import PageStore
from parity_dagster.store.postgres_errors import first_line
from parity_dagster.store.sessions import Database, Session
from parity_dagster.store.writes import Ending, LostClaim, UnprovenEnding
from parity_dagster.text import storable

logger = logging.getLogger(__name__)

BATCH_RECORDS = 10_000
"""Records after which a transaction is closed; it is closed before, whenever no page is waiting."""
BATCH_BYTES = 8 * 2**20
QUEUED_BYTES = 16 * 2**20
"""Bytes of pages on their way to a commit, over all pairs; fetching pauses beyond. Full batches of both writers are
half of it, so that more would only cost memory."""

Emit = Callable[[ImportEvent], None]


class ByteGate:
    """Lets pages pass while no more than so many bytes are on their way; one page always may."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._freed = asyncio.Condition()

    async def enter(self, size: int) -> None:
        """Wait for room."""
        async with self._freed:
            await self._freed.wait_for(lambda: not self._used or self._used + size <= self._limit)
            self._used += size

    async def leave(self, size: int) -> None:
        """Give room back."""
        async with self._freed:
            self._used -= size
            self._freed.notify_all()


class Writer:
    """One session with Postgres and the queue in front of it; a pair always goes to the same writer."""

    def __init__(
        self, database: Database, store: PageStore, claims: Claims, gate: ByteGate, emit: Emit, settings: Settings
    ) -> None:
        self._settings = settings
        self._session: Session = database.session(self._prepare)
        self._store = store
        self._claims = claims
        self._gate = gate
        self._emit = emit
        self._queue: asyncio.Queue[Item | None] = asyncio.Queue()

    async def put(self, item: Item) -> None:
        """Queue an item; waits while too many bytes are queued."""
        if isinstance(item, FetchedPage):
            await self._gate.enter(item.size)
        self._queue.put_nowait(item)

    def close(self) -> None:
        """Nothing more will come."""
        self._queue.put_nowait(None)

    async def run(self) -> None:
        """Write until closed."""
        try:
            is_open = True
            while is_open:
                items: list[Item] = []
                item = await self._queue.get()
                records = size = 0
                while True:
                    if item is None:
                        is_open = False
                        break
                    items.append(item)
                    if isinstance(item, FetchedPage):
                        size += item.size
                        records += len(item.rows)
                    else:
                        records += 1
                    if records >= BATCH_RECORDS or size >= BATCH_BYTES or self._queue.empty():
                        break
                    item = self._queue.get_nowait()
                if items:
                    await self._commit(items)
                    await self._gate.leave(size)
        finally:
            await self._session.close()

    async def _commit(self, items: Sequence[Item]) -> None:
        await self._write(by_pair([item for item in items if not item.task.done.is_set()]))

    async def _write(self, batches: list[PairBatch]) -> None:
        try:
            while batches:
                try:
                    ended = await self._session.run(partial(self._save, batches))
                    break
                except LostClaim as exc:
                    batches = await self._without_lost(batches, exc.state_ids)
                except UnprovenEnding as exc:
                    self._fail_unproven(batches, exc.state_ids)
                except REFUSALS as exc:
                    direct = [batch for batch in batches if batch.write.is_direct]
                    if direct and isinstance(exc, psycopg.errors.UniqueViolation):
                        # Something is there already that a first import did not expect: go through the upsert.
                        for batch in direct:
                            batch.write.is_direct = batch.task.is_direct = False
                        continue
                    if not await self._session.run(partial(self._fail_refused, batches)):
                        await self._write_singly(batches, exc)
                        return
            else:
                return
        except DatabaseError as exc:
            for batch in batches:
                self._give_up(batch.task, str(exc), exc.code)
            return
        except Exception as exc:  # noqa: BLE001 - whatever a stranger's data did, it must cost one pair
            await self._write_singly(batches, exc)
            return
        for batch in batches:
            batch.committed()
            for event in batch.progress():
                self._emit(event)
            if batch.write.ending is not None:
                self._finish(batch.task, ended[batch.write.state_id], fetched=batch.has_pages)

    async def _write_singly(self, batches: Sequence[PairBatch], error: Exception) -> None:
        """Write the pairs of a batch that fails for no record's sake one by one; one that fails alone is failed."""
        if len(batches) > 1:
            for batch in batches:
                await self._write([batch])
            return
        (batch,) = batches
        logger.error("a page of %s of %s cannot be written", batch.task.collection, batch.task.did, exc_info=error)
        said = (
            f"PostgreSQL refuses a page ({type(error).__name__}: {storable(first_line(error))}) but none of its"
            " records; please report this"
        )
        # What was committed stays; the row says why nothing follows.
        ending = WalkEnd(batch.task, batch.task.saved, Ending(said, DatabaseError.code), batch.write.attempts + 1)
        (bare,) = by_pair([ending])
        try:
            ended = await self._session.run(partial(self._save, [bare]))
        except Exception:  # noqa: BLE001 - the claim is lost, or so is the database: the row stays as it is
            self._give_up(batch.task, said, DatabaseError.code)
        else:
            self._finish(batch.task, ended[bare.write.state_id], fetched=batch.task.is_started)

    async def _prepare(self, conn: AsyncConnection) -> None:
        await self._store.prepare(conn)
        # A session that had to be opened again means that Postgres was away: the claim's session was lost, too.
        await self._claims.hold()

    async def _save(self, batches: Sequence[PairBatch], conn: AsyncConnection) -> dict[int, ImportState]:
        return await self._store.save(conn, self._claims.importer_id, [batch.write for batch in batches])

    # I12, I15
    async def _without_lost(self, batches: list[PairBatch], lost: set[int]) -> list[PairBatch]:
        """Drop the pairs of a batch that are not ours any more.

        A commit whose answer got lost with the connection looks the same for pairs that ended in it: their rows
        then show exactly what this batch meant to write.
        """
        states = await self._session.run(lambda conn: self._store.find_states(conn, list(lost)))
        for batch in batches:
            if batch.write.state_id not in lost:
                continue
            state = states.get(batch.write.state_id)
            if state is not None and batch.is_written_as(state):
                batch.committed()
                for event in batch.progress():
                    self._emit(event)
                self._finish(batch.task, state, fetched=batch.has_pages)
            else:
                self._give_up(
                    batch.task,
                    "the pair was reset or taken over by another importer; see `parity import-status`",
                    PairBusy.code,
                )
        return [batch for batch in batches if batch.write.state_id not in lost]

    # I2
    def _fail_unproven(self, batches: Sequence[PairBatch], state_ids: set[int]) -> None:
        """A walk whose page rows are not all there has not shown what is missing from the list, and is read again."""
        for batch in batches:
            write = batch.write
            if write.state_id in state_ids:
                pages = write.position.pages
                error = PagesMissing(
                    f"{pages} pages of {write.collection} of {write.did} were read, and parity_walk_pages does not"
                    " hold what all of them showed, so that nothing was deleted or counted; `parity import"
                    " --resume` reads the list again from its first page"
                )
                write.ending, write.attempts = after_failure(error, batch.task.claim.state.attempts, self._settings)

    async def _fail_refused(self, batches: Sequence[PairBatch], conn: AsyncConnection) -> int:
        """Find the values that Postgres refuses, make failed records of them, and return how many there are."""
        found = 0
        for batch in batches:
            bad = await find_unstorable(conn, batch.write.rows)
            found += len(bad)
            batch.fail_records(bad, Reason.REFUSED_BY_POSTGRES)
            write = batch.write
            if not bad and write.mapped:
                rows = MappedWrite(write.did, write.collection, write.mapped)
                bad = await self._store.mapped.find_refused(conn, rows, batch.records)
                found += len(bad)
                batch.fail_records(bad, Reason.MAPPER_REFUSED)
        return found

    def _finish(self, task: PairTask, state: ImportState, *, fetched: bool) -> None:
        result = ImportResult.from_state(state)
        if state.status is ImportStatus.COMPLETED:
            self._emit(ImportCompleted(result, state, fetched, task.seconds))
        else:
            error, code = state.error or "", state.error_code or ""
            self._emit(ImportFailed(task.did, task.collection, error, code, result, state, task.seconds))
        task.done.set()

    def _give_up(self, task: PairTask, error: str, code: str) -> None:
        if task.done.is_set():
            return
        result = ImportResult.from_state(task.claim.state).with_error(error, code)
        self._emit(ImportFailed(task.did, task.collection, error, code, result, None, task.seconds))
        task.done.set()
