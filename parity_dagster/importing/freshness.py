"""Keeping copies fresh: the stalest are confirmed or queued, whichever way asks the fewest questions.

A host that lists all of its accounts with their revisions (`listRepos`) answers for a thousand of them at a time, so
where we hold many accounts of it, its list is read instead of asking for each; how far it was read is kept. What a list
shows is believed only as far as the revision that an account's host tells (I10) is: a copy is as it was, or its account
is to be asked. Whether an account is gone, and whether one that is not listed is, only the account's own import finds
out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from parity_dagster.atproto.account_lists import AccountList, AccountPage
from parity_dagster.errors import CursorLoop, ParityError, TransientError
from parity_dagster.importing.accounts import remembered
from parity_dagster.importing.retry_policy import unexpected
from parity_dagster.models import Refreshing
from parity_dagster.settings import Settings
from parity_dagster.store.freshness import (
    DueHost,
    Listed,
    ListReading,
    begin_reading,
    count_waiting,
    end_reading,
    find_due_hosts,
    find_readings,
    find_unresolved,
    queue_failed,
    queue_stalest,
    take_page,
)
from parity_dagster.store.identities import CachedIdentity, save_identities
from parity_dagster.store.sessions import Database

if TYPE_CHECKING:
    from collections.abc import Callable

    from parity_dagster.atproto.network import Network

logger = logging.getLogger(__name__)

MOST_WAITING = 2000
"""Pairs that wait to be read again at most: as many as one run imports."""
LISTS_AT_ONCE = 8
"""Hosts whose lists are read side by side."""
FEWEST_ACCOUNTS = 4
"""Accounts of a host that are due and that make a list of unknown length worth a try."""
PAGE_SECONDS = 25.0
"""After which a host's page counts as failed."""
TRIES = 3
"""Failures in a row after which a host's list is given up."""
LEAST_LOOKING = 5.0
"""Seconds for looking up accounts, however long their host has taken."""
_LOOKUPS_AT_ONCE = 50


