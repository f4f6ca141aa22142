"""The measurements: the crowd itself, the same without Dagster, stock Dagster, and the partition query."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.crowd.dagster_dev import PLACE, ask, dagster, free_port, started
from benchmarks.crowd.processes import MARK, Processes
from parity_dagster.embedded_postgres import sharing as embedded

PROJECT = Path(__file__).parent.parent.parent
COLLECTIONS = ("app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow")
CELLS = """{ assetNodeOrError(assetKey: {path: ["atproto", "records"]}) { ... on AssetNode {
  partitionStats { numPartitions numMaterialized numFailed numMaterializing }
  assetPartitionStatuses { ... on MultiPartitionStatuses { ranges { primaryDimStartKey secondaryDim {
    ... on DefaultPartitionStatuses { materializedPartitions failedPartitions } } } } } } } }"""
LAUNCH = """mutation($tags: [ExecutionTag!]!, $repository: String!, $location: String!) { launchRun(executionParams: {
  selector: {jobName: "import_partitions", repositoryName: $repository, repositoryLocationName: $location},
  runConfigData: {}, executionMetadata: {tags: $tags}}) { __typename ... on PythonError { message } } }"""
STOCK = """storage:
  postgres:
    postgres_url:
      env: STOCK_URL
telemetry:
  enabled: false
"""


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
        "from parity_dagster.models import Pair\n"
        "from parity_dagster.service import ImportService\n"
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
        "from parity_dagster.service import ImportService\n"
        "from parity_dagster.orchestration.step_events import report_without_run\n"
        "from parity_dagster.dagster_instance.storage import parity_instance\n"
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


def measure(folder: Path, scale: float, peer: int, say: Callable[[str], None]) -> dict[str, Any]:
    """All of it, in folders below an empty `folder`.

    Args:
        scale: 1.0 is 10,000 accounts.
        peer: pairs that stock Dagster imports; 0 for none.
        say: takes lines about the progress.
    """
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
    found: dict[str, Any] = {}

    def prepared(name: str) -> tuple[str, dict[str, str], Path]:
        place = folder / name
        place.mkdir()
        home = place / "home"
        url = embedded.acquire(home)
        migrate(load_settings(home=home))
        return url, {**environment, "PARITY_HOME": str(home), "PARITY_INBOX": str(place / "inbox"), MARK: name}, place

    with started(network, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        process.stdout.readline()
        dids = (folder / "all.txt").read_text().split()
        say(f"{len(dids):,} accounts × {len(COLLECTIONS)} collections by ImportService alone")
        _, own, place = prepared("alone")
        found["alone"] = without_dagster(own, place, dids)
        embedded.release(place / "home")
        say("the same, dropped into the inbox of a running `dagster dev`")
        url, own, place = prepared("crowd")
        for file in ("dagster.yaml", "workspace.yaml"):
            (place / file).write_text((PROJECT / file).read_text())
        found["crowd"] = crowd(url, own, place, dids)
        say("the UI's partition query, with two more collections")
        found["query"] = partition_query(own, place, dids)
        embedded.release(place / "home")
        if peer:
            say(f"stock Dagster, {peer} pairs, a run each")
            url, own, place = prepared("stock")
            found["stock"] = {"pairs": peer, "seconds per pair": stock(url, own, place, dids, peer)}
            embedded.release(place / "home")
    return found
