"""Two daemons on one folder, which Dagster warns of and does not prevent: all is imported once, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.origin import DEFAULT_DAGSTER_ENTRY_POINT, JobPythonOrigin, RepositoryPythonOrigin

from parity_dagster.dagster_instance.home import Launcher, write_home
from parity_dagster.dagster_instance.keys import RECORDS_KEY, from_partition_key
from parity_dagster.dagster_instance.launcher import OUR_LOCATION
from parity_dagster.dagster_instance.private import WorkerStatus
from parity_dagster.dagster_instance.run_server import WORKER_TAG
from parity_dagster.definitions import build_defs
from parity_dagster.models import ImportState, ImportStatus, Pair
from parity_dagster.sample_network import LIKE, POST, REPOST, Running, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect
from parity_dagster.store.queue import make_batches
from parity_dagster_tests.command_line import variables
from parity_dagster_tests.imports import assert_equal, settings_for

pytestmark = [pytest.mark.processes, pytest.mark.long, pytest.mark.timeout(600)]

COUNTS = {POST: 230, LIKE: 12, REPOST: 3}
PAGES = 4 + 2 + 2
"""Of an account's lists: one for each hundred records, and one more to see the end of each."""
QUEUED, DROPPED, LATER = 24, 6, 6
RUNS = 6


class Daemons:
    """Daemons with one home, each in a process group of its own."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        self.home, self.inbox = folder / "home", folder / "inbox"
        self.inbox.mkdir()
        write_home(self.home, Launcher.LOCAL)
        self.variables = {
            **variables(settings, PARITY_RETRY_DELAY="3", PARITY_COLLECTIONS=",".join(COUNTS)),
            "PARITY_INBOX": str(self.inbox),
            "DAGSTER_HOME": str(self.home),
        }
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        with (self.folder / f"daemon-{len(self._started)}.log").open("wb") as log:
            process = subprocess.Popen(
                [Path(sys.executable).parent / "dagster-daemon", "run", "-w", self.home / "workspace.yaml"],
                cwd=self.folder,
                env={**os.environ, **self.variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """The daemon with its code server and its runs."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        for process in self._started:
            self.kill(process)

    def logs(self) -> list[str]:
        return [path.read_text() for path in sorted(self.folder.glob("daemon-*.log"))]

    def states(self) -> list[ImportState]:
        with closing(ImportService(self.settings, report=False)) as service:
            return list(service.find_states())

    def wait_for(self, what: Callable[[], object], seconds: float = 240) -> None:
        until = time.monotonic() + seconds
        while not what():
            tails = "\n\n".join(log[-3000:] for log in self.logs())
            assert time.monotonic() < until, f"{Counter(state.status.value for state in self.states())}\n{tails}"
            time.sleep(0.3)

    def are_complete(self, accounts: int) -> bool:
        found = self.states()
        return len(found) == accounts * len(COUNTS) and all(one.status is ImportStatus.COMPLETED for one in found)


@pytest.fixture(scope="module")
def network() -> Iterator[Running]:
    with run_in_thread(SampleNetwork(seed=89, hosts=3)) as running:
        yield running


@pytest.fixture
def daemons(settings: Settings, network: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemons]:
    made = Daemons(tmp_path, settings_for(settings, network, collections=tuple(COUNTS)))
    for name, value in made.variables.items():
        monkeypatch.setenv(name, value)
    yield made
    made.stop()


@pytest.fixture
def instance(daemons: Daemons) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.get() as opened:
        yield opened


def add(network: Running, count: int) -> list[str]:
    return [network.network.add_account(COUNTS, host=f"pds-{number % 3 + 1}") for number in range(count)]


