"""From pages to committed rows: several pages of several pairs per transaction, events after the commit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

import psycopg
from psycopg import AsyncConnection

from parity_dagster.errors import DatabaseError, PagesMissing
from parity_dagster.events import ImportCompleted, ImportEvent, ImportFailed
from parity_dagster.importing.batch import Fold, Item, fold
from parity_dagster.importing.claims import Claims
from parity_dagster.importing.mappers import REFUSED
from parity_dagster.importing.pair_task import EndItem, Job, PageItem
from parity_dagster.importing.retry_policy import failure
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
        if isinstance(item, PageItem):
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
                batch: list[Item] = []
                item = await self._queue.get()
                records = size = 0
                while True:
                    if item is None:
                        is_open = False
                        break
                    batch.append(item)
                    if isinstance(item, PageItem):
                        size += item.size
                        records += len(item.rows)
                    else:
                        records += 1
                    if records >= BATCH_RECORDS or size >= BATCH_BYTES or self._queue.empty():
                        break
                    item = self._queue.get_nowait()
                if batch:
                    await self._commit(batch)
                    await self._gate.leave(size)
        finally:
            await self._session.close()

    async def _commit(self, batch: Sequence[Item]) -> None:
        await self._write(fold([item for item in batch if not item.job.is_stopped]))

    async def _write(self, folds: list[Fold]) -> None:
        try:
            while folds:
                try:
                    ended = await self._session.run(partial(self._save, folds))
                    break
                except LostClaim as exc:
                    folds = await self._without_lost(folds, exc.state_ids)
                except UnprovenEnding as exc:
                    self._fail_unproven(folds, exc.state_ids)
                except REFUSALS as exc:
                    direct = [item for item in folds if item.write.is_direct]
                    if direct and isinstance(exc, psycopg.errors.UniqueViolation):
                        # Something is there already that a first import did not expect: go through the upsert.
                        for item in direct:
                            item.write.is_direct = item.job.is_direct = False
                        continue
                    if not await self._session.run(partial(self._set_aside, folds)):
                        await self._write_singly(folds, exc)
                        return
            else:
                return
        except DatabaseError as exc:
            for item in folds:
                self._give_up(item.job, str(exc), exc.code)
            return
        except Exception as exc:  # noqa: BLE001 - whatever a stranger's data did, it must cost one pair
            await self._write_singly(folds, exc)
            return
        for item in folds:
            item.settle()
            for event in item.progress():
                self._emit(event)
            if item.write.ending is not None:
                self._finish(item.job, ended[item.write.state_id], fetched=item.has_pages)

    async def _write_singly(self, folds: Sequence[Fold], error: Exception) -> None:
        """Write the pairs of a batch that fails for no record's sake one by one; one that fails alone is failed."""
        if len(folds) > 1:
            for item in folds:
                await self._write([item])
            return
        (item,) = folds
        logger.error("a page of %s of %s cannot be written", item.job.collection, item.job.did, exc_info=error)
        said = (
            f"PostgreSQL refuses a page ({type(error).__name__}: {storable(first_line(error))}) but none of its"
            " records; please report this"
        )
        # What was committed stays; the row says why nothing follows.
        ending = EndItem(item.job, item.job.saved, Ending(said, DatabaseError.code), item.write.attempts + 1)
        (bare,) = fold([ending])
        try:
            ended = await self._session.run(partial(self._save, [bare]))
        except Exception:  # noqa: BLE001 - the claim is lost, or so is the database: the row stays as it is
            self._give_up(item.job, said, DatabaseError.code)
        else:
            self._finish(item.job, ended[bare.write.state_id], fetched=item.job.is_started)

    async def _prepare(self, conn: AsyncConnection) -> None:
        await self._store.prepare(conn)
        # A session that had to be opened again tells that Postgres was away: the claim's session was, too.
        await self._claims.hold()

    async def _save(self, folds: Sequence[Fold], conn: AsyncConnection) -> dict[int, ImportState]:
        return await self._store.save(conn, self._claims.importer_id, [item.write for item in folds])

    # I12, I15
    async def _without_lost(self, folds: list[Fold], lost: set[int]) -> list[Fold]:
        """Drop the pairs of a batch that are not ours any more.

        A commit whose answer got lost with the connection looks the same for pairs that ended in it: their rows
        then show exactly what this batch meant to write.
        """
        states = await self._session.run(lambda conn: self._store.find_states(conn, list(lost)))
        for item in folds:
            if item.write.state_id not in lost:
                continue
            state = states.get(item.write.state_id)
            if state is not None and item.is_written_as(state):
                item.settle()
                for event in item.progress():
                    self._emit(event)
                self._finish(item.job, state, fetched=item.has_pages)
            else:
                self._give_up(
                    item.job,
                    "the pair was reset or taken over by another importer; see `parity import-status`",
                    "busy",
                )
        return [item for item in folds if item.write.state_id not in lost]

    # I2
    def _fail_unproven(self, folds: Sequence[Fold], state_ids: set[int]) -> None:
        """A walk whose page rows are not all there has not shown what is missing from the list, and is read again."""
        for item in folds:
            write = item.write
            if write.state_id in state_ids:
                pages = write.position.pages
                error = PagesMissing(
                    f"{pages} pages of {write.collection} of {write.did} were read, and parity_walk_pages does not"
                    " hold what all of them showed, so that nothing was deleted or counted; `parity import"
                    " --resume` reads the list again from its first page"
                )
                write.ending, write.attempts = failure(error, item.job.claim.state.attempts, self._settings)

    async def _set_aside(self, folds: Sequence[Fold], conn: AsyncConnection) -> int:
        """Find the values that Postgres refuses, keep them as failed records instead, and tell how many there are."""
        found = 0
        for item in folds:
            bad = await find_unstorable(conn, item.write.rows)
            found += len(bad)
            item.reject(bad)
            write = item.write
            if not bad and write.mapped:
                rows = MappedWrite(write.did, write.collection, write.mapped)
                bad = await self._store.mapped.find_refused(conn, rows, item.records)
                found += len(bad)
                item.reject(bad, REFUSED)
        return found

    def _finish(self, job: Job, state: ImportState, *, fetched: bool) -> None:
        job.is_stopped = True
        result = ImportResult.from_state(state)
        if state.status is ImportStatus.COMPLETED:
            self._emit(ImportCompleted(result, state, fetched))
        else:
            self._emit(
                ImportFailed(state.did, state.collection, state.error or "", state.error_code or "", result, state)
            )
        job.report_done()

    def _give_up(self, job: Job, error: str, code: str) -> None:
        if job.is_stopped:
            return
        job.is_stopped = True
        result = ImportResult.from_state(job.claim.state).with_error(error, code)
        self._emit(ImportFailed(job.did, job.collection, error, code, result, None))
        job.report_done()
