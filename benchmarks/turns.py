"""Running turns: a side in a process of its own, with the clocks of everything around it.

What lives here: one turn, and the rounds of a workload. What must not: what is printed about them.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.capacity import pages_per_second
from benchmarks.sides.work import Work
from benchmarks.surroundings import Database, Network, network
from benchmarks.workloads import Turn, Workload

TURN_TIMEOUT = 240.0
"""Seconds after which a turn is given up."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One turn as it was measured.

    Attributes:
        seconds: wall clock, preparations not included.
        records: handled.
        pages: fetched, 0 if the side does not count them.
        cpu: CPU seconds of the side's process.
        database_cpu: of PostgreSQL's processes.
        server_cpu: of the sample network.
        memory: peak resident size of the side's process, in MB, preparations included.
        rewritten: rows of the records table that were updated or deleted.
        more: what else the side found.
    """

    seconds: float
    records: int
    pages: int
    cpu: float
    database_cpu: float
    server_cpu: float
    memory: float
    rewritten: int
    more: dict[str, Any]


@dataclass(slots=True)
class Results:
    """A workload's turns over all rounds.

    Attributes:
        workload: which.
        scale: of its network.
        pairs: (did, collection) pairs of the whole workload.
        records: records of the whole workload.
        server_limit: pages/s the network served to a raw client.
        turns: measurements by label.
        failures: what went wrong, by label.
    """

    workload: Workload
    scale: float
    pairs: int
    records: int
    server_limit: float
    turns: dict[str, list[Measured]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def median(self, label: str, name: str = "seconds") -> float:
        """Median of a measurement over a turn's rounds.

        Args:
            label: of the turn.
            name: attribute of `Measured`.
        """
        return float(statistics.median(getattr(one, name) for one in self.turns[label]))

    def rate(self, label: str) -> float:
        """Median records per second of a turn; a download counts the records that were on its pages.

        Args:
            label: of the turn.
        """
        return float(statistics.median((one.records or self.records) / one.seconds for one in self.turns[label]))


def run_workload(
    workload: Workload,
    database: Database,
    *,
    rounds: int,
    scale: float,
    tell: Callable[[str], None],
    until: float = math.inf,
) -> Results:
    """All rounds of a workload; in each one, every side has its turn.

    Args:
        workload: what to run.
        database: where to.
        rounds: how often.
        scale: of the network.
        tell: takes lines about the progress.
        until: no round but the first is begun after this moment of the monotonic clock.
    """
    with network(workload.shape, scale) as served:
        hosts = list(served.hosts.values())
        accounts = [(did, hosts[number % len(hosts)]) for number, did in enumerate(served.dids)]
        pairs = [(did, nsid, pds) for did, pds in accounts for nsid in workload.collections]
        results = Results(workload, scale, len(pairs), served.count_records(), 0.0)
        if workload.shape != "latency":  # there it is the wait that is served
            results.server_limit = pages_per_second(pairs, 4000 if rounds > 1 or scale == 1 else 1000)
            tell(f"{workload.name}: the network serves {results.server_limit:,.0f} pages/s to a raw client")
        for number in range(rounds):
            if number and time.monotonic() > until:
                break
            for turn in workload.turns:
                if number >= turn.max_rounds or turn.label in results.failures:
                    continue
                try:
                    one = _take(turn, workload, database, served, accounts)
                except (RuntimeError, subprocess.TimeoutExpired) as exc:
                    results.failures[turn.label] = str(exc)
                    tell(f"{workload.name}: {turn.label} failed: {exc}")
                    continue
                results.turns.setdefault(turn.label, []).append(one)
                tell(
                    f"{workload.name} {number + 1}/{rounds}: {turn.label:<45} {one.seconds:8.2f} s"
                    f" {one.records / one.seconds:10,.0f} records/s, CPU s: own {one.cpu:.1f}"
                    f" database {one.database_cpu:.1f} server {one.server_cpu:.1f}"
                )
        return results


def _take(
    turn: Turn, workload: Workload, database: Database, served: Network, accounts: Sequence[tuple[str, str]]
) -> Measured:
    for method, arguments in turn.network:
        served.control(method, arguments)
    if not turn.keep:
        database.reset()
    taken = list(accounts[: max(1, round(len(accounts) * turn.share))])
    work = Work(database.url, str(database.home), served.plc_url, taken, list(workload.collections), dict(turn.options))
    rewritten = database.rewritten()
    command = [sys.executable, "-m", "benchmarks.sides", turn.side]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(asdict(work)) + "\n")
            process.stdin.flush()
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError("the side ended before it was ready")
            clocks = database.cpu(), served.cpu()
            said, _ = process.communicate("go\n", timeout=TURN_TIMEOUT)
        finally:
            if process.poll() is None:
                process.kill()
    if process.returncode or not said.strip():
        raise RuntimeError(f"the side ended with status {process.returncode}")
    answer = json.loads(said.splitlines()[-1])
    return Measured(
        seconds=answer["seconds"],
        records=answer["records"],
        pages=answer["pages"],
        cpu=answer["cpu"],
        database_cpu=database.cpu() - clocks[0],
        server_cpu=served.cpu() - clocks[1],
        memory=answer["memory"],
        rewritten=database.rewritten() - rewritten,
        more=answer["more"],
    )
