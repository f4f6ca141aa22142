"""Many small accounts through the whole of it: a dropped list, the sensors, the queue, the runs.

`python -m benchmarks.crowd` drops 10,000 accounts × 3 collections with 1 to 30 records each into the inbox of a fresh
project and prints where the time went, what the processes needed, what Dagster's part of it is per pair, how stock
Dagster does with one run per pair, and how fast the UI's partition query answers.

What lives here: this one measurement. What must not: the importer's own (`benchmarks.__main__`).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg

from parity_dagster.store import embedded

PROJECT = Path(__file__).parent.parent
COLLECTIONS = ("app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow")
MARK = "PARITY_CROWD"
ROLES = {
    "run_server": "run server and runs",
    "dagster._daemon": "daemon",
    "dagster_webserver": "webserver",
    "api grpc": "code server",
    "code-server": "code server's proxy",
    "dagster dev": "dagster dev",
    "postgres": "PostgreSQL",
}
CELLS = """{ assetNodeOrError(assetKey: {path: ["atproto", "records"]}) { ... on AssetNode {
  partitionStats { numPartitions numMaterialized numFailed numMaterializing }
  assetPartitionStatuses { ... on MultiPartitionStatuses { ranges { primaryDimStartKey secondaryDim {
    ... on DefaultPartitionStatuses { materializedPartitions failedPartitions } } } } } } } }"""
LAUNCH = """mutation($tags: [ExecutionTag!]!, $repository: String!, $location: String!) { launchRun(executionParams: {
  selector: {jobName: "import_partitions", repositoryName: $repository, repositoryLocationName: $location},
  runConfigData: {}, executionMetadata: {tags: $tags}}) { __typename ... on PythonError { message } } }"""
PLACE = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"
STOCK = """storage:
  postgres:
    postgres_url:
      env: STOCK_URL
telemetry:
  enabled: false
"""


class Processes:
    """The processes of a mark: their processor time and their largest memory."""

    def __init__(self, mark: str, home: Path) -> None:
        self._mark = mark
        self._postmaster = int((embedded.data_folder(home) / "postmaster.pid").read_text().split()[0])
        self._cpu: dict[tuple[int, float], float] = {}
        self._peak: dict[tuple[int, float], tuple[str, float]] = {}

    def look(self) -> None:
        """Take a sample; what ends between two samples counts with its last one."""
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError, ValueError):
                name = process.name()
                if name == "postgres":
                    if self._postmaster not in (process.pid, process.ppid()):
                        continue
                elif process.environ().get(MARK) != self._mark:
                    continue
                key = (process.pid, process.create_time())
                times = process.cpu_times()
                self._cpu[key] = times.user + times.system
                if name != "postgres":
                    status = Path(f"/proc/{process.pid}/status").read_text()
                    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
                    words = " ".join(process.cmdline())
                    role = next((role for part, role in ROLES.items() if part in words), words[:40])
                    self._peak[key] = (role, peak)

    @property
    def cpu(self) -> float:
        """Seconds of all of them together."""
        return sum(self._cpu.values())

    @property
    def peaks(self) -> dict[str, float]:
        """Largest resident memory in MiB by role."""
        peaks: dict[str, float] = {}
        for role, peak in self._peak.values():
            peaks[role] = max(peak, peaks.get(role, 0))
        return peaks


def free_port() -> int:
    """A port nobody listens on, out of those that the system gives to nobody else by itself."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def started(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A program that is ended with everything in its session."""
    process = subprocess.Popen(command, start_new_session=True, text=True, **options)
    try:
        yield process
    finally:
        for signum in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signum)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)