def test_two_daemons_import_what_is_queued_and_dropped_once_and_one_goes_on_when_the_other_is_stopped(
    daemons: Daemons, instance: dg.DagsterInstance, network: Running
) -> None:
    queued, dropped, later = (add(network, count) for count in (QUEUED, DROPPED, LATER))
    network.network.behave(latency=0.1)
    with closing(ImportService(daemons.settings, report=False)) as service:
        service.enqueue([Pair(did, nsid) for did in queued for nsid in COUNTS])
    with closing(connect(daemons.settings, autocommit=True)) as connection:  # or one run gets all of them
        size = QUEUED * len(COUNTS) // RUNS
        make_batches(connection, daemons.settings.state_table, tuple(COUNTS), size=size, count=RUNS)
    first, _ = daemons.start(), daemons.start()
    daemons.wait_for(lambda: any(state.status is ImportStatus.COMPLETED for state in daemons.states()))
    (daemons.inbox / "dids.txt").write_text("".join(f"{did}\n" for did in dropped))
    daemons.wait_for(lambda: daemons.are_complete(QUEUED + DROPPED))
    daemons.wait_for(lambda: all(run.is_finished for run in instance.get_runs()))
    assert {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.SUCCESS}
    jobs = Counter(run.job_name for run in instance.get_runs())
    assert jobs["read_did_list"] >= 1
    assert jobs["import_records"] >= RUNS
    assert network.network.log.count(method="listRecords") == PAGES * (QUEUED + DROPPED), "nothing is read twice"

    daemons.kill(first)
    with closing(ImportService(daemons.settings, report=False)) as service:
        service.enqueue([Pair(did, nsid) for did in later for nsid in COUNTS])
    daemons.wait_for(lambda: daemons.are_complete(QUEUED + DROPPED + LATER))
    for state in daemons.states():
        assert_equal(daemons.settings, network.network, *state.pair)
        assert state.records_synced == COUNTS[state.collection]
    wanted = {Pair(did, nsid): 1 for did in (*queued, *dropped, *later) for nsid in COUNTS}

    def shown() -> Counter[Pair]:
        records = instance.fetch_materializations(RECORDS_KEY, limit=1000).records
        return Counter(from_partition_key(str(record.partition_key)) for record in records)

    daemons.wait_for(lambda: shown().keys() >= wanted.keys())
    assert shown() == wanted


def test_a_run_that_two_daemons_launch_is_executed_by_one_process_which_stays_the_one_that_is_looked_after(
    daemons: Daemons, instance: dg.DagsterInstance, network: Running
) -> None:
    (did,) = add(network, 1)
    network.network.behave(did=did, latency=600.0)
    place = RepositoryPythonOrigin(
        sys.executable, ModuleCodePointer(OUR_LOCATION, "defs", None), None, list(DEFAULT_DAGSTER_ENTRY_POINT), {}
    )
    job = build_defs(daemons.settings).resolve_job_def("import_records")
    config = {"ops": {"import_records": {"config": {"dids": [did]}}}}
    run = instance.create_run_for_job(job, run_config=config, job_code_origin=JobPythonOrigin(job.name, place))
    request = json.dumps({"run_id": run.run_id, "instance_ref": dg.serialize_value(instance.get_ref())})
    command = [sys.executable, "-m", "parity_dagster.dagster_instance.run_server", request]

    def now() -> dg.DagsterRun:
        found = instance.get_run_by_id(run.run_id)
        assert found is not None
        return found

    with ExitStack() as stack:
        processes = [stack.enter_context(subprocess.Popen(command, env={**os.environ})) for _ in range(2)]
        for process in processes:
            stack.callback(process.kill)
        daemons.wait_for(lambda: now().status is dg.DagsterRunStatus.STARTED)
        daemons.wait_for(lambda: any(process.poll() is not None for process in processes))
        late = stack.enter_context(subprocess.Popen(command, env={**os.environ}))
        assert late.wait(60) == 0
        (living,) = (process for process in processes if process.poll() is None)
        assert now().tags[WORKER_TAG].split()[1] == str(living.pid)
        assert instance.run_launcher.check_run_worker_health(now()).status is WorkerStatus.RUNNING
        assert now().status is dg.DagsterRunStatus.STARTED
        network.network.behave(did=did, latency=0.0)
        assert living.wait(60) == 0
    assert now().status is dg.DagsterRunStatus.SUCCESS
    assert daemons.are_complete(1)
    for nsid in COUNTS:
        assert_equal(daemons.settings, network.network, did, nsid)
