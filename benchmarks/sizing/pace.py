"""What the project's own rate limiters get out of a host that limits: the real ones, on a clock that only counts."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from parity_dagster.atproto.ratelimit import HostLimiters, Share
from parity_dagster.importing.host_sharing import LOOK_SECONDS

WINDOW = 300.0
"""Seconds of the reference PDS's windows."""
_ORIGIN = "https://pds.test"


class CountingLoop(asyncio.SelectorEventLoop):
    """An event loop in which nobody waits: when all sleep, it is at once the moment at which the first one wakes."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_CountingSelector(self))

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self.now


class _CountingSelector(selectors.SelectSelector):
    def __init__(self, loop: CountingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everybody waits for somebody else")
        self._loop.now += max(timeout, 0.0)
        return super().select(0)


@dataclass
class LimitingHost:
    """A host that counts as the reference PDS does, from the first request of a window.

    Attributes:
        limit: requests in a window.
        answered: how many it has answered, refusals not included.
        refused: how many it has refused with 429.
    """

    limit: int
    window: float
    latency: float
    answered: int = 0
    refused: int = 0
    _ends: float = 0.0
    _used: int = field(default=0)

    async def ask(self) -> tuple[int, Mapping[str, str]]:
        """Its status and headers."""
        now = asyncio.get_running_loop().time()
        if now >= self._ends:
            self._ends, self._used = now + self.window, 0
        self._used += 1
        headers = {
            "ratelimit-remaining": str(max(0, self.limit - self._used)),
            "ratelimit-reset": str(self._ends - now),
        }
        is_refused = self._used > self.limit
        self.refused += is_refused
        self.answered += not is_refused
        await asyncio.sleep(self.latency)
        return (429, {**headers, "retry-after": str(self._ends - now)}) if is_refused else (200, headers)


def measure_pace(host: LimitingHost, readers: int, *, places: int, windows: int = 3) -> float:
    """Requests a second that a host answers to so many processes, all of which always have something to ask for.

    Args:
        places: PARITY_HOST_CONCURRENCY.
        windows: how many are counted; the first one, which opens at once, is not.
    """
    random.seed(0)  # the limiters' jitter
    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        return runner.run(_ask_for(host, readers, places, windows))


async def _ask_for(host: LimitingHost, readers: int, places: int, windows: int) -> float:
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        started = []
        for rank in range(readers):
            limiters = HostLimiters(places, clock=loop.time)
            limiters.enter(_ORIGIN)
            started.append(tasks.create_task(_look(limiters, rank, readers)))
            started += [tasks.create_task(_read(host, limiters)) for _ in range(places)]
        await asyncio.sleep(host.window)
        before = host.answered
        await asyncio.sleep(windows * host.window)
        found = (host.answered - before) / (windows * host.window)
        for task in started:
            task.cancel()
    return found


async def _look(limiters: HostLimiters, rank: int, readers: int) -> None:
    """What `HostSharing` does each second with what the database says of the others."""
    while True:
        share = Share(rank, readers).at(limiters.max_concurrency, asyncio.get_running_loop().time())
        limiters.share(_ORIGIN, share)
        await asyncio.sleep(LOOK_SECONDS)


async def _read(host: LimitingHost, limiters: HostLimiters) -> None:
    while True:
        limiter = limiters.of(_ORIGIN)
        async with limiter.slot():
            limiter.answered(*await host.ask())
