"""Machines, as far as one machine can be many: network namespaces with addresses of their own, whose links are cut."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from parity_dagster.embedded_postgres import server
from parity_dagster.embedded_postgres.programs import make_data_folder
from parity_dagster.sample_network import POST
from parity_dagster.settings import load_settings
from parity_dagster.store.database import migrate

pytestmark = [pytest.mark.processes, pytest.mark.long]

ADDRESSES = {"db": "10.77.0.2", "net": "10.77.0.3", "one": "10.77.0.4", "two": "10.77.0.5"}
PLC, PDS, CONTROL = 2580, 2590, 2570
IMPORTER = """
import sys, time
from parity_dagster.models import Pair
from parity_dagster.service import ImportService
from parity_dagster.settings import load_settings
with ImportService(report=False) as service:
    pairs = [Pair(did, nsid) for did in sys.argv[1:] for nsid in service.settings.collections]
    while True:
        results = service.import_pairs(pairs, on_event=lambda event: print(type(event).__name__, flush=True))
        print("codes", sorted({result.error_code or "completed" for result in results}), flush=True)
        if all(result.completed for result in results):
            break
        time.sleep(1)
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Machines:
    """Namespaces on a bridge in one more namespace; nothing is left on the machine's own interfaces."""

    def __init__(self) -> None:
        mark = f"pt{os.getpid() % 10_000}"
        self.hub = f"{mark}hub"
        self.names = {name: f"{mark}{name}" for name in ADDRESSES}
        self._processes: list[subprocess.Popen[str]] = []

    def make(self) -> None:
        ip("netns", "add", self.hub)
        ip("-n", self.hub, "link", "add", "hub", "type", "bridge")
        ip("-n", self.hub, "link", "set", "hub", "up")
        for name, space in self.names.items():
            ip("netns", "add", space)
            ip("-n", space, "link", "add", "eth0", "type", "veth", "peer", "name", name, "netns", self.hub)
            ip("-n", self.hub, "link", "set", name, "master", "hub", "up")
            ip("-n", space, "addr", "add", f"{ADDRESSES[name]}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                ip("-n", space, "link", "set", link, "up")

    def cut(self, name: str) -> None:
        """Cut a machine's link without a word to anybody: what is sent either way is lost."""
        ip("-n", self.hub, "link", "set", name, "nomaster")

    def mend(self, name: str) -> None:
        ip("-n", self.hub, "link", "set", name, "master", "hub")

    def start(self, name: str, command: list[str], **options: Any) -> subprocess.Popen[str]:
        inside = ["ip", "netns", "exec", self.names[name], *command]
        process = subprocess.Popen(inside, stdout=subprocess.PIPE, text=True, **options)
        self._processes.append(process)
        return process

    def ask(self, name: str, program: str, *arguments: str) -> str:
        """What a Python program prints on a machine."""
        command = ["ip", "netns", "exec", self.names[name], sys.executable, "-c", program, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def unmake(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        for space in (*self.names.values(), self.hub):
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)


@pytest.fixture
def machines() -> Iterator[Machines]:
    made = Machines()
    try:
        made.make()
    except (OSError, subprocess.CalledProcessError) as exc:
        made.unmake()
        if os.environ.get("PARITY_TEST_NAMESPACES") == "required":
            pytest.fail(f"no network namespaces can be made here: {exc}", pytrace=False)
        pytest.skip(f"NO NETWORK NAMESPACES CAN BE MADE HERE, SO MACHINES WHOSE LINKS ARE CUT WERE NOT TESTED: {exc}")
    try:
        yield made
    finally:
        made.unmake()


@pytest.fixture
def database(machines: Machines) -> Iterator[str]:
    """URL of a server on the machine `db`; it is asked from here by its socket, which needs no link."""
    folder = Path(tempfile.mkdtemp(prefix="parity-machines-"))
    folder.chmod(0o755)
    data = folder / "home" / "postgres"
    data.parent.mkdir()
    make_data_folder(data, {"listen_addresses": f"'{ADDRESSES['db']}'", "max_connections": "50"})
    with (data / "pg_hba.conf").open("a") as file:
        file.write("host all all 10.77.0.0/24 trust\n")
    program = (
        "import sys; from pathlib import Path; from parity_dagster.embedded_postgres import server;"
        " print(server.start(Path(sys.argv[1]), {}))"
    )
    socket = machines.ask("db", program, str(data)).strip()
    url = f"postgresql:///postgres?user=postgres&host={socket}&port={server.PORT}"
    migrate(load_settings(database_url=url))
    try:
        yield url
    finally:
        server.stop(data)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def dids(machines: Machines, tmp_path: Path) -> list[str]:
    """Accounts of a network on the machine `net`, whose host takes its time."""
    command = [sys.executable, "-m", "parity_dagster.sample_network", "--shape", "narrow", "--scale", "0.004"]
    command += ["--address", ADDRESSES["net"], "--plc-port", str(PLC), "--pds-port", str(PDS), "--latency", "0.3"]
    process = machines.start("net", [*command, "--control-port", str(CONTROL)])
    assert process.stdout is not None
    found: list[str] = json.loads(process.stdout.readline())["dids"]
    return found


def importer(machines: Machines, name: str, dids: list[str], tmp_path: Path) -> subprocess.Popen[str]:
    given = {
        "PARITY_DATABASE_URL": f"postgresql://postgres@{ADDRESSES['db']}:{server.PORT}/postgres",
        "PARITY_PLC_URL": f"http://{ADDRESSES['net']}:{PLC}",
        "PARITY_HOME": str(tmp_path),
        "PARITY_COLLECTIONS": POST,
        "PARITY_PAGE_SIZE": "2",
        "PARITY_ALLOW_PRIVATE_HOSTS": "1",
        "PARITY_DATABASE_PATIENCE": "300",
        "PARITY_REQUEST_TIMEOUT": "10",
    }
    env = {name: value for name, value in os.environ.items() if not name.startswith("PARITY_")} | given
    return machines.start(name, [sys.executable, "-c", IMPORTER, *dids], env=env, stderr=subprocess.DEVNULL)


def wait_until(url: str, question: str, seconds: float) -> float:
    """Ask the database, by its socket, until it says yes; how long that took."""
    began = time.monotonic()
    with psycopg.connect(url, autocommit=True) as conn:
        while time.monotonic() - began < seconds:
            row = conn.execute(question.encode()).fetchone()
            if row is not None and row[0]:
                return time.monotonic() - began
            time.sleep(0.2)
    raise AssertionError(f"not within {seconds:.0f} s: {question}")


def network_records(machines: Machines, did: str) -> set[str]:
    program = (
        "import json, sys, urllib.request; print(json.dumps([r['rkey'] for r in json.load(urllib.request.urlopen("
        f"'http://127.0.0.1:{CONTROL}/control/records?did=' + sys.argv[1] + '&collection={POST}'))['records']]))"
    )
    return set(json.loads(machines.ask("net", program, did)))


def assert_all_equal(machines: Machines, url: str, dids: list[str]) -> None:
    with psycopg.connect(url) as conn:
        for did in dids:
            rows = conn.execute("SELECT rkey FROM atproto_records WHERE did = %s AND active", (did,)).fetchall()
            assert {rkey for (rkey,) in rows} == network_records(machines, did)
            (counted,) = conn.execute(
                "SELECT records_synced FROM parity_import_states WHERE did = %s", (did,)
            ).fetchone() or (None,)
            assert counted == len(rows)


def test_a_machine_whose_link_is_cut_loses_its_pairs_and_writes_nothing_more_when_it_comes_back(
    machines: Machines, database: str, dids: list[str], tmp_path: Path
) -> None:
    first = importer(machines, "one", dids, tmp_path)
    wait_until(database, "SELECT count(*) > 5 FROM atproto_records", 60)
    machines.cut("one")
    second = importer(machines, "two", dids, tmp_path)
    taken = wait_until(
        database,
        "SELECT count(*) = 0 FROM parity_import_states WHERE status = 'in_progress' AND importer_id ="
        " (SELECT min(id) FROM parity_importers)",
        120,
    )
    assert taken < 75, "keepalives notice it after 30 s, and the second looks again every other second"
    assert second.wait(240) == 0
    assert_all_equal(machines, database, dids)
    with psycopg.connect(database) as conn:
        before = conn.execute("SELECT count(*), max(updated_at) FROM atproto_records").fetchone()
    machines.mend("one")
    said, _ = first.communicate(timeout=240)
    assert first.returncode == 0
    assert "completed" in said
    with psycopg.connect(database) as conn:
        assert conn.execute("SELECT count(*), max(updated_at) FROM atproto_records").fetchone() == before
    assert_all_equal(machines, database, dids)


def test_a_database_whose_link_is_cut_and_comes_back_is_waited_for(
    machines: Machines, database: str, dids: list[str], tmp_path: Path
) -> None:
    importers = [importer(machines, name, half, tmp_path) for name, half in (("one", dids[::2]), ("two", dids[1::2]))]
    wait_until(database, "SELECT count(*) > 5 FROM atproto_records", 60)
    machines.cut("db")
    time.sleep(45)  # longer than it takes both sides to notice
    machines.mend("db")
    for process in importers:
        assert process.wait(240) == 0
    assert_all_equal(machines, database, dids)
