"""The PLC directory and its mirrors: asked in turn, each at its pace, and left out while they fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from parity_dagster.atproto.xrpc import TRIES, XrpcClient, XrpcError
from parity_dagster.errors import TransientError

if TYPE_CHECKING:
    from parity_dagster.atproto.http import HttpResponse

PLC_RATE = 20.0
"""Requests per second sent to a directory, which publishes no limit but throttles bulk readers; one on this machine is
asked as fast as it answers."""
REST = 15.0
"""Seconds for which a mirror that failed is left out; doubled by each further failure in a row."""
LONGEST_REST = 240.0
SHORT_WAIT = 1.0
"""Seconds that a mirror's rate limit may hold up a question which another one could answer."""

Answer = TypeVar("Answer")


class Mirror:
    """One server that has the directory."""

    def __init__(self, url: str, rate: float | None) -> None:
        self.url = url
        is_local = urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
        self._interval = 1 / rate if rate else 0.0 if is_local else 1 / PLC_RATE
        self._next = 0.0
        self._failures = 0
        self.rests_until = 0.0
        """Monotonic time until which others are asked first."""

    async def turn(self) -> None:
        """Wait until the pace allows a request."""
        if not self._interval:
            return
        now = time.monotonic()
        turn = self._next = max(self._next + self._interval, now)
        await asyncio.sleep(turn - now)

    def answered(self) -> None:
        """Take it in again."""
        self._failures, self.rests_until = 0, 0.0

    def failed(self) -> None:
        """Leave it out for a while; failures of questions that were under way together count once."""
        now = time.monotonic()
        if self.rests_until <= now:
            self.rests_until = now + min(REST * 2.0**self._failures, LONGEST_REST)
            self._failures += 1


class PlcDirectory:
    """All mirrors, as one event loop sees them.

    Args:
        urls: at least one.
        rate: requests per second to each; `PLC_RATE` if None.
    """

    def __init__(self, xrpc: XrpcClient, urls: Sequence[str], rate: float | None = None) -> None:
        self._xrpc = xrpc
        self._mirrors = [Mirror(url.rstrip("/"), rate) for url in urls]
        self._first = 0

    def __len__(self) -> int:
        return len(self._mirrors)

    async def ask(
        self,
        path: str,
        read: Callable[[str, HttpResponse | XrpcError], Answer],
        params: Mapping[str, str] | None = None,
        *,
        max_bytes: int,
        is_enough: Callable[[list[Answer]], bool] = bool,
    ) -> list[Answer]:
        """Ask one mirror after the other until they have said enough.

        Args:
            path: begins with a slash.
            read: makes an answer of what a mirror (its URL) has sent; a `TransientError` of it is the mirror's failure.
            is_enough: of the answers so far; one will do if not given.

        Returns:
            The answers, each of another mirror, in the order they were given: at least one, and not enough of them only
            if nobody else could be asked.

        Raises:
            TransientError: none could be asked.
        """
        answers: list[Answer] = []
        failure: TransientError | None = None
        order = self._in_turn()
        for mirror in order:
            is_last = mirror is order[-1]
            await mirror.turn()
            try:
                # Whoever is not the last resort is given up at its first failure.
                sent: HttpResponse | XrpcError = await self._xrpc.get(
                    mirror.url,
                    path,
                    params,
                    max_bytes=max_bytes,
                    tries=TRIES if is_last else 1,
                    longest_wait=None if is_last and not answers else SHORT_WAIT,
                )
            except XrpcError as refusal:
                sent = refusal
            except TransientError as exc:
                mirror.failed()
                failure = exc
                continue
            try:
                answers.append(read(mirror.url, sent))
            except TransientError as exc:
                mirror.failed()
                failure = exc
                continue
            mirror.answered()
            if is_enough(answers):
                break
        if not answers:
            assert failure is not None
            raise failure
        return answers

    def _in_turn(self) -> list[Mirror]:
        """All mirrors, each time beginning with another one; those that rest come last, who is back soonest first."""
        first = self._first = (self._first + 1) % len(self._mirrors)
        now = time.monotonic()
        order = self._mirrors[first:] + self._mirrors[:first]
        limiters = self._xrpc.limiters

        def rest(mirror: Mirror) -> tuple[bool, float]:
            left = max(mirror.rests_until - now, 0.0)
            return left > 0 or limiters.of(mirror.url).is_resting, left

        return sorted(order, key=rest)
