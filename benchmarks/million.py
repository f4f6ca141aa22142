"""`python -m benchmarks.million`: from a collection's name to a complete copy of everybody's records of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import psycopg

from benchmarks.crowd.dagster_dev import ask, dagster, free_port, started
from benchmarks.crowd.measurements import CELLS, PROJECT
from benchmarks.crowd.processes import MARK, Processes
from benchmarks.environment import machine
from benchmarks.report import replace_part
from parity_dagster.embedded_postgres import sharing as embedded
from parity_dagster.sample_network import POST
from parity_dagster.settings import load_settings
from parity_dagster.store.database import migrate

BEGIN, END = "<!-- million: written by `python -m benchmarks.million --write` -->", "<!-- end of million -->"
_SECONDS_BETWEEN_LOOKS = 5.0


@click.command()
@click.option("--accounts", default=1_000_000, show_default=True, help="How many there are.")
@click.option("--source", type=click.Choice(["list", "repo"]), default="repo", show_default=True, help="PARITY_SOURCE.")
@click.option("--write", is_flag=True, help="Write the figures to docs/.")
def main(accounts: int, source: str, write: bool) -> None:
    """Measure the way from `parity discover` to the last complete account; an hour and more for a million."""
    with tempfile.TemporaryDirectory(prefix="parity-million-") as temporary:
        found = measure(Path(temporary), accounts, source, lambda line: click.echo(line, err=True))
    text = list(lines(found))
    click.echo("\n".join(text))
    if write:
        command = f"python -m benchmarks.million --accounts {accounts} --source {source}"
        head = f"Measured {datetime.now(UTC):%Y-%m-%d} with `{command}` on {machine()}."
        page = PROJECT / "docs" / "performance.md"
        replace_part(page, BEGIN, END, ["", head, "", *text, ""])
        click.echo(f"written: {page}")


def measure(folder: Path, accounts: int, source: str, say: Callable[[str], None]) -> dict[str, Any]:
    """All of it, in an empty folder: the accounts are discovered and queued, then a `dagster dev` imports them."""
    plc, home = free_port(), folder / "home"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PARITY_", "DAGSTER"))}
    environment |= {
        "PARITY_ALLOW_PRIVATE_HOSTS": "1",
        "PARITY_PAGE_DELAY": "0",
        "PARITY_PLC_URL": f"http://127.0.0.1:{plc}",
        "PARITY_COLLECTIONS": POST,
        "PARITY_SOURCE": source,
        "PARITY_HOME": str(home),
        "PARITY_INBOX": str(folder / "inbox"),
        "PYTHONPATH": os.environ.get("PYTHONPATH", str(PROJECT)),
        MARK: "million",
    }
    for file in ("dagster.yaml", "workspace.yaml"):
        (folder / file).write_text((PROJECT / file).read_text())
    network = [sys.executable, "-m", "parity_dagster.sample_network", "--shape", "million", "--keep-pages", "1"]
    network += ["--scale", str(accounts / 1_000_000), "--plc-port", str(plc)]
    unmarked = {name: value for name, value in environment.items() if name != MARK}
    with started(network, stdout=subprocess.PIPE, env=unmarked) as served:
        assert served.stdout is not None
        say("the network is being made")
        environment["PARITY_RELAY_URL"] = json.loads(served.stdout.readline())["relay_url"]
        url = embedded.acquire(home)
        migrate(load_settings(home=home))
        processes = Processes("million", home)
        try:
            with closing(psycopg.connect(url, autocommit=True)) as conn:
                say(f"{accounts:,} accounts are being discovered")
                discovering, discover_mib = _discover(folder, environment, processes)
                say("a `dagster dev` imports them")
                found = _import(conn, folder, environment, processes, accounts, say)
        finally:
            embedded.release(home)
    return {**found, "accounts": accounts, "discovering": discovering, "discover_mib": discover_mib}


def _discover(folder: Path, environment: dict[str, str], processes: Processes) -> tuple[float, float]:
    began = time.monotonic()
    command = [sys.executable, "-m", "parity_dagster", "discover", POST, "--queue"]
    with started(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            time.sleep(0.5)
            processes.look()
        if process.returncode:
            raise RuntimeError("parity discover failed")
    return time.monotonic() - began, max(processes.peaks.values())


def _import(
    conn: psycopg.Connection[Any],
    folder: Path,
    environment: dict[str, str],
    processes: Processes,
    accounts: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    with dagster(folder, environment) as port:
        began, noted, cpu = time.monotonic(), 0.0, processes.cpu
        while True:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            processes.look()
            rows = dict(conn.execute("SELECT status, count(*) FROM parity_import_states GROUP BY 1").fetchall())
            done = rows.get("completed", 0) + rows.get("failed", 0)
            if done >= accounts:
                break
            if time.monotonic() - noted > 60:
                noted = time.monotonic()
                say(f"{done:,} done after {noted - began:,.0f} s")
        seconds = time.monotonic() - began
        asked = time.monotonic()
        cells = ask(port, CELLS)["assetNodeOrError"]["partitionStats"]
        page = time.monotonic() - asked
    sizes = conn.execute(
        "SELECT relname, pg_total_relation_size(c.oid) / 1048576.0 FROM pg_class c JOIN pg_namespace n"
        " ON n.oid = relnamespace WHERE relkind = 'r' AND nspname IN ('public', 'dagster')"
        " AND pg_total_relation_size(c.oid) > 1048576 ORDER BY 2 DESC"
    ).fetchall()
    commands = {}
    for command in (["import-status", "--summary"], ["report"]):
        asked = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "parity_dagster", *command],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        commands["parity " + " ".join(command)] = time.monotonic() - asked
    (records,) = conn.execute("SELECT sum(records_synced)::bigint FROM parity_import_states").fetchone() or (0,)
    return {
        "rows": rows,
        "records": records,
        "importing": seconds,
        "cpu": processes.cpu - cpu,
        "peaks": processes.peaks,
        "sizes": dict(sizes),
        "cells": cells,
        "page": page,
        "commands": commands,
    }


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The figures in Markdown."""
    accounts = found["accounts"]
    outcome = ", ".join(f"{count:,} {status}" for status, count in sorted(found["rows"].items()))
    yield f"- {accounts:,} accounts: {outcome}, {found['records']:,} records"
    yield (
        f"- discovered and queued in {found['discovering']:,.0f} s by a process of {found['discover_mib']:.0f} MiB at"
        f" most ({accounts / found['discovering']:,.0f} accounts/s)"
    )
    yield (
        f"- imported in {found['importing']:,.0f} s by the runs of a `dagster dev`, its start not included"
        f" ({accounts / found['importing']:,.0f} accounts/s; {1000 * found['cpu'] / accounts:.1f} ms of processor time"
        " an account, PostgreSQL and Dagster included, the network not)"
    )
    peaks = ", ".join(f"{role} {peak:.0f}" for role, peak in sorted(found["peaks"].items(), key=lambda one: -one[1]))
    yield f"- peak resident memory in MiB, of the largest process of each kind: {peaks}"
    sizes = ", ".join(f"`{name}` {size:,.0f}" for name, size in found["sizes"].items())
    yield f"- tables in MiB, indexes included: {sizes}"
    cells = found["cells"]
    yield (
        f"- the UI's partition query over {cells['numPartitions']:,} partitions, {cells['numMaterialized']:,}"
        f" materialized: {found['page']:.2f} s"
    )
    yield "- " + ", ".join(f"`{name}` {seconds:.2f} s" for name, seconds in found["commands"].items())


if __name__ == "__main__":
    main()