def ask(port: int, query: str, **variables: Any) -> Any:
    """A GraphQL query."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        said = json.load(answer)
    if "errors" in said:
        raise RuntimeError(str(said["errors"])[:500])
    return said["data"]


@contextmanager
def dagster(folder: Path, environment: dict[str, str]) -> Iterator[int]:
    """`dagster dev` in a folder; gives the port of the UI once it answers."""
    port = free_port()
    command = [sys.executable, "-m", "dagster", "dev", "--host", "127.0.0.1", "--port", str(port)]
    with (
        (folder / "dev.log").open("a") as log,
        started(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        deadline = time.monotonic() + 180
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "dev.log").read_text()[-2000:])
            with suppress(OSError, RuntimeError, ValueError):
                if ask(port, PLACE)["repositoriesOrError"].get("nodes"):
                    break
            time.sleep(0.5)
        yield port


def crowd(url: str, environment: dict[str, str], folder: Path, dids: list[str]) -> dict[str, Any]:
    """Drop the list and watch."""
    pairs = len(dids) * len(COLLECTIONS)
    processes = Processes(environment[MARK], Path(environment["PARITY_HOME"]))
    inbox = folder / "inbox"
    inbox.mkdir()
    with dagster(folder, environment), closing(psycopg.connect(url, autocommit=True)) as conn:
        time.sleep(15)  # its own start is over
        processes.look()
        before = processes.cpu
        new = inbox / "dids.part"
        new.write_text("".join(f"{did}\n" for did in dids))
        dropped = time.time()
        new.rename(inbox / "dids.txt")
        queued = 0.0
        done = -1
        while done < pairs:
            time.sleep(1)
            processes.look()
            rows: dict[str, int] = dict(
                conn.execute("SELECT status, count(*) FROM parity_import_states GROUP BY 1").fetchall()
            )
            if not queued and sum(rows.values()) == pairs:
                queued = time.time()
            done = rows.get("completed", 0) + rows.get("failed", 0)
        time.sleep(5)
        processes.look()
        cpu = processes.cpu - before
        (last,) = conn.execute(
            "SELECT extract(epoch FROM max(timestamp)) FROM dagster.event_logs"
            " WHERE dagster_event_type = 'ASSET_MATERIALIZATION' AND asset_key LIKE '%records%'"
        ).fetchone() or (None,)
        runs = conn.execute(
            "SELECT extract(epoch FROM create_timestamp)::float8, start_time, end_time FROM dagster.runs"
            " WHERE pipeline_name = 'import_records' ORDER BY start_time"
        ).fetchall()
        (first_queued,) = conn.execute(
            "SELECT extract(epoch FROM min(created_at))::float8 FROM parity_import_states"
        ).fetchone() or (None,)
    importing, end = 0.0, 0.0
    for _, start, stop in runs:
        importing += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return {
        "pairs": pairs,
        "rows": rows,
        "runs": len(runs),
        "seconds": float(last) - dropped,
        "sensor": queued - dropped,
        "first_row": first_queued - dropped,
        "planning": sum(max(0.0, start - created) for created, start, _ in runs) / len(runs),
        "waiting": runs[0][1] - queued,
        "importing": importing,
        "cpu": cpu,
        "peak_mib": processes.peaks,
    }


def without_dagster(environment: dict[str, str], folder: Path, dids: list[str]) -> dict[str, float]:
    """The same import by `ImportService` alone, into a database of its own."""
    (folder / "dids.txt").write_text("".join(f"{did}\n" for did in dids))
    program = (
        "import sys, time\n"
        "from parity_dagster.importing.models import Pair\n"
        "from parity_dagster.importing.service import ImportService\n"
        "with ImportService(report=False) as service:\n"
        "    wanted = [line.strip() for line in open('dids.txt')]\n"
        "    pairs = [Pair(did, nsid) for did in wanted for nsid in service.settings.collections]\n"
        "    results = service.import_pairs(pairs)\n"
        "print(sum(result.is_success for result in results))\n"
        "time.sleep(3)\n"
    )
    processes = Processes(environment[MARK], Path(environment["PARITY_HOME"]))
    processes.look()
    before = processes.cpu
    began = time.monotonic()
    with started([sys.executable, "-c", program], cwd=folder, env=environment, stdout=subprocess.PIPE) as process:
        while process.poll() is None:
            time.sleep(0.5)
            processes.look()
    return {"seconds": time.monotonic() - began - 3, "cpu": processes.cpu - before}


def stock(url: str, environment: dict[str, str], folder: Path, dids: list[str], pairs: int) -> float:
    """Seconds per pair of stock Dagster with one run per pair."""
    from dagster import DagsterInstance

    from parity_dagster.orchestration.partitions import DIDS

    (folder / "dagster.yaml").write_text(STOCK)
    (folder / "workspace.yaml").write_text((PROJECT / "workspace.yaml").read_text())
    environment = {
        **environment,
        "DAGSTER_HOME": str(folder),
        "DAGSTER_EVENT_BATCH_SIZE": "0",
        "STOCK_URL": url.replace("postgresql://", "postgresql+psycopg2://"),
        # sensors would import by themselves
        "PARITY_INBOX": str(folder / "inbox"),
    }
    os.environ["STOCK_URL"] = environment["STOCK_URL"]
    wanted = dids[: max(1, pairs // len(COLLECTIONS) + 1)]
    with DagsterInstance.from_config(str(folder)) as instance:
        instance.add_dynamic_partitions(DIDS, wanted)
    keys = [f"{nsid}|{did}" for did in wanted for nsid in COLLECTIONS][:pairs]
    with dagster(folder, environment) as port, closing(psycopg.connect(url, autocommit=True)) as conn:
        (place,) = ask(port, PLACE)["repositoriesOrError"]["nodes"]
        began = time.monotonic()
        for key in keys:
            ask(
                port,
                LAUNCH,
                tags=[{"key": "dagster/partition", "value": key}],
                repository=place["name"],
                location=place["location"]["name"],
            )
        while True:
            row = conn.execute(
                "SELECT count(*) FROM runs WHERE status IN ('SUCCESS', 'FAILURE')"
                " AND pipeline_name = 'import_partitions'"
            ).fetchone()
            if row is not None and row[0] >= len(keys):
                return (time.monotonic() - began) / len(keys)
            time.sleep(0.5)


def partition_query(environment: dict[str, str], folder: Path, dids: list[str]) -> dict[str, Any]:
    """Seconds of the UI's partition query over all accounts and five collections, first and later."""
    environment = {name: value for name, value in environment.items() if name != "PARITY_COLLECTIONS"}
    program = (
        "import dataclasses\n"
        "from parity_dagster.importing.service import ImportService\n"
        "from parity_dagster.orchestration.recording import report_without_run\n"
        "from parity_dagster.orchestration.storage import parity_instance\n"
        "with ImportService(report=False) as service:\n"
        "    states = service.find_states()\n"
        "more = [dataclasses.replace(state, collection=nsid) for state in states\n"
        "        if state.collection == 'app.bsky.feed.post'\n"
        "        for nsid in ('app.bsky.feed.repost', 'app.bsky.actor.profile')]\n"
        "with parity_instance() as instance:\n"
        "    for start in range(0, len(more), 500):\n"
        "        report_without_run(instance, more[start : start + 500])\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, check=True)
    with dagster(folder, environment) as port:
        seconds = []
        for _ in range(4):
            began = time.monotonic()
            found = ask(port, CELLS)["assetNodeOrError"]["partitionStats"]
            seconds.append(time.monotonic() - began)
    return {"first": seconds[0], "later": min(seconds[1:]), **found}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Many small accounts through the inbox, the queue and the runs.")
    parser.add_argument("--scale", type=float, default=1.0, help="1.0 is 10,000 accounts")
    parser.add_argument("--peer", type=int, default=20, help="pairs that stock Dagster imports; 0 for none")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="parity-crowd-") as temporary:
        report = measure(Path(temporary), given.scale, given.peer)
    print(json.dumps(report, indent=2, default=float))


