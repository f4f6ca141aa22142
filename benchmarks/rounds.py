"""The rounds of a workload: each contender in a process of its own, with the clocks of everything around it."""

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
from benchmarks.contenders.task import Task
from benchmarks.environment import Database, Network, network
from benchmarks.workloads import Contender, Workload

TIME_LIMIT = 240.0
"""Seconds after which a contender is given up."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One contender in one round.

    Attributes:
        seconds: wall clock, preparations not included.
        records: handled.
        pages: fetched, 0 if the contender does not count them.
        cpu: CPU seconds of the contender's process.
        database_cpu: of PostgreSQL's processes.
        server_cpu: of the sample network.
        memory: peak resident size of the contender's process, in MB, preparations included.
        rewritten: rows of the records table that were updated or deleted.
        accounts: that it was given.
        requests: to all PDSes, as they counted them.
        lookups: requests to the directory.
        more: what else the contender found.
    """

    seconds: float
    records: int
    pages: int
    cpu: float
    database_cpu: float
    server_cpu: float
    memory: float
    rewritten: int
    accounts: int
    requests: int
    lookups: int
    more: dict[str, Any]


@dataclass(slots=True)
class Results:
    """A workload's measurements over all rounds.

    Attributes:
        scale: of its network.
        pairs: (did, collection) pairs of the whole workload.
        records: records of the whole workload.
        server_limit: pages/s the network served to a raw client.
        measured: a list over the rounds by label.
        failures: what went wrong, by label.
    """

    workload: Workload
    scale: float
    pairs: int
    records: int
    server_limit: float
    measured: dict[str, list[Measured]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def median(self, label: str, name: str = "seconds") -> float:
        """Median of an attribute of `Measured` over the rounds."""
        return float(statistics.median(getattr(one, name) for one in self.measured[label]))

    def rate(self, label: str) -> float:
        """Median records per second; a download counts the records that were on its pages."""
        return float(statistics.median((one.records or self.records) / one.seconds for one in self.measured[label]))

    def per_account(self, label: str, name: str) -> float:
        """Median of an attribute of `Measured` for each account."""
        return float(statistics.median(getattr(one, name) / one.accounts for one in self.measured[label]))


def run_workload(
    workload: Workload,
    database: Database,
    *,
    rounds: int,
    scale: float,
    say: Callable[[str], None],
    until: float = math.inf,
) -> Results:
    """All rounds of a workload; each contender is measured in each of them.

    Args:
        say: takes lines about the progress.
        until: no round but the first is begun after this moment of the monotonic clock.
    """
    with network(workload.shape, scale) as served:
        hosts = list(served.hosts.values())
        accounts = [(did, hosts[number % len(hosts)]) for number, did in enumerate(served.dids)]
        pairs = [(did, nsid, pds) for did, pds in accounts for nsid in workload.collections]
        results = Results(workload, scale, len(pairs), served.count_records(), 0.0)
        if workload.shape not in ("latency", "limited"):  # there it is the wait that is served
            results.server_limit = pages_per_second(pairs, 4000 if rounds > 1 or scale == 1 else 1000)
            say(f"{workload.name}: the network serves {results.server_limit:,.0f} pages/s to a raw client")
        for number in range(rounds):
            if number and time.monotonic() > until:
                break
            for contender in workload.contenders:
                if number >= contender.max_rounds or contender.label in results.failures:
                    continue
                try:
                    one = _measure(contender, workload, database, served, accounts)
                except (RuntimeError, subprocess.TimeoutExpired) as exc:
                    results.failures[contender.label] = str(exc)
                    say(f"{workload.name}: {contender.label} failed: {exc}")
                    continue
                results.measured.setdefault(contender.label, []).append(one)
                say(
                    f"{workload.name} {number + 1}/{rounds}: {contender.label:<45} {one.seconds:8.2f} s"
                    f" {one.records / one.seconds:10,.0f} records/s, CPU s: own {one.cpu:.1f}"
                    f" database {one.database_cpu:.1f} server {one.server_cpu:.1f}, requests {one.requests:,}"
                )
        return results


def _measure(
    contender: Contender, workload: Workload, database: Database, served: Network, accounts: Sequence[tuple[str, str]]
) -> Measured:
    for method, arguments in contender.network:
        served.control(method, arguments)
    if not contender.keep:
        database.reset()
    taken = list(accounts[: max(1, round(len(accounts) * contender.share))])
    task = Task(
        database.url, str(database.home), served.plc_url, taken, list(workload.collections), dict(contender.options)
    )
    rewritten = database.rewritten()
    command = [sys.executable, "-m", "benchmarks.contenders", contender.program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(asdict(task)) + "\n")
            process.stdin.flush()
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError("the contender ended before it was ready")
            clocks, asked = (database.cpu(), served.cpu()), served.count_requests()
            said, _ = process.communicate("go\n", timeout=TIME_LIMIT)
        finally:
            if process.poll() is None:
                process.kill()
    if process.returncode or not said.strip():
        raise RuntimeError(f"the contender ended with status {process.returncode}")
    answer = json.loads(said.splitlines()[-1])
    requests, lookups = served.count_requests()
    return Measured(
        seconds=answer["seconds"],
        records=answer["records"],
        pages=answer["pages"],
        cpu=answer["cpu"],
        database_cpu=database.cpu() - clocks[0],
        server_cpu=served.cpu() - clocks[1],
        memory=answer["memory"],
        rewritten=database.rewritten() - rewritten,
        accounts=len(taken),
        requests=requests - asked[0],
        lookups=lookups - asked[1],
        more=answer["more"],
    )
