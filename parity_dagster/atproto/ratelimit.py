"""How fast one host may be asked: concurrency, rate and rest, learnt from its answers.

The host's own headers are the truth, because its limit counts per address over all of our processes.
"""

from __future__ import annotations

import asyncio
import email.utils
import math
import random
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple
from uuid import uuid4

from parity_dagster.errors import HostPaused, RateLimited


class FairSemaphore:
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
        """Wait for a place."""
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


INITIAL_CONCURRENCY = 4
LONGEST_WAIT = 900.0
"""Seconds an import waits for a rate limit to open; the window of the reference PDS is 300 s."""
LONGEST_ASKED = 86_400.0
"""Most seconds that a host's headers can make us stay away."""
MOST_QUIET = 10_000
"""Hosts remembered before those that are neither asked nor resting are forgotten."""
CLOCKS_AGREE = 3.0
"""Seconds by which a host's clock differs from ours if both are right: it tells whole ones, and the answer travels."""
LONGEST_PAUSE = 30.0
"""Most seconds between two requests that are spread over a window which opens sooner, or has opened since."""
BREAKER_FAILURES = 5
"""Connection failures in a row after which a host is left alone."""
BREAKER_REST = 30.0
"""Seconds a host rests after that, before one request may try again."""


class Share(NamedTuple):
    """The part of a host that one of several processes has, wherever they run."""

    rank: int
    """How many of them come before it."""
    parts: int
    """How many there are."""

    def of(self, places: int) -> int:
        """How many of the places are its own; none if there are more processes than places."""
        return places // self.parts + (self.rank < places % self.parts)

    def at(self, places: int, seconds: float) -> Share:
        """The part at a moment: where there are more processes than places, they take turns.

        Else somebody who has nearly nothing to ask for would wait for all that the others have, and for ever if one of
        these is stopped and not dead. Between two turns, a place that goes to another process is nobody's for a while.

        Args:
            seconds: on a clock that is the same for all of them.
        """
        if self.parts <= places:
            return self
        turn, passed = divmod(seconds, TURN_SECONDS)
        ranks = [(self.rank - int(number) * places) % self.parts for number in (turn, turn + 1)]
        has_place = ranks[0] < places and (ranks[1] < places or passed < TURN_SECONDS - CHANGING_SECONDS)
        return Share(ranks[0], places) if has_place else Share(places, places + 1)


WHOLE = Share(0, 1)
TURN_SECONDS = 10.0
"""How long a process has a place of a host that has not one for each."""
CHANGING_SECONDS = 2.5
"""Seconds in which all of them notice that their shares are others: each looks once a second."""


