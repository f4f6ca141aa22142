"""An event loop on a thread of its own, for callers that know nothing of asyncio.

Only walking, live writing and looking up handles happen here; questions and single statements need no loop. The thread
is a daemon, so that a script which never closes what it used ends all the same; what lives on the loop is closed in
order by `close`, when nobody refers to the `BackgroundLoop` any more, or else when the process ends. A signal's
exception, which Python raises wherever the main thread happens to be, only ever meets a wait here: opening happens on
the thread, too.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 - uvloop loads it, and after a script's last line Python does not any more
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future, wait as wait_for
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from parity_dagster.errors import Interrupted
from parity_dagster.importing.gc_thresholds import relaxed_gc
from parity_dagster.models import DirectorySync, Pair, Refreshing, RetryResult
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect
from parity_dagster.store.sessions import Database

if TYPE_CHECKING:
    from parity_dagster.atproto.network import Network, Transport
    from parity_dagster.importing.live import LiveWriter
    from parity_dagster.importing.writer import Emit
    from parity_dagster.store.outbox import Recipients

Served = TypeVar("Served")
Result = TypeVar("Result")

STOPPING_SECONDS = 15.0
"""Seconds that work which is to stop may take to give back what it holds."""
CLOSING_SECONDS = 5.0
"""Seconds that connections may take to close after that."""


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop that is not running yet: uvloop where it is installed (a fifth less time per page), else asyncio's own."""
    try:
        from parity_dagster.importing.uv_loop import UvLoop
    except ImportError:  # there is none for Windows
        return asyncio.new_event_loop()
    return UvLoop()


class Running(Generic[Result]):
    """Something under way on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None
        self._ended: Future[Result] = Future()

    def result(self) -> Result:
        """Wait for its end; raises what it raised, and `Interrupted` if it was stopped."""
        return self._ended.result()

    def stop(self) -> None:
        """Stop it, and wait until it has given back what it holds."""
        with suppress(RuntimeError):  # the loop has ended, and it with it
            self._loop.call_soon_threadsafe(self._cancel)
            wait_for([self._ended], timeout=STOPPING_SECONDS)

    def _cancel(self) -> None:
        # once only: a second time would hit it while it gives back
        if self._task is not None and not self._task.cancelling():
            self._task.cancel()


class BackgroundLoop(Generic[Served]):
    """Runs coroutines of whatever `open_` makes; opened by the first call, and again after a close or a fork.

    Args:
        open_: called on the thread before its loop runs; may take its time, and raise.
        close: called on the loop at the end with what `open_` returned.
    """

    def __init__(
        self,
        open_: Callable[[], Served],
        close: Callable[[Served], Awaitable[None]] | None = None,
        name: str = "parity-import",
    ) -> None:
        self._open = open_
        self._close = close
        self._name = name
        self._lock = threading.Lock()
        self._life: _Life[Served] | None = None
        _loops.add(self)

    def start(
        self, work: Callable[[Served], Awaitable[Result]], when_done: Callable[[], None] | None = None
    ) -> Running[Result]:
        """Begin something on the loop; `when_done` is called on the loop's thread when it has ended in whatever way."""
        with self._lock:
            if self._life is None or self._life.has_ended:
                self._life = _Life(self._open, self._close, self._name)
            life = self._life
        return life.start(work, when_done)

    def call(self, work: Callable[[Served], Awaitable[Result]]) -> Result:
        """Begin something on the loop and wait for its result."""
        return self.start(work).result()

    def must_not_be_inside(self) -> None:
        """Refuse (`RuntimeError`) to wait on the loop's own thread."""
        if (life := self._life) is not None:
            life.must_not_be_inside()

    def close(self) -> None:
        """Stop what is under way, close what lives on the loop and end the thread."""
        with self._lock:
            life, self._life = self._life, None
        if life is not None:
            life.end()
            life.join(STOPPING_SECONDS + CLOSING_SECONDS)

    def forget(self) -> None:
        """Begin anew in a fork, which has the objects but neither the thread nor the connections behind them."""
        self._lock = threading.Lock()
        self._life = None

    def __del__(self) -> None:
        # wherever the garbage collector found it: no waiting here
        if self._life is not None:
            self._life.end()


