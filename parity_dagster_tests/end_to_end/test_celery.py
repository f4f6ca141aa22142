"""Two workers of Celery, one of which is killed with all that is in it: everything ends complete, counted once.

The commands are those of deploy/compose.yaml, started as processes.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import dagster as dg
import pytest
import yaml

from parity_dagster.dagster_instance.home import Launcher, write_home
from parity_dagster.dagster_instance.keys import RECORDS_KEY, from_partition_key
from parity_dagster.models import ImportState, ImportStatus, Pair
from parity_dagster.sample_network import LIKE, POST, REPOST, Running, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect
from parity_dagster.store.queue import make_batches
from parity_dagster_tests.command_line import variables
from parity_dagster_tests.imports import assert_equal, settings_for

pytestmark = [pytest.mark.processes, pytest.mark.long, pytest.mark.timeout(900)]

COLLECTIONS = (POST, LIKE, REPOST)
ACCOUNTS = 40
RUNS = 6
REDIS = shutil.which("redis-server")
SERVICES = yaml.safe_load((Path(__file__).parents[2] / "deploy" / "compose.yaml").read_text())["services"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """Redis, the daemon and workers, each in a process group of its own, with the home that the command writes."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.home = folder / "home"
        write_home(self.home, Launcher.CELERY)
        self._password = secrets.token_hex(8)
        self._port = free_port()
        self.variables = {
            **variables(settings, PARITY_RETRY_DELAY="3", PARITY_COLLECTIONS=",".join(COLLECTIONS)),
            "DAGSTER_HOME": str(self.home),
            "PARITY_CELERY_BROKER": f"redis://:{self._password}@127.0.0.1:{self._port}/0",
        }
        self._started: list[subprocess.Popen[bytes]] = []

    def _start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, **self.variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def start_redis(self) -> None:
        assert REDIS is not None
        options = {"port": str(self._port), "bind": "127.0.0.1", "save": "", "requirepass": self._password}
        self._start("redis", REDIS, *(part for name, value in options.items() for part in (f"--{name}", value)))

    def _here(self, command: list[str]) -> list[str]:
        """A command of compose.yaml as it is outside of a container."""
        program, *arguments = (part.replace("/srv/parity", str(self.home)) for part in command)
        return [str(Path(sys.executable).parent / program), *arguments]

    def start_daemon(self) -> None:
        self._start("daemon", *self._here(SERVICES["daemon"]["command"]))

    def start_worker(self, name: str) -> subprocess.Popen[bytes]:
        # containers have names of their own, and so have their workers
        return self._start(name, *self._here(SERVICES["worker"]["command"]), "-n", f"{name}@%h")

    def is_healthy(self, service: str, worker: str = "") -> bool:
        """What the health check of a service says."""
        _, *check = SERVICES[service]["healthcheck"]["test"]
        command = shlex.split(" ".join(check).replace("celery@$$HOSTNAME", f"{worker}@{socket.gethostname()}"))
        environment = {**os.environ, **self.variables}
        return subprocess.run(self._here(command), env=environment, capture_output=True).returncode == 0

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """As if its machine were gone."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        for process in reversed(self._started):
            self.kill(process)

    def log(self) -> str:
        return "\n".join(f"{path.name}:\n{path.read_text()[-1500:]}" for path in sorted(self.folder.glob("*.log")))


@pytest.fixture(scope="module")
def network() -> Iterator[Running]:
    with run_in_thread(SampleNetwork(seed=88, hosts=3)) as running:
        yield running


@pytest.fixture
def cluster(settings: Settings, network: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    if REDIS is None:
        if os.environ.get("PARITY_TEST_REDIS") == "required":
            pytest.fail("redis-server is not installed")
        pytest.skip("NOT TESTED: runs on Celery, because redis-server is not installed")
    pytest.importorskip("dagster_celery", reason="NOT TESTED: runs on Celery, because the extra `celery` is missing")
    made = Cluster(tmp_path, settings_for(settings, network, collections=COLLECTIONS))
    for name, value in made.variables.items():
        monkeypatch.setenv(name, value)
    made.start_redis()
    yield made
    made.stop()


@pytest.fixture
def instance(cluster: Cluster) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.get() as opened:
        yield opened


def wait_for(cluster: Cluster, what: Callable[[], object], seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, f"{Counter(state.status.value for state in states(cluster))}\n{cluster.log()}"
        time.sleep(0.3)


def states(cluster: Cluster) -> list[ImportState]:
    with closing(ImportService(cluster.settings, report=False)) as service:
        return list(service.find_states())


def queue(cluster: Cluster, dids: list[str], runs: int) -> None:
    """Queue accounts, as many to each run, before a daemon gives all of them to one."""
    with closing(ImportService(cluster.settings, report=False)) as service:
        service.enqueue([Pair(did, nsid) for did in dids for nsid in COLLECTIONS])
    with closing(connect(cluster.settings, autocommit=True)) as connection:
        size = len(dids) * len(COLLECTIONS) // runs
        made = make_batches(connection, cluster.settings.state_table, COLLECTIONS, size=size, count=runs)
    assert len(made) >= runs


def started(instance: dg.DagsterInstance) -> list[str]:
    filters = dg.RunsFilter(job_name="import_records", statuses=[dg.DagsterRunStatus.STARTED])
    return [run.run_id for run in instance.get_runs(filters)]


def test_a_worker_is_killed_and_every_pair_ends_complete_and_counted_once(
    cluster: Cluster, instance: dg.DagsterInstance, network: Running
) -> None:
    counts = {POST: 230, LIKE: 12, REPOST: 3}
    dids = [network.network.add_account(counts, host=f"pds-{number % 3 + 1}") for number in range(ACCOUNTS)]
    network.network.behave(latency=3.0)
    queue(cluster, dids, RUNS)
    cluster.start_daemon()
    victim, _ = cluster.start_worker("one"), cluster.start_worker("two")

    def both_are_in_the_middle() -> bool:
        at_work = Counter(state.run_id for state in states(cluster) if state.status is ImportStatus.IN_PROGRESS)
        done = any(state.status is ImportStatus.COMPLETED for state in states(cluster))
        return len(at_work.keys() & set(started(instance))) > 2 and done  # a worker executes two at most

    wait_for(cluster, both_are_in_the_middle)
    cluster.kill(victim)
    left = [state for state in states(cluster) if state.status is not ImportStatus.COMPLETED]
    assert len(left) > ACCOUNTS * len(COLLECTIONS) // RUNS, "it was killed in the middle"
    network.network.behave(latency=0.0)

    def is_complete() -> bool:
        found = states(cluster)
        return len(found) == ACCOUNTS * 3 and all(state.status is ImportStatus.COMPLETED for state in found)

    wait_for(cluster, is_complete)
    for state in states(cluster):
        assert_equal(cluster.settings, network.network, *state.pair)
        assert state.records_synced == counts[state.collection]

    # the run that was killed is noticed, and nothing waits for it
    wait_for(cluster, lambda: all(run.is_finished for run in instance.get_runs()))
    statuses = Counter(run.status for run in instance.get_runs(dg.RunsFilter(job_name="import_records")))
    assert statuses[dg.DagsterRunStatus.FAILURE] in (1, 2)
    assert statuses[dg.DagsterRunStatus.SUCCESS] >= RUNS - statuses[dg.DagsterRunStatus.FAILURE] + 1

    wanted = {Pair(did, nsid): 1 for did in dids for nsid in COLLECTIONS}

    def shown() -> Counter[Pair]:
        records = instance.fetch_materializations(RECORDS_KEY, limit=1000).records
        return Counter(from_partition_key(str(record.partition_key)) for record in records)

    wait_for(cluster, lambda: shown().keys() >= wanted.keys())
    assert shown() == wanted


def test_a_run_that_is_terminated_ends_and_its_worker_takes_the_next(
    cluster: Cluster, instance: dg.DagsterInstance, network: Running
) -> None:
    slow, quick = (network.network.add_account({POST: 5}) for _ in range(2))
    network.network.behave(did=slow, latency=600.0)
    queue(cluster, [slow], 1)
    cluster.start_daemon()
    cluster.start_worker("one")
    wait_for(cluster, lambda: any(state.status is ImportStatus.IN_PROGRESS for state in states(cluster)))
    (run_id,) = started(instance)
    assert instance.run_launcher.terminate(run_id)

    # Dagster's own launcher for Celery lets it fail, and the queue launches its pairs again
    wait_for(cluster, lambda: not started(instance))
    wait_for(cluster, lambda: all(run.is_finished for run in instance.get_runs()))
    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.CANCELED
    network.network.behave(did=slow, latency=0.0)
    with closing(ImportService(cluster.settings, report=False)) as service:
        service.enqueue([Pair(quick, nsid) for nsid in COLLECTIONS])
    wanted = [Pair(quick, nsid) for nsid in COLLECTIONS]
    wait_for(cluster, lambda: {s.pair for s in states(cluster) if s.status is ImportStatus.COMPLETED} >= {*wanted})
    assert [state.run_id for state in states(cluster) if state.pair == Pair(slow, POST)] == [run_id], "it waits"
    assert cluster.is_healthy("daemon")
    assert (cluster.is_healthy("worker", "one"), cluster.is_healthy("worker", "two")) == (True, False)
