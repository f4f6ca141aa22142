"""What a benchmark needs around it: a PostgreSQL server, a sample network, and clocks for their processes."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg

from parity_dagster.embedded_postgres import sharing as embedded
from parity_dagster.settings import load_settings
from parity_dagster.store.database import migrate


class Database:
    """The embedded server in a temporary folder, configured as it is for everybody."""

    def __init__(self, home: Path) -> None:
        self.home = home
        embedded.acquire(home)
        migrate(load_settings(home=home))
        self.url = embedded.acquire(home)
        pid = int((embedded.data_folder(home) / "postmaster.pid").read_text().split()[0])
        self._postmaster = psutil.Process(pid)

    def execute(self, *statements: str) -> Any:
        """Run statements; returns the first column of the last one's first row, if it has any."""
        with psycopg.connect(self.url, autocommit=True) as conn:
            for statement in statements:
                cursor = conn.execute(statement)
            row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None

    def reset(self) -> None:
        """Empty every table and write out what the contender before has left, so that it costs the next one nothing."""
        found = self.execute(
            "SELECT string_agg(format('DROP TABLE IF EXISTS %I.%I CASCADE', schemaname, tablename), ';') FROM pg_tables"
            " WHERE tablename IN ('floor_records', 'sdk_records') OR schemaname LIKE 'dlt%'"
        )
        if found:
            self.execute(*found.split(";"))
        self.execute("DROP SCHEMA IF EXISTS dagster CASCADE")
        tables = self.execute(
            "SELECT string_agg(quote_ident(tablename), ', ') FROM pg_tables"
            " WHERE schemaname = 'public' AND tablename NOT IN ('parity_alembic_version', 'parity_state_tables')"
        )
        self.execute(f"TRUNCATE {tables} RESTART IDENTITY")
        self.execute("CHECKPOINT")

    def rewritten(self) -> int:
        """Rows of the records table that were updated or deleted since the statistics began."""
        time.sleep(0.3)  # a session reports what it did when it ends
        return int(
            self.execute("SELECT n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE relname = 'atproto_records'")
        )

    def cpu(self) -> float:
        """CPU seconds of all its processes so far, ended ones included."""
        times = self._postmaster.cpu_times()
        total = times.user + times.system + times.children_user + times.children_system
        for child in self._postmaster.children():
            try:
                used = child.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += used.user + used.system
        return float(total)


@contextmanager
def database() -> Iterator[Database]:
    """A server that is stopped and removed afterwards."""
    home = Path(tempfile.mkdtemp(prefix="parity-bench-"))
    home.chmod(0o755)
    try:
        yield Database(home)
    finally:
        embedded.release(home)
        shutil.rmtree(home, ignore_errors=True)


@dataclass
class Network:
    """A sample network in a process of its own."""

    plc_url: str
    control_url: str
    hosts: dict[str, str]
    dids: list[str]
    process: psutil.Process

    def cpu(self) -> float:
        """CPU seconds so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def control(self, method: str, arguments: dict[str, Any]) -> Any:
        """Call a method of `SampleNetwork` in the served network, or `behave_all_hosts`, or `change_records`."""
        if method == "behave_all_hosts":
            for host in self.hosts:
                self.control("behave", {"host": host, **arguments})
        elif method == "change_records":
            self._change_records(arguments["percent"])
        else:
            return self._open(method, arguments)["result"]
        return None

    def _change_records(self, percent: int) -> None:
        for did, nsid, _ in self._open("counts")["counts"]:
            held = self._open(f"records?did={did}&collection={nsid}")["records"]
            for record in held[:: 100 // percent]:
                value = json.loads(record["value"]) | {"changedAt": time.time_ns()}
                self._open("put_record", {"did": did, "nsid": nsid, "rkey": record["rkey"], "value": value})

    def count_records(self) -> int:
        """Records over all accounts."""
        return sum(count for _, _, count in self._open("counts")["counts"])

    def count_requests(self) -> tuple[int, int]:
        """Requests so far: to all PDSes, and to the directory."""
        asked = self._open("requests")["requests"]
        lookups = sum(count for host, _, _, count in asked if host == "plc")
        return sum(count for *_, count in asked) - lookups, lookups

    def _open(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self.control_url}/control/{path}", data, timeout=30) as answer:
            return json.load(answer)


@contextmanager
def network(shape: str, scale: float) -> Iterator[Network]:
    """A sample network that is stopped afterwards; shape and scale are those of its command line."""
    with tempfile.TemporaryDirectory(prefix="parity-bench-") as folder:
        listing = Path(folder) / "dids"
        command = [sys.executable, "-m", "parity_dagster.sample_network", "--shape", shape, "--scale", str(scale)]
        command += ["--keep-pages", "300"]
        with subprocess.Popen([*command, "--dids-file", str(listing)], stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                told = json.loads(process.stdout.readline())
                dids = listing.read_text().split()
                served = psutil.Process(process.pid)
                yield Network(told["plc_url"], told["control_url"], told["pds_urls"], dids, served)
            finally:
                process.terminate()
                process.wait(15)


def machine() -> str:
    """One line about the machine."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{cores} cores of {model or platform.machine()}, {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}"
    )
