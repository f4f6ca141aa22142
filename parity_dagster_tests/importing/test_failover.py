"""The database server dies in mid-import and its standby takes its place: nothing is wrong, and the import goes on."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from parity_dagster.embedded_postgres import server
from parity_dagster.embedded_postgres.programs import SUPERUSER, run_program, server_account
from parity_dagster.events import ImportEvent, ImportProgress
from parity_dagster.models import Pair
from parity_dagster.sample_network import LIKE, POST, SampleNetwork
from parity_dagster.settings import Settings, load_settings
from parity_dagster.store.database import migrate
from parity_dagster_tests.imports import assert_equal, importing

pytestmark = [pytest.mark.processes, pytest.mark.long]


class Servers:
    """A primary and its standby."""

    def __init__(self, folder: Path) -> None:
        self._primary, self._standby = folder / "a" / "data", folder / "b" / "data"
        for data in (self._primary, self._standby):
            data.parent.mkdir(parents=True)
        self.here = server.start(
            self._primary,
            {"wal_level": "replica", "synchronous_commit": "'on'", "synchronous_standby_names": "''"},
        )
        self._standby.mkdir(mode=0o700)
        if account := server_account(self._primary):
            os.chown(self._standby, account.pw_uid, account.pw_gid)
        copied = run_program(
            self._standby, "pg_basebackup", "-h", str(self.here), "-p", str(server.PORT), "-U", SUPERUSER,
            "-R", "-X", "stream", "-c", "fast",
        )  # fmt: skip
        assert copied is None, copied
        (self._standby / f".s.PGSQL.{server.PORT}.lock").unlink()  # copied, and the other server's
        # `server.start` waits until a server takes writes, which this one does not yet
        started = run_program(self._standby, "pg_ctl", "-w", "-l", "log", "-o", f"-p {server.PORT} -k .", "start")
        assert started is None, (self._standby / "log").read_text()
        self.there = self._standby

    def url(self, name: str = "postgres") -> str:
        return (
            f"postgresql:///{name}?user={SUPERUSER}&host={self.here},{self.there}&port={server.PORT},{server.PORT}"
            "&target_session_attrs=read-write"
        )

    def execute(self, folder: Path, statement: str) -> None:
        with psycopg.connect(host=str(folder), port=server.PORT, user=SUPERUSER, autocommit=True) as conn:
            conn.execute(statement.encode())

    def fail_over(self) -> None:
        """Kill the primary, and then let the standby take its place."""
        pid = int((self._primary / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGQUIT)  # at once, without a word to anybody
        while server.listening(self._primary) is not None:
            time.sleep(0.01)
        self.execute(self.there, "SELECT pg_wal_replay_resume()")
        self.execute(self.there, "SELECT pg_promote(true, 60)")

    def stop(self) -> None:
        for data in (self._standby, self._primary):
            with suppress(OSError, ValueError):
                os.kill(int((data / "postmaster.pid").read_text().split()[0]), signal.SIGQUIT)
            while (data / "postmaster.pid").exists():
                time.sleep(0.01)


@pytest.fixture
def servers() -> Iterator[Servers]:
    folder = Path(tempfile.mkdtemp(prefix="parity-failover-"))
    folder.chmod(0o755)
    pair = Servers(folder)
    try:
        yield pair
    finally:
        pair.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("source", ["list", "repo"])
@pytest.mark.parametrize("is_synchronous", [True, False])
def test_a_standby_takes_the_place_of_the_server_in_mid_import(
    servers: Servers, tmp_path: Path, is_synchronous: bool, source: str
) -> None:
    """One that is synchronous has every commit; what another one lacks, the last of them, is read again."""
    settings: Settings = load_settings(
        database_url=SecretStr(servers.url()), home=tmp_path, allow_private_hosts=True, page_delay=0, source=source
    )
    migrate(settings)
    if is_synchronous:
        servers.execute(servers.here, "ALTER SYSTEM SET synchronous_standby_names = '*'")
        servers.execute(servers.here, "SELECT pg_reload_conf()")
    network = SampleNetwork(hosts=2)
    dids = [network.add_account({POST: 150, LIKE: 40}) for _ in range(4)]
    pairs = [Pair(did, nsid) for did in dids for nsid in (POST, LIKE)]
    network.behave(latency=0.05)
    failing = threading.Lock()
    with importing(settings, network, page_size=10) as (service, _):

        def fail_over(event: ImportEvent) -> None:
            if isinstance(event, ImportProgress) and event.records_synced >= 30 and failing.acquire(blocking=False):
                if not is_synchronous:  # the last half second has not arrived
                    servers.execute(servers.there, "ALTER SYSTEM SET primary_conninfo = ''")
                    servers.execute(servers.there, "SELECT pg_reload_conf()")
                    time.sleep(0.5)
                servers.fail_over()

        results = service.import_pairs(pairs, on_event=fail_over)
        assert failing.locked(), "there was something left to be imported"
        if is_synchronous:
            assert [result.error for result in results if not result.completed] == []
        service.resume_all()
        for result in service.import_pairs(pairs):
            assert result.completed, result.error
        for pair in pairs:
            assert_equal(settings, network, *pair)
        assert all(result.completed for result in service.import_pairs(pairs, reread=True))
    for pair in pairs:
        assert_equal(settings, network, *pair)