class HostLimiter:
    """One host's permission to be asked.

    Concurrency starts low, grows by one per round of good answers and halves on a bad one. When few requests
    remain in the host's window they are spread over what is left of it; a 429 stops the host until it says.

    Args:
        clock: seconds, as the event loop counts them.
    """

    def __init__(
        self,
        origin: str,
        max_concurrency: int,
        longest_wait: float = LONGEST_WAIT,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.origin = origin
        self.max_concurrency = max_concurrency
        self.longest_wait = longest_wait
        self._clock = clock
        self._share = WHOLE
        self.concurrency = float(min(INITIAL_CONCURRENCY, max_concurrency))
        self.in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._not_before = 0.0
        self._interval = 0.0
        self._window_ends = 0.0
        self._failures = 0
        self._refusals = 0
        self._refused_since: float | None = None

    @asynccontextmanager
    async def slot(self, longest_wait: float | None = None) -> AsyncIterator[None]:
        """Wait for this host's turn; whoever waits longest comes first.

        Args:
            longest_wait: seconds to wait for its rate limit, if not as long as an import does.

        Raises:
            RateLimited: the host wants a rest longer than an import waits.
            HostPaused: the host has failed too often lately.
        """
        if self.in_flight < self._places and not self._waiting:
            self.in_flight += 1
        else:
            await self._queue()
        try:
            await self._wait_for_rest(self.longest_wait if longest_wait is None else longest_wait)
            yield
        finally:
            self._leave()

    async def _queue(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn  # who wakes us has counted us in already, so that nobody can slip in between
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif turn.done() and not turn.cancelled():
                self._leave()
            raise

    async def _wait_for_rest(self, longest_wait: float) -> None:
        while (rest := self._not_before - self._clock()) > 0:
            if self._failures >= BREAKER_FAILURES:
                raise HostPaused(
                    f"{self.origin} failed {self._failures} times in a row and rests for {rest:.0f} s; "
                    "`parity import --resume` tries again"
                )
            if rest > longest_wait:
                raise RateLimited(f"{self.origin} asks to wait {rest:.0f} s", retry_after=rest)
            if self._refused_since is not None and self._clock() - self._refused_since >= self.longest_wait:
                # Thousands of accounts of one host must not each wait in vain; after the rest, one tries again.
                raise RateLimited(
                    f"{self.origin} has refused every request with 429 for {self.longest_wait:.0f} s and asks to wait"
                    f" {rest:.0f} s more",
                    retry_after=rest,
                )
            # Jitter, so that everybody who waits for one window does not arrive in its first millisecond.
            await asyncio.sleep(rest + random.uniform(0, 0.05 * rest))  # noqa: S311 - not for secrets
        if self._failures >= BREAKER_FAILURES:
            self._rest(BREAKER_REST)  # one request tries whether the host is back; the others go on resting
        elif self._interval:
            # Hosts tell whole seconds, and all who share one would wake up a moment before its window opens.
            opens_in = self._window_ends + 1 - self._clock()
            self._rest(min(self._interval, max(opens_in, LONGEST_PAUSE)))

    @property
    def share(self) -> Share:
        """Which part of the host is ours, of its places as of its rate."""
        return self._share

    @share.setter
    def share(self, share: Share) -> None:
        self._interval *= share.parts / self._share.parts
        self._share = share
        self._admit()

    @property
    def _places(self) -> int:
        return min(max(1, int(self.concurrency)), self._share.of(self.max_concurrency))

    def _leave(self) -> None:
        self.in_flight -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.in_flight < self._places:
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """Learn from an answer."""
        if self._failures >= BREAKER_FAILURES:
            self._not_before = 0.0
        self._failures = 0
        if status == 429:
            if self._not_before <= self._clock():
                self._refusals += 1  # once for all requests that were under way
            if self._refused_since is None:
                self._refused_since = self._clock()
            self.concurrency = max(1.0, self.concurrency / 2)
            self._rest(max(retry_after(headers), min(2.0 ** (self._refusals - 3), 60.0)))
            return
        self._refused_since = None
        if status >= 500:
            self.concurrency = max(1.0, self.concurrency / 2)
            return
        self._refusals = 0
        self.concurrency = min(float(self.max_concurrency), self.concurrency + 1 / self.concurrency)
        remaining, reset = _window(headers)
        # those with whom the host is shared may be about to ask, too
        left = None if remaining is None else remaining - (self._share.parts - 1)
        if left is None or reset is None or reset <= 0 or left >= 2 * self.max_concurrency:
            self._interval = 0.0
        elif left > 0:
            self._interval = self._share.parts * reset / left
            self._window_ends = self._clock() + reset
        else:
            self._rest(reset)  # and then at the former pace, until an answer tells another one

    def slow(self) -> None:
        """Learn from an answer that was given up because it came too slowly: the host is there, with too much to do."""
        self.answered(503, {})

    def failed(self) -> None:
        """Learn from a request that got no answer."""
        self._failures += 1
        self.concurrency = max(1.0, self.concurrency / 2)
        if self._failures >= BREAKER_FAILURES:
            self._rest(BREAKER_REST)

    @property
    def is_in_use(self) -> bool:
        """Whether somebody asks the host or waits for his turn, which he may do while all of its places are others'."""
        return self.in_flight > 0 or bool(self._waiting)

    @property
    def is_resting(self) -> bool:
        """Whether the host is not to be asked for a while, whatever the reason."""
        return self._not_before > self._clock()

    @property
    def is_paused(self) -> bool:
        """Whether the breaker is open: the host failed too often and rests."""
        return self._failures >= BREAKER_FAILURES and self.is_resting

    def _rest(self, seconds: float) -> None:
        self._not_before = max(self._not_before, self._clock() + seconds)


class HostLimiters:
    """The limiters of every host met so far: one, and one more for routes that the host counts by themselves."""

    def __init__(
        self, max_concurrency: int, longest_wait: float = LONGEST_WAIT, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.max_concurrency = max_concurrency
        self.longest_wait = longest_wait
        self._clock = clock
        self._limiters: dict[tuple[str, str], HostLimiter] = {}
        self._shares: dict[str, Share] = {}
        self._readers = Counter[str]()
        self.name = uuid4().hex
        """What tells these limiters from those of other processes, or of other services of this one."""
        self._tidy_at = MOST_QUIET

    def of(self, origin: str, bucket: str = "") -> HostLimiter:
        """The limiter of a host's requests.

        Args:
            origin: the host.
            bucket: names the routes whose limit the host counts by itself; what it says of one bucket slows no other.
        """
        limiter = self._limiters.get((origin, bucket))
        if limiter is None:
            if len(self._limiters) >= self._tidy_at:
                # What a quiet host taught us is cheap to learn again; one that rests would be asked too early.
                self._limiters = {key: old for key, old in self._limiters.items() if old.is_in_use or old.is_resting}
                self._tidy_at = max(MOST_QUIET, 2 * len(self._limiters))
            limiter = HostLimiter(origin, self.max_concurrency, self.longest_wait, clock=self._clock)
            limiter.share = self._shares.get(origin, WHOLE)
            self._limiters[origin, bucket] = limiter
        return limiter

    def enter(self, origin: str) -> None:
        """Note that somebody here shares a host with others from now on."""
        self._readers[origin] += 1

    def leave(self, origin: str) -> None:
        """Note that somebody here does not any more; the last one leaves the host's whole to whom it may concern."""
        self._readers[origin] -= 1
        if not self._readers[origin]:
            del self._readers[origin]
            self.share(origin, WHOLE)

    def share(self, origin: str, share: Share) -> None:
        """Ask a host no more than a share of what it bears, because others ask it, too; as long as somebody here shares
        it, whose leaving may have been quicker than the news."""
        if not self._readers[origin]:
            share = WHOLE
        if share == self._shares.get(origin, WHOLE):
            return  # as nearly always, and an importer of thousands of hosts looks at each of them every second
        if share == WHOLE:
            self._shares.pop(origin, None)
        else:
            self._shares[origin] = share
        for (host, _), limiter in self._limiters.items():
            if host == origin:
                limiter.share = share


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds a 429 asks us to wait.

    Returns:
        `Retry-After` (seconds or an HTTP date), else `RateLimit-Reset`, else 60; at least 1, at most a day.

    Source: RFC 9110 section 10.2.3; the reference PDS sends RateLimit-Reset as epoch seconds.
    """
    seconds = _number(headers, "retry-after")
    if seconds is None:
        until = _moment(headers, "retry-after")
        seconds = _window(headers)[1] if until is None else until - _now(headers)
    return min(max(60.0 if seconds is None else seconds, 1.0), LONGEST_ASKED)


def _window(headers: Mapping[str, str]) -> tuple[int | None, float | None]:
    """Requests left in the host's window and seconds until it opens again."""
    remaining, reset = _number(headers, "ratelimit-remaining"), _number(headers, "ratelimit-reset")
    if reset is not None:
        if reset > 100_000_000_000:  # in milliseconds, as some say it
            reset /= 1000
        if reset > 1_000_000_000:  # an epoch, not a span
            reset -= _now(headers)
        reset = min(max(reset, 0.0), LONGEST_ASKED)
    return (None if remaining is None else int(min(max(remaining, 0.0), 1e9))), reset


def _now(headers: Mapping[str, str]) -> float:
    """Our time, or the host's if the two clocks differ: a machine whose clock is wrong by some minutes would rest for
    so much longer, or not at all. The host's is in whole seconds, so it is not the better one if they agree."""
    ours, told = time.time(), _moment(headers, "date")
    return ours if told is None or abs(told - ours) < CLOCKS_AGREE else told


def _moment(headers: Mapping[str, str], name: str) -> float | None:
    """A header's HTTP date; None if it is missing or none."""
    try:
        return email.utils.parsedate_to_datetime(headers.get(name, "")).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _number(headers: Mapping[str, str], name: str) -> float | None:
    """A header's number; None if it is missing or none to reckon with, as `nan` and `inf` are."""
    try:
        number = float(headers[name])
    except (KeyError, ValueError):
        return None
    return number if math.isfinite(number) else None
