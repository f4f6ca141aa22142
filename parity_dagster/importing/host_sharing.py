"""Hosts that several processes read at the same moment, wherever they run: each asks for its share of what one may."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

from psycopg import AsyncConnection

from parity_dagster.atproto.ratelimit import CHANGING_SECONDS, HostLimiters, Share
from parity_dagster.errors import DatabaseError
from parity_dagster.importing.claims import Claims
from parity_dagster.store.hosts import Readers, enter_host, find_readers, leave_hosts
from parity_dagster.store.sessions import Database

Enter = Callable[[str], Awaitable[None]]
"""Has to be called with a host before it is asked; a host that was entered already costs nothing."""

LOOK_SECONDS = 1.0
"""Seconds between two looks at who else reads our hosts."""
LINGER_SECONDS = 5.0
"""Seconds that a host stays ours after the last walk; the next pair of it often follows at once."""


class HostSharing:
    """The hosts of one importer."""

    def __init__(self, database: Database, claims: Claims, limiters: HostLimiters) -> None:
        self._database = database
        self._claims = claims
        self._limiters = limiters  # those of all importers of this service
        self._walks: Counter[str] = Counter()
        self._entered: dict[str, asyncio.Future[None]] = {}
        self._left_at: dict[str, float] = {}

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Enter]:
        """Be one of those who read the hosts that are entered, of which an account that has moved needs two."""
        entered: set[str] = set()
        async with AsyncExitStack() as stack:

            async def enter(host: str) -> None:
                if host not in entered:
                    await stack.enter_async_context(self._reading(host))
                    entered.add(host)

            yield enter

    @asynccontextmanager
    async def _reading(self, host: str) -> AsyncIterator[None]:
        """Read one host; the first walk of it waits until the others know."""
        self._walks[host] += 1
        self._left_at.pop(host, None)
        try:
            if host not in self._entered:
                self._entered[host] = entering = asyncio.ensure_future(self._enter(host))
                self._limiters.enter(host)
                entering.add_done_callback(lambda done: self._forget_failed(host, done))
            await asyncio.shield(self._entered[host])
            yield
        finally:
            self._walks[host] -= 1
            if not self._walks[host]:
                del self._walks[host]
                self._left_at[host] = time.monotonic()

    async def watch(self) -> None:
        """Keep looking who else reads the hosts; runs until cancelled."""
        try:
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                with suppress(DatabaseError):  # whoever needs the database next says so
                    if self._entered:
                        await self._leave_quiet_ones()
                        await self._look()
        finally:
            entered, self._entered = self._entered, {}
            for host, entering in entered.items():
                entering.cancel()
                self._limiters.leave(host)

    async def _enter(self, host: str) -> None:
        await self._database.run(partial(self._note, host))
        readers = await self._look(host)
        if any(reader.every > 1 for reader in readers):
            await asyncio.sleep(CHANGING_SECONDS)  # those who are there take back what is now ours

    async def _note(self, host: str, conn: AsyncConnection) -> None:
        await enter_host(conn, self._claims.importer_id, self._limiters.name, host)

    def _forget_failed(self, host: str, entering: asyncio.Future[None]) -> None:
        if (entering.cancelled() or entering.exception() is not None) and self._entered.get(host) is entering:
            del self._entered[host]  # the next walk tries again
            self._limiters.leave(host)

    async def _look(self, only: str | None = None) -> list[Readers]:
        readers = await self._database.run(lambda conn: find_readers(conn, self._limiters.name, only))
        for host, before, every, seconds in readers:
            self._limiters.share(host, Share(before, every).at(self._limiters.max_concurrency, seconds))
        if only is not None:
            return readers
        noted = {reader.host for reader in readers}
        for host, entering in list(self._entered.items()):
            if entering.done() and host not in noted:  # the claims' session was lost for a while
                await self._database.run(partial(self._note, host))
        return readers

    async def _leave_quiet_ones(self) -> None:
        until = time.monotonic() - LINGER_SECONDS
        quiet = [host for host, at in self._left_at.items() if at < until and host not in self._walks]
        if not quiet:
            return
        for host in quiet:
            del self._left_at[host]
            if self._entered.pop(host, None) is not None:
                self._limiters.leave(host)
        await self._database.run(lambda conn: leave_hosts(conn, self._claims.importer_id, quiet))
