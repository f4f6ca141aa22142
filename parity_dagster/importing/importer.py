"""The whole of an import: many pairs at once, hosts kept apart, everything bounded.

pairs ─► claim ─► locate ─► semaphore of the host ─► walk ─► queue of a writer ─► transaction ─► events
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from parity_dagster.atproto.ratelimit import HostLimiters
from parity_dagster.atproto.repo import RepoClient
from parity_dagster.errors import DatabaseError, PairBusy, ParityError
from parity_dagster.events import ImportCompleted, ImportFailed, ImportStarted
from parity_dagster.importing.accounts import Accounts
from parity_dagster.importing.claims import Claims
from parity_dagster.importing.feed import Feed
from parity_dagster.importing.host_sharing import HostSharing
from parity_dagster.importing.mappers import Mappers
from parity_dagster.importing.pair_task import FetchedPage, PairTask, WalkEnd
from parity_dagster.importing.retry_policy import after_failure, unexpected
from parity_dagster.importing.stragglers import Stragglers
from parity_dagster.importing.walk import Walker
from parity_dagster.importing.writer import QUEUED_BYTES, ByteGate, Emit, Writer
from parity_dagster.models import ImportResult, Pair
from parity_dagster.settings import Settings
from parity_dagster.store.mapper_tables import MappedStore
from parity_dagster.store.outbox import EVERYBODY, Recipients
from parity_dagster.store.pages import PageStore
from parity_dagster.store.sessions import Database
from parity_dagster.store.states import Claim, StateStore
from parity_dagster.store.writes import Ending

if TYPE_CHECKING:
    from parity_dagster.importing.archives import Archives

logger = logging.getLogger(__name__)

# What a page waits for on its way, in this order:
#
# 1. the window (WINDOW): so many pairs are claimed and not done; memory does not grow with the length of an import.
# 2. the semaphore of its host (`_hosts`): so many of the host's pairs are walked at once. Depth first, so that pairs
#    are complete one after the other, and a host of thousands of accounts does not leave thousands half read.
# 3. for pages beyond the usual size, LARGE_PAGES (walk.py): one such page may be as large as all others together.
# 4. the limiter of its host (HostLimiter.slot): its rate limits, as many requests as it bears, its rest after failures.
# 5. the semaphore over all hosts (FairSemaphore), for the request alone: PARITY_CONCURRENCY, and no host that is slow
#    holds the places of the others.
# 6. the bytes on their way to a commit (ByteGate, writer.py): a database that is slower than the network slows it down.
# 7. the queue of its writer, always the same for a pair: a pair's pages are committed in the order of its list.

CLAIM_CHUNK = 256
"""Pairs claimed by one statement."""
WINDOW = 4096
"""Pairs claimed and not yet done; what is beyond has not been looked at, so memory does not grow with a run. Large
enough that the pairs of one slow host do not fill it."""
CLOSING_SECONDS = 10.0
"""Seconds that giving the claims back may take at the end; a dead process gives them back, too."""


class Importer:
    """One call of the importer over any number of pairs."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        repo: RepoClient,
        accounts: Accounts,
        limiters: HostLimiters,
        emit: Emit,
        recipients: Recipients = EVERYBODY,
        *,
        run_id: str | None = None,
        refresh: bool = False,
        reread: bool = False,
        patience: float | None = None,
        archives: Archives | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._accounts = accounts
        self._emit = emit
        self._recipients = recipients
        self._refresh = refresh
        self._reread = reread
        self._claims = Claims(database, StateStore(settings.state_table), run_id)
        self._sharing = HostSharing(database, self._claims, limiters)
        self._mappers = Mappers(settings.mappers)
        self._mapped = MappedStore(self._mappers.tables())
        self._stragglers = Stragglers(patience)
        self._archives = archives
        self._walker = Walker(repo, accounts, database, self._stragglers, settings, self._put, archives)
        self._gate = ByteGate(QUEUED_BYTES)
        self._writers: list[Writer] = []
        self._hosts: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(settings.host_concurrency)
        )

    async def run(self, pairs: Iterable[Pair]) -> None:
        """Import distinct pairs, taken as they are needed; each ends with one `ImportCompleted` or `ImportFailed`.

        Raises:
            DatabaseError: there is no database to work with.
            SettingsError: a mapper's table cannot take its rows.
        """
        if self._mapped:
            await self._database.run(self._mapped.prepare)  # a table that cannot be filled is an error before any work
        store = PageStore(self._settings.state_table, self._mapped, self._recipients)
        try:
            await self._claims.open()
            async with asyncio.TaskGroup() as writing:
                self._writers = [
                    Writer(self._database, store, self._claims, self._gate, self._emit, self._settings)
                    for _ in range(self._settings.writers)
                ]
                for writer in self._writers:
                    writing.create_task(writer.run())
                watching = [
                    writing.create_task(self._claims.watch()),
                    writing.create_task(self._stragglers.watch()),
                    writing.create_task(self._sharing.watch()),
                ]
                feed = Feed(pairs, WINDOW)
                try:
                    await self._walk_all(feed)
                finally:
                    feed.close()
                for writer in self._writers:
                    writer.close()
                for task in watching:
                    task.cancel()
        except ExceptionGroup as group:
            error: Exception = group
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            raise error from None
        finally:
            if self._archives is not None:
                self._archives.close()
            # Also when interrupted: what is claimed and not done can be resumed by anybody at once.
            giving_back = asyncio.create_task(self._give_back())
            try:
                await asyncio.shield(giving_back)
            except asyncio.CancelledError:  # interrupted while it did
                await giving_back
                raise

    async def _give_back(self) -> None:
        with suppress(DatabaseError, TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS):
                await self._claims.close()

    async def _walk_all(self, feed: Feed[Pair]) -> None:
        window = asyncio.Semaphore(WINDOW)
        async with asyncio.TaskGroup() as walking:
            while chunk := await feed.take(CLAIM_CHUNK):
                for _ in chunk:
                    await window.acquire()
                claims = await self._claims.take(chunk, refresh=self._refresh, reread=self._reread)
                await self._accounts.prefetch(claim.state.did for claim in claims if claim.is_mine)
                for claim in claims:
                    if claim.is_mine:
                        work = walking.create_task(self._work(claim))
                        work.add_done_callback(lambda _: window.release())
                    else:
                        self._report_untaken(claim)
                        window.release()

    def _report_untaken(self, claim: Claim) -> None:
        state = claim.state
        result = ImportResult.from_state(state)
        if claim.holder is None:
            self._emit(ImportCompleted(result, state, fetched=False))
            return
        error, code = f"{claim.holder} is importing this pair right now; wait for it, or stop it", PairBusy.code
        self._emit(ImportFailed(state.did, state.collection, error, code, result.with_error(error, code), None))

    async def _work(self, claim: Claim) -> None:
        task = PairTask.from_claim(claim)
        attempts = claim.state.attempts
        try:
            ending, attempts = Ending(is_unchanged=not await self._walk(task)), 0
        except ParityError as exc:
            ending, attempts = after_failure(exc, attempts, self._settings)
        except Exception as exc:
            logger.exception("importing %s of %s failed unexpectedly", task.collection, task.did)
            ending, attempts = after_failure(unexpected(exc), attempts, self._settings)
        finally:
            if self._accounts.release(task.did) and self._archives is not None:
                self._archives.forget(task.did)
        if not task.done.is_set():
            await self._writer_of(task).put(WalkEnd(task, task.here, ending, attempts))
            await task.done.wait()

    async def _walk(self, task: PairTask) -> bool:
        """Read a pair to its end; False if there was nothing new to read."""
        account = await self._accounts.locate(task.did)
        async with self._hosts[account.pds], self._sharing.reading() as enter:
            await enter(account.pds)
            with self._stragglers.walking(task):
                cursor = task.here.cursor if task.can_continue(account.pds) else None
                task.started_at = time.monotonic()
                self._emit(ImportStarted(task.did, task.collection, account.pds, cursor))
                return await self._walker.walk(task, account, enter)

    async def _put(self, page: FetchedPage) -> None:
        """Take a page from a walk."""
        if page.task.collection in self._mappers:
            self._mappers.apply(page)
        await self._writer_of(page.task).put(page)

    def _writer_of(self, task: PairTask) -> Writer:
        return self._writers[task.claim.state.id % len(self._writers)]