class _Life(Generic[Served]):
    """One thread, from its opening to its end."""

    def __init__(
        self, open_: Callable[[], Served], close: Callable[[Served], Awaitable[None]] | None, name: str
    ) -> None:
        self._open = open_
        self._close = close
        self._lock = threading.Lock()
        self._is_ending = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opened: Future[Served] = Future()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def has_ended(self) -> bool:
        return self._is_ending or (self._opened.done() and self._opened.exception() is not None)

    def start(
        self, work: Callable[[Served], Awaitable[Result]], when_done: Callable[[], None] | None
    ) -> Running[Result]:
        self.must_not_be_inside()
        served = self._opened.result()
        assert self._loop is not None
        running: Running[Result] = Running(self._loop)

        def begin() -> None:
            assert self._loop is not None
            running._task = task = self._loop.create_task(_attend(work, served))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            # by a callback, not in the task: one that is cancelled before its first step runs none of its code
            task.add_done_callback(partial(_deliver, running, when_done))

        with self._lock:
            if self._is_ending:
                raise Interrupted("the service was closed")
            self._loop.call_soon_threadsafe(begin)
        return running

    def end(self) -> None:
        """Let the thread come to its end; does not wait for it."""
        with self._lock:
            if not self._is_ending:
                self._is_ending = True
                if self._loop is not None:
                    with suppress(RuntimeError):  # closed
                        self._loop.call_soon_threadsafe(self._loop.stop)

    def join(self, seconds: float) -> None:
        self.must_not_be_inside()
        # What is still being opened is left to itself: a database that does not answer must hold up nobody's end.
        if self._opened.done():
            self._thread.join(seconds)

    def must_not_be_inside(self) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError(
                "called from the thread that does the import (a mapper's), which would wait for itself for ever; "
                "use a listener, or another ImportService"
            )

    def _run(self) -> None:
        try:
            served = self._open()
            loop = new_event_loop()
        except BaseException as exc:  # noqa: BLE001 - for those who wait
            self._opened.set_exception(exc)
            return
        _lives.add(self)
        # What was registered last is called first: before the end of an embedded server that `open_` started.
        atexit.unregister(_end_all)
        atexit.register(_end_all)
        with self._lock:
            self._loop = loop
        self._opened.set_result(served)
        while not self._is_ending:
            # SystemExit and KeyboardInterrupt of one task get out; they are delivered to whoever waits for that task.
            with suppress(SystemExit, KeyboardInterrupt):
                loop.run_forever()
        try:
            loop.run_until_complete(self._shut_down(served))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()
            _lives.discard(self)

    async def _shut_down(self, served: Served) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            if not task.cancelling():
                task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOPPING_SECONDS)
        if self._close is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSING_SECONDS):
                    await self._close(served)


async def _attend(
    work: Callable[[Served], Awaitable[Result]], served: Served
) -> tuple[Result, None] | tuple[None, BaseException]:
    try:
        return await work(served), None
    except asyncio.CancelledError:
        raise
    except BaseException as exc:  # noqa: BLE001 - also a caller's SystemExit, which is for the caller's thread
        return None, exc


def _deliver(
    running: Running[Result],
    when_done: Callable[[], None] | None,
    task: asyncio.Task[tuple[Result, None] | tuple[None, BaseException]],
) -> None:
    if _is_exiting:
        return  # whoever waits is a daemon thread, which must not wake up to complain
    if task.cancelled():
        running._ended.set_exception(
            Interrupted("stopped before its end; what was committed stays, and it can be resumed")
        )
    elif (ended := task.result())[1] is None:
        running._ended.set_result(ended[0])
    else:
        running._ended.set_exception(ended[1])
    if when_done is not None:
        when_done()


_loops: weakref.WeakSet[BackgroundLoop[Any]] = weakref.WeakSet()
_lives: set[_Life[Any]] = set()
_left_behind: list[object] = []
_is_exiting = False


def _end_all() -> None:
    global _is_exiting
    _is_exiting = True
    deadline = time.monotonic() + STOPPING_SECONDS + CLOSING_SECONDS
    lives = list(_lives)
    for life in lives:
        life.end()
    with suppress(KeyboardInterrupt):  # whoever does not want to wait gets his way
        for life in lives:
            life.join(max(0.0, deadline - time.monotonic()))


