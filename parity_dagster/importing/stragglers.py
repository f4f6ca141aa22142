"""Long walks make room: a run that has nothing else left interrupts them, cursor kept.

A list that never ends, each page one new record and just in time, would otherwise keep its run for ever, and with it
one of the few places that runs have. An account that is really that large gets on in every run it is part of, and is
complete after several.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from parity_dagster.errors import Interrupted
from parity_dagster.importing.pair_task import PairTask

GOES_ON = "what was read is kept, the queue goes on with it last, `parity import --resume` now"
"""What becomes of an interrupted pair."""
WATCH_SECONDS = 5.0
"""Seconds between two looks at what is still walking, at most."""


@dataclass(slots=True)
class _Walking:
    since: float = field(default_factory=time.monotonic)
    request: asyncio.Timeout | None = None
    is_over: bool = False


class Stragglers:
    """The walks of an importer that are under way.

    Args:
        patience: seconds a walk may take before it is one that others need not wait for; None lets each take as long
            as it takes.
    """

    def __init__(self, patience: float | None) -> None:
        self._patience = patience
        self._walking: dict[int, _Walking] = {}

    def would_interrupt_again(self, task: PairTask) -> bool:
        """Whether a pair was interrupted before, and what is begun anew and takes as long again would never be done."""
        return bool(self._patience) and task.claim.state.error_code == Interrupted.code

    @contextmanager
    def walking(self, task: PairTask) -> Iterator[None]:
        """Note that a pair has got its turn with its host."""
        self._walking[task.claim.state.id] = _Walking()
        try:
            yield
        finally:
            del self._walking[task.claim.state.id]

    @asynccontextmanager
    async def asking(self, task: PairTask) -> AsyncIterator[None]:
        """A request for a page, the one moment at which a walk is interrupted.

        What came before is on its way to a commit, and one that waits for its host's rate limit need not be waited for.
        """
        walking = self._walking[task.claim.state.id]
        if walking.is_over:
            raise self._interrupted(task)
        try:
            async with asyncio.timeout(None) as walking.request:
                yield
        except TimeoutError:
            if not walking.is_over:
                raise
            raise self._interrupted(task) from None
        finally:
            walking.request = None

    async def watch(self) -> None:
        """Interrupt the walks under way whenever all of them have had their time; runs until cancelled.

        As long as one of them has not, the run is of use anyhow. Pairs that wait for their host's turn come next.
        """
        if not self._patience:
            return
        while True:
            await asyncio.sleep(min(WATCH_SECONDS, self._patience / 4))
            since = time.monotonic() - self._patience
            if any(one.since > since for one in self._walking.values()):
                continue
            for one in self._walking.values():
                one.is_over = True
                if one.request is not None:
                    one.request.reschedule(0)

    def _interrupted(self, task: PairTask) -> Interrupted:
        return Interrupted(
            f"{task.here.pds or task.did} was not done after {self._patience:,.0f} s and made room for others"
            f" (PARITY_STRAGGLER_PATIENCE); {GOES_ON}",
            has_progress=task.has_progress,
        )
