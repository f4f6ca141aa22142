"""Drop a list, walk away: the real Dagster UI and daemon, from a fresh folder to the last record."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import dagster as dg
import psutil
import pytest

from parity_dagster.dagster_instance.keys import RECORDS_KEY, from_partition_key, to_partition_key
from parity_dagster.dagster_instance.run_server import WORKER_TAG
from parity_dagster.dagster_instance.storage import parity_instance
from parity_dagster.embedded_postgres import sharing as embedded
from parity_dagster.errors import AccountTakenDown
from parity_dagster.models import ImportState, ImportStatus, Pair
from parity_dagster.orchestration.inbox import DID_LISTS_KEY, LIST_TAG, READ_DID_LIST
from parity_dagster.orchestration.partitions import DIDS
from parity_dagster.orchestration.queue import BATCH_TAG
from parity_dagster.sample_network import LIKE, POST, Fault, Running, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import DEFAULT_COLLECTIONS, Settings, load_settings
from parity_dagster.store.database import connect
from parity_dagster_tests.command_line import PROGRAM, variables

pytestmark = [pytest.mark.processes, pytest.mark.long]

PROJECT = Path(__file__).parents[2]
MARK = "PARITY_TEST_PROJECT"


OTHER_LOCATION = """
import time
import dagster as dg

@dg.op
def wait():
    time.sleep(600)

@dg.job
def waiting():
    wait()

@dg.job
def nothing():
    pass

