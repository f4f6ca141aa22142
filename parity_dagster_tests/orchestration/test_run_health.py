"""A run that nobody works on any more is marked as failed, whoever launched it, and no other is."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import dagster as dg
import pytest

from parity_dagster.dagster_instance.storage import parity_instance
from parity_dagster.definitions import build_defs
from parity_dagster.orchestration.run_health import HELD_TAG, QUIET_SECONDS, at_work, fail_lost_runs
from parity_dagster.sample_network import POST, Running
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect
from parity_dagster.store.outbox import RUN_LOCK, find_runs_at_work, hold_run
from parity_dagster_tests.dagster_runs import run
from parity_dagster_tests.imports import OF_THIS_DATABASE, query


@pytest.fixture
def settings(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    return settings


@pytest.fixture
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    with parity_instance(settings) as found:
        yield found


def wait_for(what: Callable[[], object], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


def is_at_work(settings: Settings, run_id: str) -> bool:
    with closing(connect(settings, autocommit=True)) as connection:
        return find_runs_at_work(connection, [run_id, "another"]) == {run_id}


def work(settings: Settings, did: str) -> NoReturn:
    try:
        with parity_instance(settings) as instance:
            run(settings, instance, "import_records", config={"dids": [did], "collections": [POST]})
    finally:
        os._exit(1)


def test_a_killed_run_is_noticed_when_it_has_been_quiet_and_its_pairs_go_on(
    settings: Settings, instance: dg.DagsterInstance, network: Running
) -> None:
    did = network.network.add_account({POST: 120})
    network.network.behave(did=did, latency=600.0)
    pid = os.fork()
    if pid == 0:
        work(settings, did)
    try:
        wait_for(lambda: did in [entry.did for entry in network.network.log.entries()])
        (started,) = instance.get_runs()
        assert started.status is dg.DagsterRunStatus.STARTED
        assert fail_lost_runs(instance, settings, quiet=0) == [], "it is at work"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    network.network.behave(did=did, latency=0)
    wait_for(lambda: not is_at_work(settings, started.run_id))
    assert fail_lost_runs(instance, settings, quiet=QUIET_SECONDS) == [], "it may be between two steps"
    sensor = build_defs(settings).get_repository_def().get_sensor_def("run_health_sensor")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    with dg.build_sensor_context(instance=instance) as context:
        tick = sensor(context)
        assert isinstance(tick, dg.SkipReason)
        assert tick.skip_message == "No run is lost."
    assert fail_lost_runs(instance, settings, quiet=0, wait=lambda _: None) == [started.run_id]
    (ended,) = instance.get_runs()
    assert ended.status is dg.DagsterRunStatus.FAILURE
    assert fail_lost_runs(instance, settings, quiet=0) == []
    with closing(ImportService(settings, report=False)) as service:
        assert service.import_user_collection(did, POST).is_success


def test_runs_that_never_held_their_lock_and_those_that_have_ended_are_left_alone(
    settings: Settings, instance: dg.DagsterInstance, network: Running
) -> None:
    did = network.network.add_account({POST: 1})
    done = run(settings, instance, "import_records", config={"dids": [did]})
    theirs = dg.DagsterRun(job_name="of_another_location", status=dg.DagsterRunStatus.STARTED)
    instance.add_run(theirs)
    assert fail_lost_runs(instance, settings, quiet=0) == []
    statuses = {found.run_id: found.status for found in instance.get_runs()}
    assert statuses == {theirs.run_id: dg.DagsterRunStatus.STARTED, done.run_id: dg.DagsterRunStatus.SUCCESS}


def test_a_run_whose_session_was_lost_a_moment_ago_is_not_called_dead(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    started = dg.DagsterRun(job_name="theirs", status=dg.DagsterRunStatus.STARTED, tags={HELD_TAG: "true"})
    instance.add_run(started)
    with closing(connect(settings, autocommit=True)) as connection:
        given: list[float] = []

        def meanwhile(seconds: float) -> None:
            given.append(seconds)
            hold_run(connection, started.run_id)

        assert fail_lost_runs(instance, settings, quiet=-1, wait=meanwhile) == []
        assert given[0] >= 10, "it looks after its session every five seconds"
        assert fail_lost_runs(instance, settings, quiet=-1, wait=meanwhile) == []
        assert len(given) == 1, "nobody waits for a run that is held"
    assert fail_lost_runs(instance, settings, quiet=-1, wait=given.append) == [started.run_id]


@pytest.mark.long
def test_a_run_whose_session_is_lost_shows_again_that_it_is_at_work(settings: Settings) -> None:
    with at_work(None, settings, "a-run"):
        assert is_at_work(settings, "a-run")
        query(
            settings,
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            f" AND classid = {RUN_LOCK} AND {OF_THIS_DATABASE}",
        )
        wait_for(lambda: not is_at_work(settings, "a-run"))
        wait_for(lambda: is_at_work(settings, "a-run"))
    wait_for(lambda: not is_at_work(settings, "a-run"))
