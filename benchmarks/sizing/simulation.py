"""Runs of the queue over hosts that limit: batch after batch, as the queue, Dagster and the importer would do it.

A run takes a batch as soon as it has a place, and ends when the last of these has: its hosts, each of which answers no
faster than its limit allows all runs together; its processor; its places for requests; its longest list, page after
page. Nothing fails.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.sizing.accounts import COLLECTIONS, Kinds, Numbers
from benchmarks.sizing.pace import WINDOW
from parity_dagster.orchestration.queue import OPEN_BATCHES, PAIRS_PER_RUN
from parity_dagster.settings import Settings

ACCOUNTS_PER_RUN = PAIRS_PER_RUN // COLLECTIONS
LOOK = 5.0
"""Seconds from one look at the queue to the next."""
DEQUEUE = 1.0
"""Seconds until Dagster starts a run that may start (dagster.yaml)."""
START = 0.65
"""Seconds from the launch to the first request."""
_DRAWN_AT_ONCE = 50


@dataclass(frozen=True)
class Costs:
    """Processor seconds.

    Attributes:
        account, pair, record: of the run.
        stored_pair, stored_record: of PostgreSQL.
    """

    account: float
    pair: float
    record: float
    stored_pair: float = 0.28e-3
    stored_record: float = 9.5e-6


@dataclass(frozen=True)
class Way:
    """How accounts are read.

    Attributes:
        limit: requests that the reference PDS answers in a window.
        in_flight: most requests of a run at a time.
    """

    name: str
    limit: int
    in_flight: int
    costs: Costs

    @property
    def is_whole(self) -> bool:
        """Whether an account is one request."""
        return self.name == "repositories"


_DEFAULTS = Settings.model_fields
PLACES = int(_DEFAULTS["host_concurrency"].default)
DELAY = _DEFAULTS["page_delay"].default / 1000
_CONCURRENCY = int(_DEFAULTS["concurrency"].default)

# Solved from docs/performance.md: wide (300 pairs, 300,000 records: 3.11 s of the importer, 2.92 s of PostgreSQL) and
# narrow (10,000 pairs, 200,000 records: 16.12 s and 4.69 s). Whole repositories cost 0.7 ms more per account and 10 µs
# more per record, and 0.5 ms less per pair: of the 6 ms of an account of narrow, on a machine of half the speed, 2 ms
# are verified as much as saved.
PAGES = Way("pages", 3000, _CONCURRENCY, Costs(0, 1.4e-3, 9e-6))
REPOSITORIES = Way("repositories", 6000, _CONCURRENCY // 4, Costs(0.7e-3, 0.9e-3, 19e-6))


@dataclass
class Outcome:
    """What so many runs at a time have made of it.

    Attributes:
        pace: requests a second of each host, at most.
        seconds: until the last account is complete.
        cpu, stored_cpu: processor seconds of the runs and of PostgreSQL.
    """

    runs: int
    pace: float
    seconds: float = 0.0
    launched: int = 0
    accounts: int = 0
    records: float = 0.0
    requests: float = 0.0
    cpu: float = 0.0
    stored_cpu: float = 0.0


@dataclass
class _Runs:
    """One number of runs at a time, and the hosts as they find them."""

    outcome: Outcome
    allowed: Numbers
    """When each host has answered all that was asked of it, as its limit goes."""
    busy: Numbers
    """The same, as its places go."""
    directory: float = 0.0
    places: list[float] = field(default_factory=list)
    begun: deque[float] = field(default_factory=lambda: deque([0.0] * OPEN_BATCHES, OPEN_BATCHES))

    def begin(self) -> float:
        """When the next run makes its first request."""
        launched = math.ceil(self.begun[0] / LOOK) * LOOK  # a batch is made when one of those before it was taken up
        started = max(heapq.heappop(self.places), launched) + DEQUEUE
        self.begun.append(started)
        return started + START


@dataclass(frozen=True)
class _Batch:
    hosts: NDArray[np.int64]
    requests: Numbers
    """To each of them."""
    accounts: int
    records: float
    longest: float


def simulate(
    accounts: int,
    shares: Numbers,
    kinds: Kinds,
    way: Way,
    paces: dict[int, float],
    *,
    latency: float,
    look_ups: float | None = None,
) -> list[Outcome]:
    """Import so many accounts, with several numbers of runs at a time.

    Args:
        shares: of the hosts; where an account lives is drawn.
        paces: for each number of runs, the requests a second that a host answers to so many.
        latency: seconds of each answer.
        look_ups: a second, of accounts in the directory; none if all are known from its log.
    """
    found = [
        _Runs(Outcome(runs, pace), np.full(len(shares), -WINDOW), np.zeros(len(shares)), places=[0.0] * runs)
        for runs, pace in paces.items()
    ]
    for batch in _draw(accounts, shares, kinds, way):
        for one in found:
            _run(one, batch, way, latency, look_ups)
    return [one.outcome for one in found]


def _run(runs: _Runs, batch: _Batch, way: Way, latency: float, look_ups: float | None) -> None:
    outcome, hosts = runs.outcome, batch.hosts
    begun = runs.begin()
    # what a host was not asked in the last window is open at once
    allowed = np.maximum(runs.allowed[hosts], begun - WINDOW) + batch.requests / outcome.pace
    busy = np.maximum(runs.busy[hosts], begun) + batch.requests * (latency / PLACES)
    runs.allowed[hosts], runs.busy[hosts] = allowed, busy
    pairs, asked = batch.accounts * COLLECTIONS, float(batch.requests.sum())
    cost = way.costs
    cpu = batch.accounts * cost.account + pairs * cost.pair + batch.records * cost.record
    if look_ups:
        runs.directory = max(runs.directory, begun) + batch.accounts / look_ups
    walk = latency if way.is_whole else batch.longest * (latency + DELAY)
    ended = max(
        float(allowed.max()),
        float(busy.max()),
        begun + max(cpu, asked * latency / way.in_flight, walk),
        runs.directory,
    )
    heapq.heappush(runs.places, ended)
    outcome.seconds = max(outcome.seconds, ended)
    outcome.launched += 1
    outcome.accounts += batch.accounts
    outcome.records += batch.records
    outcome.requests += asked
    outcome.cpu += cpu
    outcome.stored_cpu += pairs * cost.stored_pair + batch.records * cost.stored_record


def _draw(accounts: int, shares: Numbers, kinds: Kinds, way: Way) -> Iterator[_Batch]:
    random = np.random.default_rng(1)
    edges = np.cumsum(shares / shares.sum())
    edges[-1] = 1.0
    sizes = [ACCOUNTS_PER_RUN] * (accounts // ACCOUNTS_PER_RUN)
    if accounts % ACCOUNTS_PER_RUN:
        sizes.append(accounts % ACCOUNTS_PER_RUN)
    for at in range(0, len(sizes), _DRAWN_AT_ONCE):
        yield from _draw_some(random, sizes[at : at + _DRAWN_AT_ONCE], edges, kinds, way)


def _draw_some(
    random: np.random.Generator, sizes: Sequence[int], edges: Numbers, kinds: Kinds, way: Way
) -> Iterator[_Batch]:
    count = sum(sizes)
    of = np.repeat(np.arange(len(sizes)), sizes)
    drawn = random.integers(0, len(kinds.records), count)
    home = np.searchsorted(edges, random.random(count), side="right")
    keys, place = np.unique(of * len(edges) + home, return_inverse=True)
    requests = np.bincount(place, weights=None if way.is_whole else kinds.requests[drawn]).astype(float)
    records = np.bincount(of, weights=kinds.records[drawn])
    starts = np.cumsum([0, *sizes[:-1]])
    longest = np.maximum.reduceat(kinds.longest[drawn], starts)
    bounds = np.searchsorted(keys, np.arange(len(sizes) + 1) * len(edges))
    for number, size in enumerate(sizes):
        part = slice(bounds[number], bounds[number + 1])
        hosts = keys[part] - number * len(edges)
        yield _Batch(hosts, requests[part], size, float(records[number]), float(longest[number]))