defs = dg.Definitions(jobs=[nothing, waiting])
"""


class Project:
    """A fresh copy of the project, with its Dagster."""

    def __init__(self, folder: Path, settings: Settings, **more: str) -> None:
        self.folder = folder
        self.settings = settings
        self.inbox = folder / "inbox"
        self.mark = uuid.uuid4().hex
        self.environment = {**os.environ, **variables(settings, **more), MARK: self.mark}
        self.process: subprocess.Popen[bytes] | None = None
        for name in ("dagster.yaml", "workspace.yaml"):
            shutil.copy(PROJECT / name, folder)
        (folder / "other.py").write_text(OTHER_LOCATION)
        with (folder / "workspace.yaml").open("a") as workspace:
            workspace.write("  - python_file: other.py\n")

    def start(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "dagster", "dev", "--host", "127.0.0.1", "--port", str(port)]
        with (self.folder / "dev.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def processes(self, part: str = "") -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                is_ours = process.environ().get(MARK) == self.mark and process.name() != "postgres"
                if is_ours and part in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def kill(self, part: str = "") -> None:
        for process in self.processes(part):
            process.kill()

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        self.kill()

    def drop(self, name: str, dids: list[str]) -> None:
        self.inbox.mkdir(exist_ok=True)
        path = self.inbox / name
        path.write_text("".join(f"{did}\n" for did in dids))
        os.utime(path, (time.time() - 60, time.time() - 60))

    def parity(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*PROGRAM, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def states(self, *dids: str) -> list[ImportState]:
        with closing(ImportService(self.settings, report=False)) as service:
            return [state for state in service.find_states() if not dids or state.did in dids]

    def wait_for(self, what: Callable[[], bool], seconds: float = 90) -> None:
        until = time.monotonic() + seconds
        while not what():
            counts = Counter(state.status.value for state in self.states())
            assert time.monotonic() < until, f"{counts}\n{(self.folder / 'dev.log').read_text()[-3000:]}"
            time.sleep(0.5)

    def is_complete(self, dids: list[str]) -> bool:
        states = self.states(*dids)
        wanted = len(dids) * len(self.settings.collections)
        return len(states) == wanted and all(state.status is ImportStatus.COMPLETED for state in states)

    def materializations(self, instance: dg.DagsterInstance) -> Counter[Pair]:
        records = instance.fetch_materializations(RECORDS_KEY, limit=1000).records
        return Counter(from_partition_key(str(record.partition_key)) for record in records)


@pytest.fixture(scope="module")
def network() -> Iterator[Running]:
    with run_in_thread(SampleNetwork(seed=21, hosts=3)) as running:
        yield running


def make_project(folder: Path, network: Running, **more: str) -> Project:
    settings = load_settings(
        home=folder / "home", allow_private_hosts=True, page_delay=0, plc_url=network.plc_url, inbox=folder / "inbox"
    )
    return Project(folder, settings, PARITY_RETRY_DELAY="3", **more)


@pytest.fixture(scope="module")
def project(network: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("project")
    home = folder / "home"
    embedded.acquire(home)  # so that stopping it is up to this test
    opened = make_project(folder, network)
    opened.start()
    yield opened
    opened.stop()
    embedded.release(home)


@pytest.fixture
def instance(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    for name, value in variables(project.settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(project.folder)
    with parity_instance() as opened:
        yield opened


def accounts(network: Running, count: int) -> list[str]:
    some = {POST: 7, LIKE: 3}
    return [network.network.add_account(some, host=f"pds-{number % 3 + 1}") for number in range(count)]


def test_a_dropped_list_is_imported_the_same_again_does_nothing_and_a_longer_one_only_what_is_new(
    project: Project, network: Running, instance: dg.DagsterInstance
) -> None:
    first, more = accounts(network, 40), accounts(network, 20)
    project.drop("dids.txt", first)
    project.wait_for(lambda: project.is_complete(first), 120)
    pairs = [Pair(did, nsid) for did in first for nsid in DEFAULT_COLLECTIONS]
    # `>=`: other tests of this file may have been here before
    project.wait_for(lambda: project.materializations(instance) >= Counter(pairs))
    listed = instance.fetch_materializations(DID_LISTS_KEY, limit=1).records[0]
    assert listed.asset_materialization is not None
    assert listed.asset_materialization.metadata["new_imports"].value == 200

    imports = dg.RunsFilter(job_name="import_records")
    runs = instance.get_runs_count(imports)
    requests = len(network.network.log.entries())
    project.drop("dids.txt", first)
    time.sleep(12)  # two looks of each sensor
    assert instance.get_runs_count(imports) == runs
    assert len(network.network.log.entries()) == requests

    project.drop("dids.txt", [*more, *first])
    project.wait_for(lambda: project.is_complete(more))
    assert len(project.states(*first, *more)) == 300
    found = project.materializations(instance)
    assert {found[pair] for pair in pairs} == {1}
    assert {entry.did for entry in network.network.log.entries()[requests:]} <= {*more, ""}
    newest = instance.fetch_materializations(DID_LISTS_KEY, limit=10).records[0].asset_materialization
    assert newest is not None
    assert (newest.metadata["new_accounts"].value, newest.metadata["new_imports"].value) == (20, 100)


def test_what_the_command_line_imports_is_shown_also_when_the_daemon_was_down(
    project: Project, network: Running, instance: dg.DagsterInstance
) -> None:
    first, second = accounts(network, 2)
    gone = network.network.add_account({POST: 1}, status="takendown")

    def is_shown(did: str) -> bool:
        return project.materializations(instance)[Pair(did, POST)] > 0

    assert project.parity("import", first).wait(120) == 0
    assert project.parity("import", gone, "--collection", POST).wait(120) == 1
    project.wait_for(lambda: is_shown(first))
    project.wait_for(lambda: gone in instance.get_dynamic_partitions(DIDS))
    project.stop()
    assert project.parity("import", second).wait(120) == 0
    assert not is_shown(second)
    project.start()
    project.wait_for(lambda: is_shown(second))
    found = project.materializations(instance)
    pairs = [Pair(did, nsid) for did in (first, second) for nsid in DEFAULT_COLLECTIONS]
    assert {pair: found[pair] for pair in pairs} == dict.fromkeys(pairs, 1)
    observed = [record.partition_key for record in instance.fetch_observations(RECORDS_KEY, limit=1000).records]
    assert observed.count(str(to_partition_key(Pair(gone, POST)))) == 1


def test_an_outage_is_ridden_out_and_what_can_never_succeed_is_tried_once(project: Project, network: Running) -> None:
    good, bad = accounts(network, 6), accounts(network, 1)
    network.network.set_status(bad[0], "takendown")
    for did in good:
        network.network.behave(did=did, faults=(Fault(kind="500"),))
    project.drop("outage.txt", [*good, *bad])

    def all_failed() -> bool:
        states = project.states(*good)
        return len(states) == 30 and all(state.status is ImportStatus.FAILED for state in states)

    project.wait_for(all_failed)
    assert all(state.next_attempt_at is not None for state in project.states(*good))
    for did in good:
        network.network.behave(did=did, faults=())
    project.wait_for(lambda: project.is_complete(good))
    for state in project.states(*bad):
        assert (state.status, state.attempts, state.next_attempt_at) == (ImportStatus.FAILED, 1, None)
        assert state.error_code == AccountTakenDown.code


def test_what_many_processes_queue_at_once_is_imported_once_each(
    project: Project, network: Running, instance: dg.DagsterInstance
) -> None:
    dids = accounts(network, 8)
    # every account is queued by two processes
    calls = [project.parity("import", did, "--collection", POST, "--queue") for did in [*dids, *dids]]
    assert [process.wait(120) for process in calls] == [0] * 16
    wanted = {Pair(did, POST): 1 for did in dids}

    def are_materialized() -> bool:
        found = project.materializations(instance)
        return all(found[pair] for pair in wanted)

    project.wait_for(are_materialized)
    time.sleep(6)
    found = project.materializations(instance)
    assert {pair: found[pair] for pair in wanted} == wanted
    assert all(network.network.log.cursors(did, POST).count(None) == 1 for did in dids)
    batches = [run.tags[BATCH_TAG] for run in instance.get_runs() if BATCH_TAG in run.tags]
    assert len(batches) == len(set(batches))


def test_after_a_kill_everything_ends_complete_and_no_run_counts_as_running_for_ever(
    project: Project, network: Running, instance: dg.DagsterInstance
) -> None:
    dids = accounts(network, 30)
    for did in dids:
        network.network.behave(did=did, latency=0.5)
    project.drop("killed.txt", dids)
    project.wait_for(
        lambda: (
            any(state.status is ImportStatus.IN_PROGRESS for state in project.states(*dids))
            and any(state.status is ImportStatus.COMPLETED for state in project.states(*dids))
        )
    )
    project.kill()
    assert not project.is_complete(dids)
    for did in dids:
        network.network.behave(did=did, latency=0)
    project.start()
    project.wait_for(lambda: project.is_complete(dids))
    project.wait_for(lambda: not _unfinished(instance), 60)
    with closing(ImportService(project.settings, report=False)) as service:
        rows = service.find_states()
    expected = network.network.counts()
    for state in rows:
        if state.did in dids:
            assert state.records_synced == expected.get((state.did, state.collection), 0)


def test_a_killed_daemon_leaves_its_run_to_finish_and_the_next_daemon_does_not_repeat_it(
    project: Project, network: Running, instance: dg.DagsterInstance
) -> None:
    dids = accounts(network, 30)
    for did in dids:
        network.network.behave(did=did, latency=0.5)
    project.drop("orphaned.txt", dids)
    project.wait_for(lambda: any(state.status is ImportStatus.IN_PROGRESS for state in project.states(*dids)))
    project.kill("dagster._daemon")
    assert project.process is not None
    project.process.wait(60)  # `dagster dev` does not live without it
    project.start()
    project.wait_for(lambda: project.is_complete(dids))
    project.wait_for(lambda: not _unfinished(instance), 60)
    found = project.materializations(instance)
    assert {found[Pair(did, nsid)] for did in dids for nsid in DEFAULT_COLLECTIONS} == {1}
    assert all(network.network.log.cursors(did, POST).count(None) == 1 for did in dids)


def forking(project: Project) -> list[psutil.Process]:
    """The processes that runs are forked from; the runs themselves look the same."""
    found = []
    for process in project.processes("run_server"):
        parent = process.parent()
        if parent is not None and "run_server" not in " ".join(parent.cmdline()):
            found.append(process)
    return found


def test_what_a_canceled_run_leaves_waits_until_a_person_asks_for_it(
    project: Project, network: Running, instance: dg.DagsterInstance
) -> None:
    dids = accounts(network, 20)
    for did in dids:
        network.network.behave(did=did, latency=0.5)
    project.drop("canceled.txt", dids)
    project.wait_for(lambda: any(state.status is ImportStatus.IN_PROGRESS for state in project.states(*dids)))
    run_id = next(state.run_id for state in project.states(*dids) if state.status is ImportStatus.IN_PROGRESS)
    assert run_id is not None
    assert instance.run_launcher.terminate(run_id)  # what the UI's button does
    for did in dids:
        network.network.behave(did=did, latency=0)

    def is_canceled() -> bool:
        run = instance.get_run_by_id(run_id)
        return run is not None and run.status is dg.DagsterRunStatus.CANCELED

    def is_held() -> bool:
        table = project.settings.state_table
        with closing(connect(project.settings, autocommit=True)) as connection:
            # of these accounts: what other tests of this file left failed is in no batch
            left = f"SELECT batch FROM {table} WHERE status <> 'completed' AND did = ANY(%s)"
            rows = connection.execute(left, (dids,)).fetchall()
        return bool(rows) and {batch for (batch,) in rows} == {f"held:{run_id}"}

    project.wait_for(is_canceled)
    project.wait_for(is_held)
    # several threads of the daemon launch runs; they are forked from one process
    assert len(forking(project)) == 1
    assert project.parity("import", "--resume", "--queue").wait(60) == 0
    project.wait_for(lambda: project.is_complete(dids))


def test_a_killed_run_that_reads_a_list_is_followed_by_another_and_the_kill_is_told(
    project: Project, network: Running, instance: dg.DagsterInstance
) -> None:
    dids = accounts(network, 3)
    project.drop("unread.txt", [*dids, "nobody.sample.test"])  # a handle without an answer keeps the run waiting
    wanted = dg.RunsFilter(job_name=READ_DID_LIST, tags={LIST_TAG: "unread.txt"})
    project.wait_for(lambda: len(project.states(*dids)) == 15)
    (run,) = instance.get_runs(wanted)
    os.kill(int(run.tags[WORKER_TAG].split()[1]), signal.SIGKILL)

    def is_read() -> bool:
        records = instance.fetch_materializations(DID_LISTS_KEY, limit=10).records
        events = [record.asset_materialization for record in records]
        return any(event is not None and event.metadata["file"].value == "unread.txt" for event in events)

    project.wait_for(is_read, 180)
    assert [run.status for run in instance.get_runs(wanted)][1:] == [dg.DagsterRunStatus.FAILURE]
    observed = instance.fetch_observations(DID_LISTS_KEY, limit=1).records[0].event_log_entry.asset_observation
    assert observed is not None
    assert "ended early" in str(observed.description)
    project.wait_for(lambda: project.is_complete(dids))


def _unfinished(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    return [run for run in instance.get_runs() if not run.is_finished]


def test_our_runs_are_forked_and_those_of_other_code_locations_start_and_end_as_dagster_does_it(
    project: Project, instance: dg.DagsterInstance
) -> None:
    def launch(location: str, job: str) -> str:
        command = ["-m", "dagster", "job", "launch", "-w", "workspace.yaml", "-l", location, "-j", job]
        environment = {**project.environment, "DAGSTER_HOME": str(project.folder)}
        done = subprocess.run(
            [sys.executable, *command], cwd=project.folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return instance.get_runs(dg.RunsFilter(job_name=job), limit=1)[0].run_id

    def status(run_id: str) -> dg.DagsterRunStatus:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        return run.status

    with ThreadPoolExecutor() as threads:
        ours, theirs, canceled = threads.map(
            launch, ("parity_dagster.definitions", "other.py", "other.py"), ("run_all_checks", "nothing", "waiting")
        )
    project.wait_for(lambda: status(ours) is status(theirs) is dg.DagsterRunStatus.SUCCESS)
    project.wait_for(lambda: status(canceled) is dg.DagsterRunStatus.STARTED)
    for run_id, is_forked in ((ours, True), (theirs, False), (canceled, False)):
        run = instance.get_run_by_id(run_id)
        assert run is not None
        assert (WORKER_TAG in run.tags, ".dagster/grpc_info" in run.tags) == (is_forked, not is_forked)
    assert instance.run_launcher.terminate(canceled)
    project.wait_for(lambda: status(canceled) is dg.DagsterRunStatus.CANCELED)
