"""The tables of docs/operations.md, and which part of them is measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.sizing.accounts import COLLECTIONS, MEAN, MEDIAN, Kinds
from benchmarks.sizing.measured import Measured
from benchmarks.sizing.simulation import ACCOUNTS_PER_RUN, LOOK, PAGES, REPOSITORIES, Outcome, Way
from parity_dagster.atproto.directory import PLC_RATE
from parity_dagster.orchestration.queue import OPEN_BATCHES
from parity_dagster.settings import Settings

BEGIN, END = "<!-- sizing: written by `python -m benchmarks.sizing --write` -->", "<!-- end of sizing -->"
RUN_GIB, OTHERS_GIB = 0.25, 1.0
"""Memory of a run, and of daemon and webserver, as docs/deploy.md has them."""
WORKER_RUNS = 2
"""Of a worker of Celery at a time; without Celery, the daemon's machine executes them."""
RUN_CONNECTIONS, OTHER_CONNECTIONS = 11, 20
"""Of a run at most, and of daemon and webserver."""
IDENTITY_BYTES = 200
"""What is known of an account (docs/directory.md)."""
EVENT_BYTES = 3 * 1024
"""Of Dagster's event log, per pair of accounts that are partitions."""
_PARTITIONS = int(Settings.model_fields["partition_limit"].default)


@dataclass(frozen=True)
class Sized:
    """One row: an import of so many accounts, with the fewest runs that are nearly as fast as any number.

    Attributes:
        where: who lives where, in words.
    """

    accounts: int
    where: str
    way: Way
    outcome: Outcome

    def gigabytes(self, measured: Measured) -> float:
        """What the database holds afterwards."""
        pairs = self.accounts * COLLECTIONS
        events = min(self.accounts, _PARTITIONS) * COLLECTIONS * EVENT_BYTES
        rows = self.outcome.records * measured.record_bytes + pairs * measured.pair_bytes
        return (rows + events + self.accounts * IDENTITY_BYTES) / 1e9


def lines(rows: Sequence[Sized], paces: dict[str, dict[int, float]], kinds: Kinds, measured: Measured) -> Iterator[str]:
    """Everything, in Markdown."""
    yield from _hosts(paces, kinds)
    yield ""
    yield from _imports(rows, measured)
    yield ""
    yield from _notes(rows, measured)


def _hosts(paces: dict[str, dict[int, float]], kinds: Kinds) -> Iterator[str]:
    average = float(kinds.requests.mean())
    median = float(sorted(kinds.requests)[len(kinds.requests) // 2])
    readers = sorted({count for found in paces.values() for count in found})
    yield "Accounts per hour of one host that limits as the reference PDS does (simulated):"
    yield ""
    yield (
        "| "
        + " | ".join(["runs at a time", *(f"{way.name}: requests/s" for way in (PAGES, REPOSITORIES))])
        + (f" | pages: accounts of {MEDIAN} records | pages: of {MEAN} on average | repositories: any |")
    )
    yield "|--:|--:|--:|--:|--:|--:|"
    for count in readers:
        slow, fast = paces[PAGES.name][count], paces[REPOSITORIES.name][count]
        yield (
            f"| {count} | {slow:.1f} | {fast:.1f} | {_round(slow * 3600 / median):,} |"
            f" {_round(slow * 3600 / average):,} | {_round(fast * 3600):,} |"
        )


def _imports(rows: Sequence[Sized], measured: Measured) -> Iterator[str]:
    yield f"A first import of {COLLECTIONS} collections of each account, {MEAN} records on average (simulated):"
    yield ""
    yield (
        "| accounts | read by | time | requests | runs at a time | workers | cores: runs | PostgreSQL"
        " | memory beside PostgreSQL, GiB | connections | database, GB |"
    )
    yield "|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for row in rows:
        found = row.outcome
        yield (
            f"| {row.accounts:,}{row.where} | {row.way.name} | {_time(found.seconds)} | {_round(found.requests):,} |"
            f" {found.runs} | {math.ceil(found.runs / WORKER_RUNS)} |"
            f" {found.cpu / found.seconds:.1f} | {found.stored_cpu / found.seconds:.1f} |"
            f" {found.runs * RUN_GIB + OTHERS_GIB:.1f} | {found.runs * RUN_CONNECTIONS + OTHER_CONNECTIONS} |"
            f" {_round(row.gigabytes(measured)):,} |"
        )


def _notes(rows: Sequence[Sized], measured: Measured) -> Iterator[str]:
    known = [row for row in rows if row.accounts >= 1_000_000]
    days = ", ".join(
        f"{_time(count / PLC_RATE)} for {count:,}" for count in dict.fromkeys(row.accounts for row in known)
    )
    yield (
        f"- measured, by importing {measured.accounts} accounts of the sample network both ways while this was written:"
        f" {measured.by_pages:g} requests an account by pages and {measured.by_repositories:g} as a repository, as"
        f" reckoned; {measured.record_bytes:.0f} bytes of the database per record and {measured.pair_bytes:,.0f} per"
        " pair"
    )
    yield (
        f"- the directory is reckoned at {PLC_RATE:.0f} look-ups a second for the smallest import; the larger ones have"
        f" `parity directory sync` behind them, without which look-ups alone take {days}"
    )
    yield (
        f"- the queue makes at most {OPEN_BATCHES} batches of {ACCOUNTS_PER_RUN} accounts every {LOOK:.0f} s, which are"
        f" {OPEN_BATCHES * ACCOUNTS_PER_RUN / LOOK:,.0f} accounts a second whatever runs there are"
    )


def _round(number: float) -> int | float:
    """Two digits that count; a simulation has no more."""
    digits = 1 - math.floor(math.log10(abs(number))) if number else 0
    rounded = round(number, digits)
    return int(rounded) if digits <= 0 else rounded


def _time(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{_round(seconds / size):,} {unit}"
    return f"{_round(seconds):,} s"