def _forget_in_fork() -> None:
    # never collected: their ends would be those of the parent's connections
    _left_behind.extend(_lives)
    _lives.clear()
    for loop in list(_loops):
        _left_behind.append(loop._life)
        loop.forget()


os.register_at_fork(after_in_child=_forget_in_fork)


class Connections:
    """What a service has open on its loop, and what is done with it there."""

    def __init__(self, settings: Settings, database: Database, transport: Transport | None = None) -> None:
        self._database = database
        self._settings = settings
        self._transport = transport
        self._live: LiveWriter | None = None
        self._network: Network | None = None

    @classmethod
    def open(cls, settings: Settings, transport: Transport | None = None) -> Connections:
        """Make sure that there is a database to work with; blocks.

        Raises:
            DatabaseError: no database, or one without this version's tables.
        """
        connect(settings).close()
        return cls(settings, Database(settings), transport)

    async def aclose(self) -> None:
        """Close every connection."""
        if self._network is not None:
            await self._network.aclose()
        if self._live is not None:
            await self._live.close()
        await self._database.close()

    @property
    def network(self) -> Network:
        """What asks others' servers; there is one while the loop runs."""
        if self._network is None:
            # Loaded when the network is first needed: asking for a status must stay quick.
            from parity_dagster.atproto.network import open_network

            self._network = open_network(self._settings, self._transport)
        return self._network

    async def import_pairs(
        self,
        pairs: Iterable[Pair],
        emit: Emit,
        recipients: Recipients,
        *,
        run_id: str | None,
        refresh: bool,
        reread: bool = False,
        patience: float | None,
        source: str,
    ) -> None:
        """Import distinct, checked pairs; after `patience` seconds walks make room, once only long ones are left."""
        from parity_dagster.importing.accounts import Accounts
        from parity_dagster.importing.importer import Importer

        repo = self.network.repos
        archives = None
        accounts = Accounts(self.network.identities, repo, self._database, keep_documents=source == "repo")
        if source == "repo":
            # Loaded when it is asked for: what reads and verifies archives takes its time.
            from parity_dagster.importing.archives import Archives

            archives = Archives(repo, accounts.relocate, max_bytes=self._settings.max_repo_bytes)
        importer = Importer(
            self._settings,
            self._database,
            repo,
            accounts,
            self.network.xrpc.limiters,
            emit,
            recipients,
            run_id=run_id,
            refresh=refresh,
            reread=reread,
            patience=patience,
            archives=archives,
        )
        with relaxed_gc():
            await importer.run(pairs)

    async def refresh_stale(self, every: timedelta, seconds: float) -> Refreshing:
        """See `importing.freshness`."""
        from parity_dagster.importing.freshness import Refresher

        refresher = Refresher(self._settings, self._database, lambda: self.network, every=every, seconds=seconds)
        return await refresher.run()

    async def resolve_handle(self, handle: str) -> str:
        """The DID behind a handle, which is noted to be that account's."""
        from parity_dagster.importing.accounts import remembered
        from parity_dagster.store.identities import save_identities

        found = await self.network.identities.resolve_handle(handle)
        await self._database.run(lambda conn: save_identities(conn, [remembered(found)], verified=True))
        return found.did

    async def sync_directory(
        self, *, everything: bool, again: bool, limit: int | None, on_progress: Callable[[int], None]
    ) -> DirectorySync:
        """See `importing.directory_sync`."""
        from parity_dagster.atproto.export import Export
        from parity_dagster.importing.directory_sync import sync_directory

        export = Export(self.network.directory, allow_private=self._settings.allow_private_hosts)
        return await sync_directory(
            export, self._database, everything=everything, again=again, limit=limit, on_progress=on_progress
        )

    async def retry_failed_records(self, did: str | None) -> RetryResult:
        """See `importing.retry_failed`."""
        from parity_dagster.importing.mappers import Mappers
        from parity_dagster.importing.retry_failed import Retry

        return await Retry(self._database, self._settings.state_table, Mappers(self._settings.mappers)).run(did)

    @property
    def live(self) -> LiveWriter:
        """What writes live events; there is one while the loop runs."""
        if self._live is None:
            from parity_dagster.importing.live import LiveWriter

            self._live = LiveWriter(self._database, self._settings)
        return self._live