def measure(folder: Path, scale: float, peer: int) -> dict[str, Any]:
    """All of it, in folders below `folder`."""
    from parity_dagster.settings import load_settings
    from parity_dagster.store.database import migrate

    plc = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PARITY_", "DAGSTER"))}
    environment |= {
        "PARITY_ALLOW_PRIVATE_HOSTS": "1",
        "PARITY_PAGE_DELAY": "0",
        "PARITY_PLC_URL": f"http://127.0.0.1:{plc}",
        "PARITY_COLLECTIONS": ",".join(COLLECTIONS),
        "PYTHONPATH": os.environ.get("PYTHONPATH", str(PROJECT)),
    }
    network = [sys.executable, "-m", "parity_dagster.sample_network", "--shape", "crowd", "--scale", str(scale)]
    network += ["--plc-port", str(plc), "--dids-file", str(folder / "all.txt")]
    report: dict[str, Any] = {}
    with started(network, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        process.stdout.readline()
        dids = (folder / "all.txt").read_text().split()
        for name in ("alone", "crowd", "stock"):
            place = folder / name
            place.mkdir()
            home = place / "home"
            url = embedded.acquire(home)
            migrate(load_settings(home=home))
            own = {**environment, "PARITY_HOME": str(home), "PARITY_INBOX": str(place / "inbox"), MARK: name}
            if name == "alone":
                report["alone"] = without_dagster(own, place, dids)
            elif name == "crowd":
                for file in ("dagster.yaml", "workspace.yaml"):
                    (place / file).write_text((PROJECT / file).read_text())
                report["crowd"] = crowd(url, own, place, dids)
                report["query"] = partition_query(own, place, dids)
            elif peer:
                report["stock_seconds_per_pair"] = stock(url, own, place, dids, peer)
            embedded.release(home)
    pairs = report["crowd"]["pairs"]
    report["orchestration_ms_per_pair"] = {
        "processor": 1000 * (report["crowd"]["cpu"] - report["alone"]["cpu"]) / pairs,
        "elapsed": 1000 * (report["crowd"]["seconds"] - report["alone"]["seconds"]) / pairs,
    }
    return report


if __name__ == "__main__":
    main()
