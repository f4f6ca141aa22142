"""A caller's iterable, read on a thread of its own, so that an import never waits for more than it could begin with.

An iterable may take its time, read a pipe, call the service itself, or block for ever. The thread is a daemon and
nobody waits for it: what it is blocked in ends with the process.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Generator, Iterable
from contextlib import suppress
from typing import Generic, TypeVar

Item = TypeVar("Item")

LINGER = 0.01
"""Seconds in which more may come before less than was asked for is taken: one statement for all of a quick iterable."""


class Feed(Generic[Item]):
    """Items of an iterable, taken by the loop that made it.

    Args:
        items: iterated on the feed's thread; a generator that is not read to its end is closed there.
    """

    def __init__(self, items: Iterable[Item], room: int) -> None:
        self._items = items
        self._room = room
        self._waiting: deque[Item] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._has_ended = False
        self._error: BaseException | None = None
        self._loop = asyncio.get_running_loop()
        self._filled = asyncio.Event()
        threading.Thread(target=self._read, name="parity-feed", daemon=True).start()

    async def take(self, limit: int) -> list[Item]:
        """Wait for items: all there are up to `limit`, at least one; none after the iterable's end.

        What the iterable raises is raised here, after the items before it were taken.
        """
        await self._filled.wait()
        if len(self._waiting) < limit and not self._has_ended:
            await asyncio.sleep(LINGER)
        with self._changed:
            taken = [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
            if not self._waiting and not self._has_ended:
                self._filled.clear()  # the next item sets it
            self._changed.notify()
        if not taken and self._error is not None:
            raise self._error
        return taken

    def close(self) -> None:
        """Want nothing more; does not wait for the iterable."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _read(self) -> None:
        error: BaseException | None = None
        try:
            try:
                for item in self._items:
                    if not self._put(item):
                        break
            finally:
                if isinstance(self._items, Generator):
                    self._items.close()
        except BaseException as exc:  # noqa: BLE001 - whatever it is, it belongs to who gave the iterable
            error = exc
        with self._changed:
            self._error = error
            self._has_ended = True
            self._wake()

    def _put(self, item: Item) -> bool:
        with self._changed:
            while len(self._waiting) >= self._room and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                return False
            self._waiting.append(item)
            if len(self._waiting) == 1:
                self._wake()
            return True

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._filled.set)