class Refresher:
    """One look at what is stale, bounded in time and in what it queues.

    Args:
        network: opened when it is first needed: most looks find nothing to ask.
        every: age at which a copy is due.
        seconds: after which nothing new is begun.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        network: Callable[[], Network],
        *,
        every: timedelta,
        seconds: float,
    ) -> None:
        self._table = settings.state_table
        self._collections = settings.collections
        self._database = database
        self._open_network = network
        self._every = every
        self._deadline = time.monotonic() + seconds
        self._room = 0
        self._done = Refreshing()

    async def run(self) -> Refreshing:
        """Confirm and queue what there is time and room for.

        Raises:
            DatabaseError: there is no database to work with; what was committed stays.
        """
        table, collections, every = self._table, self._collections, self._every
        waiting = await self._database.run(lambda conn: count_waiting(conn, table, collections, MOST_WAITING))
        self._room = MOST_WAITING - waiting
        due = await self._database.run(lambda conn: find_due_hosts(conn, table, collections, every))
        hosts = [host.host for host in due]
        readings = await self._database.run(lambda conn: find_readings(conn, table, hosts, every))
        under_way = [reading for reading in readings.values() if reading.is_under_way]
        # Whose lists are to be read and whose turn has not come are not asked one by one meanwhile.
        listed = {reading.host for reading in under_way}
        for host in due:
            most = self._pages_worth(host, readings.get(host.host))
            if most and host.host not in listed:
                listed.add(host.host)
                if len(under_way) < LISTS_AT_ONCE:
                    begin = partial(begin_reading, table=table, host=host.host, most_pages=most, every=every)
                    reading = await self._database.run(begin)
                    under_way += [reading] if reading else []
        if self._room > 0:
            # what lists show to have changed finds room, too
            await self._queue(listed, self._room // 2 if under_way else self._room)
        try:
            async with asyncio.TaskGroup() as tasks:
                for reading in under_way[:LISTS_AT_ONCE]:
                    tasks.create_task(self._read_list(reading))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        return self._done

    def _pages_worth(self, due: DueHost, last: ListReading | None) -> int:
        """How many pages of a host's list may be read before asking its accounts is cheaper; 0 for none."""
        if last is not None and last.is_recent:
            return 0  # what is due all the same was not in it, or it cannot be read
        if last is None or last.needed_pages is None:
            return due.accounts // 2 if due.accounts >= FEWEST_ACCOUNTS else 0
        return due.accounts if last.needed_pages < due.accounts else 0

    async def _queue(self, listed: set[str], most: int) -> None:
        table, collections, every = self._table, self._collections, self._every
        queued = await self._database.run(
            lambda conn: queue_stalest(conn, table, collections, every, without=listed, most=most)
        )
        if queued < most:
            queued += await self._database.run(
                lambda conn: queue_failed(conn, table, collections, every, most=most - queued)
            )
        self._note(queued=queued)

    def _note(self, *, confirmed: int = 0, queued: int = 0, pages: int = 0) -> None:
        done = self._done
        self._done = Refreshing(done.confirmed + confirmed, done.queued + queued, done.pages + pages)
        self._room -= queued

    # Lists of hosts.

    async def _read_list(self, reading: ListReading) -> None:
        """Read a host's list on, as long as there is time, and room for what is to be queued."""
        listed = AccountList(reading.host)
        while self._room > 0 and time.monotonic() < self._deadline:
            asked_at = time.monotonic()
            page = await self._fetch(listed, reading)
            if page is None:
                return
            accounts = [Listed(one.did, one.rev, one.status == "active") for one in page.accounts]
            if not await self._resolve(reading, accounts):
                return
            take = partial(
                take_page,
                table=self._table,
                reading=reading,
                accounts=accounts,
                every=self._every,
                collections=self._collections,
                seconds=time.monotonic() - asked_at,
                following=page.cursor,
            )
            moved = await self._database.run(take)
            if moved is None:
                return
            before, (reading, taken) = reading, moved
            self._note(confirmed=taken.confirmed, queued=taken.queued, pages=1)
            if not reading.is_under_way:
                return
            if reading.cursor in (before.cursor, before.landmark):
                await self._failed(reading, CursorLoop(f"{listed} never ends: a page leads back to an earlier one"))
                return
            if reading.pages >= reading.most_pages:
                too_long = CursorLoop(
                    f"{listed} has more than {reading.pages:,} pages, and we hold fewer accounts of it"
                )
                await self._failed(reading, too_long, needs=2 * reading.pages)
                return

    async def _fetch(self, listed: AccountList, reading: ListReading) -> AccountPage | None:
        """The next page; None if it cannot be had, which is noted."""
        try:
            async with asyncio.timeout(PAGE_SECONDS):
                return await self._open_network().lists.page(listed, reading.cursor)
        except TimeoutError:
            await self._failed(reading, TransientError(f"{reading.host} takes too long to list its accounts"))
        except ParityError as exc:
            await self._failed(reading, exc)
        except Exception as exc:
            logger.exception("listing the accounts of %s failed unexpectedly", reading.host)
            await self._failed(reading, unexpected(exc))
        return None

    async def _failed(self, reading: ListReading, error: ParityError, *, needs: int | None = None) -> None:
        is_over = not error.retryable or reading.failures + 1 >= TRIES
        if is_over:
            logger.warning("the accounts of %s are asked one by one: %s", reading.host, error)
        await self._database.run(
            lambda conn: end_reading(conn, self._table, reading, str(error), is_over=is_over, needs=needs)
        )

    async def _resolve(self, reading: ListReading, accounts: Sequence[Listed]) -> bool:
        """Look up where accounts live that seem to be unchanged, as far as that is not known of the last day.

        Returns:
            False if there was not enough time, and the page is worth to be asked for again.
        """
        unresolved = await self._database.run(
            lambda conn: find_unresolved(conn, self._table, reading, accounts, self._every)
        )
        # Hosts of did:web answer when they please; such accounts are asked themselves.
        dids = [did for did in unresolved if did.startswith("did:plc:")]
        if not dids:
            return True
        found: list[CachedIdentity] = []
        gate = asyncio.Semaphore(_LOOKUPS_AT_ONCE)
        identities = self._open_network().identities

        async def look_up(did: str) -> None:
            async with gate:
                try:
                    identity = await identities.resolve_did(did)
                except ParityError as exc:
                    logger.info("%s is not confirmed: %s", did, exc)
                else:
                    found.append(remembered(identity))

        tasks = [asyncio.create_task(look_up(did)) for did in dids]
        try:
            _, left = await asyncio.wait(tasks, timeout=max(LEAST_LOOKING, self._deadline - time.monotonic()))
        finally:
            for task in tasks:
                task.cancel()
        if found:
            await self._database.run(lambda conn: save_identities(conn, found))
        return not (left and found)
