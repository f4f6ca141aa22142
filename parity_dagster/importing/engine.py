"""The service's asynchronous half: an event loop on a thread of its own, and what lives on it.

What lives here: starting and ending that loop, and the one place that wires HTTP, database and pipeline together.
What must not: anything a caller sees.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Collection, Iterable
from concurrent.futures import CancelledError, Future
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from parity_dagster.importing.collector import fewer_collections
from parity_dagster.importing.loop import new_event_loop
from parity_dagster.importing.models import FailedRecord, ImportState, ImportStatus, Pair, RetryResult
from parity_dagster.settings import Settings
from parity_dagster.store.announcements import Ended, Told, find_untold, forget_endings
from parity_dagster.store.database import check_schema, connect
from parity_dagster.store.rejects import find_failed_records
from parity_dagster.store.states import StateStore

if TYPE_CHECKING:
    from parity_dagster.atproto.identity import IdentityResolver
    from parity_dagster.atproto.repo import RepoClient
    from parity_dagster.importing.database import Database
    from parity_dagster.importing.live import LiveWriter
    from parity_dagster.importing.writer import Emit

Result = TypeVar("Result")

ANNOUNCING_PATIENCE = 5.0
"""Seconds that noting "the listeners know" may wait for a database that went away; it can be noted later."""


class Engine:
    """Runs coroutines for a service; opened by the first call, and again after a close or a fork."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._states = StateStore(settings.state_table)
        self._lock = threading.Lock()
        self._stack: AbstractContextManager[BlockingPortal] | None = None
        self._portal: BlockingPortal | None = None
        self._database: Database | None = None
        self._live: LiveWriter | None = None
        self._network: tuple[IdentityResolver, RepoClient, Callable[[], Awaitable[None]]] | None = None
        _engines.add(self)

    def start(
        self, work: Callable[[Engine], Awaitable[Result]], when_done: Callable[[], None] | None = None
    ) -> Future[Result]:
        """Begin something on the loop.

        Args:
            work: called on the loop's thread with this engine.
            when_done: called, on any thread, when it has ended in whatever way.

        Returns:
            Its future.

        Raises:
            DatabaseError: no database, or one without this version's tables.
        """
        portal = self._open()
        future = portal.start_task_soon(work, self)
        if when_done is not None:
            future.add_done_callback(lambda _: when_done())
        return future

    def wait(self, future: Future[Result]) -> None:
        """Wait until something that was cancelled has cleaned up.

        Args:
            future: what was cancelled.
        """
        if self._portal is not None:
            with suppress(RuntimeError, CancelledError):
                self._portal.call(_settle)

    def close(self) -> None:
        """End the loop, its connections and its thread."""
        with self._lock:
            if self._stack is None or self._portal is None:
                return
            stack, portal = self._stack, self._portal
            self._stack = self._portal = None
            portal.call(self._close_all)
            stack.__exit__(None, None, None)

    def _open(self) -> BlockingPortal:
        with self._lock:
            if self._portal is None:
                with connect(self._settings) as conn:
                    check_schema(conn, self._settings)
                from parity_dagster.importing.database import Database

                self._database, self._network, self._live = Database(self._settings), None, None
                self._stack = start_blocking_portal(
                    "asyncio", name="parity-import", backend_options={"loop_factory": new_event_loop}
                )
                self._portal = self._stack.__enter__()
            return self._portal

    def forget(self) -> None:
        """Begin anew in a fork, which has the objects but neither the thread nor the connections behind them."""
        self._lock = threading.Lock()
        if self._portal is not None:
            # Its context manager stops the portal when it is collected, and would wait for ever for the thread.
            self._portal._event_loop_thread_id = None
            _left_behind.append((self._stack, self._portal, self._database, self._network, self._live))
            self._stack = self._portal = self._database = self._network = self._live = None

    async def _close_all(self) -> None:
        if self._network is not None:
            await self._network[2]()
        if self._live is not None:
            await self._live.close()
        if self._database is not None:
            await self._database.close()
        self._network = self._database = None

    # On the loop.

    @property
    def database(self) -> Database:
        """The service's database; there is one while the loop runs."""
        assert self._database is not None
        return self._database

    def _open_network(self) -> tuple[IdentityResolver, RepoClient]:
        if self._network is None:
            # Loaded when the network is first needed: asking for a status must stay quick.
            from parity_dagster.atproto.hosts import HostPaces
            from parity_dagster.atproto.http import HttpClient
            from parity_dagster.atproto.identity import IdentityResolver
            from parity_dagster.atproto.repo import RepoClient
            from parity_dagster.atproto.xrpc import XrpcClient

            http = HttpClient(self._settings)
            xrpc = XrpcClient(http, HostPaces(self._settings.host_concurrency), self._settings.concurrency)
            resolver = IdentityResolver(
                xrpc, plc_url=self._settings.plc_url, allow_private=self._settings.allow_private_hosts
            )
            repo = RepoClient(xrpc, max_page_bytes=self._settings.max_page_bytes)
            self._network = resolver, repo, http.aclose
        return self._network[:2]

    async def run(
        self, pairs: Iterable[Pair], emit: Emit, *, run_id: str | None, refresh: bool, patience: float | None
    ) -> None:
        """Import pairs.

        Args:
            pairs: distinct, checked pairs.
            emit: takes events, on the loop's thread.
            run_id: Dagster run.
            refresh: read complete pairs again.
            patience: seconds after which walks make room, once only long ones are left.
        """
        from parity_dagster.importing.accounts import Accounts
        from parity_dagster.importing.pipeline import Run

        resolver, repo = self._open_network()
        accounts = Accounts(resolver, repo, self.database)
        run = Run(
            self._settings, self.database, repo, accounts, emit, run_id=run_id, refresh=refresh, patience=patience
        )
        with fewer_collections():
            await run.run(pairs)

    async def resolve_handle(self, handle: str) -> str:
        """The DID behind a handle.

        Args:
            handle: a handle.

        Returns:
            The DID.
        """
        return await self._open_network()[0].resolve_handle(handle)

    async def find_states(
        self,
        *,
        did: str | None = None,
        collection: str | None = None,
        statuses: Collection[ImportStatus] | None = None,
    ) -> list[ImportState]:
        """See `StateStore.find`."""
        return await self.database.run(
            lambda conn: self._states.find(conn, did=did, collection=collection, statuses=statuses)
        )

    async def find_resumable(self) -> list[Pair]:
        """See `StateStore.find_resumable`."""
        return await self.database.run(self._states.find_resumable)

    async def reset(self, did: str, collection: str | None) -> int:
        """See `StateStore.reset`."""
        return await self.database.run(lambda conn: self._states.reset(conn, did, collection))

    async def enqueue(self, pairs: list[Pair], *, refresh: bool) -> list[Pair]:
        """See `StateStore.enqueue`."""
        return await self.database.run(lambda conn: self._states.enqueue(conn, pairs, refresh=refresh))

    async def find_failed_records(self, did: str | None) -> list[FailedRecord]:
        """See `store.rejects.find_failed_records`."""
        return await self.database.run(lambda conn: find_failed_records(conn, did=did))

    async def retry_failed_records(self, did: str | None) -> RetryResult:
        """See `importing.retrying`."""
        from parity_dagster.importing.mappers import Mappers
        from parity_dagster.importing.retrying import Retry

        return await Retry(self.database, self._settings.state_table, Mappers(self._settings.mappers)).run(did)

    @property
    def live(self) -> LiveWriter:
        """What writes live events; there is one while the loop runs."""
        if self._live is None:
            from parity_dagster.importing.live import LiveWriter

            self._live = LiveWriter(self.database, self._settings)
        return self._live

    async def find_untold(self, limit: int) -> list[Ended]:
        """See `store.announcements.find_untold`."""
        return await self.database.run(lambda conn: find_untold(conn, self._settings.state_table, limit))

    async def forget_endings(self, told: list[Told]) -> None:
        """See `store.announcements.forget_endings`."""
        await self.database.run(
            lambda conn: forget_endings(conn, self._settings.state_table, told), patience=ANNOUNCING_PATIENCE
        )


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_left_behind: list[object] = []


def _forget_in_fork() -> None:
    for engine in list(_engines):
        engine.forget()


if hasattr(os, "register_at_fork"):  # there are no forks on Windows
    os.register_at_fork(after_in_child=_forget_in_fork)


async def _settle() -> None:
    """Let cancelled tasks of the loop reach their end."""
    current = asyncio.current_task()
    others = [task for task in asyncio.all_tasks() if task is not current and task.cancelling()]
    if others:
        await asyncio.wait(others, timeout=15)
