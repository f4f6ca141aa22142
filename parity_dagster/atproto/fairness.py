"""Sharing what all hosts have in common: the number of requests in flight.

What lives here: who is next. What must not: how fast a single host may be asked (`hosts`).
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FairGate:
    """A semaphore whose free places go to the host that holds the fewest.

    A plain one would be first come, first served: a few hosts that take long for their answers would soon hold all
    places, and every other host would wait for them.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def place(self, host: str) -> AsyncIterator[None]:
        """Wait for a place.

        Args:
            host: who needs it.
        """
        if self._free > 0:
            self._take(host)
        else:
            await self._queue(host)
        try:
            yield
        finally:
            self._give_back(host)

    async def _queue(self, host: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(host, deque()).append(turn)
        try:
            await turn  # whoever leaves takes the place for us
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back(host)
            raise

    def _take(self, host: str) -> None:
        self._free -= 1
        self._held[host] += 1

    def _give_back(self, host: str) -> None:
        self._free += 1
        self._held[host] -= 1
        if not self._held[host]:
            del self._held[host]
        while self._waiting:
            # Of those that hold equally few, the one that has waited since before the others.
            neediest = min(self._waiting, key=lambda name: self._held[name])
            turns = self._waiting.pop(neediest)
            turn = turns.popleft()
            if turns:
                self._waiting[neediest] = turns
            if not turn.done():
                self._take(neediest)
                turn.set_result(None)
                return
