"""A pair's cell in the matrix has one colour, whoever launched its import: what Dagster's UI makes of the events."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import NamedTuple

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.execution.api import execute_run
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

from parity_dagster.dagster_instance.keys import RECORDS_KEY, from_partition_key
from parity_dagster.dagster_instance.storage import parity_instance
from parity_dagster.definitions import build_defs
from parity_dagster.events import ImportEvent, ImportProgress
from parity_dagster.models import Pair
from parity_dagster.orchestration.partitions import build_partitions, register_dids
from parity_dagster.orchestration.queue import launch_due
from parity_dagster.orchestration.report import report_pending
from parity_dagster.sample_network import POST, Fault, Running
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster_tests.dagster_runs import rectangle, row, run

REFUSES = (Fault(kind="400", method="listRecords"),)


class Cells(NamedTuple):
    """Partitions by colour."""

    green: set[Pair]
    red: set[Pair]
    blue: set[Pair]
    """Materializing."""


@pytest.fixture
def settings(settings_of_environment: Settings) -> Settings:
    return settings_of_environment


@pytest.fixture
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    with parity_instance() as found:
        yield found


@pytest.fixture
def good(network: Running) -> Pair:
    return Pair(network.network.add_account({POST: 3}), POST)


@pytest.fixture
def bad(network: Running) -> Pair:
    did = network.network.add_account({POST: 3})
    network.network.behave(did=did, faults=REFUSES)
    return Pair(did, POST)


@pytest.fixture
def gone(network: Running) -> Pair:
    return Pair(network.network.add_account({POST: 3}, status="deactivated"), POST)


def cells(instance: dg.DagsterInstance, settings: Settings) -> Cells:
    partitions = build_partitions(settings)
    cached = get_and_update_asset_status_cache_value(instance, RECORDS_KEY, partitions)
    if cached is None:
        return Cells(set(), set(), set())
    with partition_loading_context(dynamic_partitions_store=instance):
        return Cells(
            *(
                {from_partition_key(str(key)) for key in subset.get_partition_keys()}
                for subset in (
                    cached.deserialize_materialized_partition_subsets(partitions),
                    cached.deserialize_failed_partition_subsets(partitions),
                    cached.deserialize_in_progress_partition_subsets(partitions),
                )
            )
        )


def queued(settings: Settings, instance: dg.DagsterInstance, *pairs: Pair) -> dg.ExecuteInProcessResult:
    """A run of the queue with these pairs."""
    with ImportService(settings, report=False) as service:
        service.enqueue(pairs)
    (request,) = launch_due(instance, settings)
    return run(settings, instance, "import_records", config=request.run_config, tags=request.tags)


@pytest.mark.parametrize("by", ["queue", "job", "backfill"])
def test_a_failed_pair_is_red_and_one_that_is_gone_is_not_whoever_launched_them(
    settings: Settings, instance: dg.DagsterInstance, good: Pair, bad: Pair, gone: Pair, by: str
) -> None:
    pairs = [good, bad, gone]
    register_dids(instance, [pair.did for pair in pairs])
    if by == "queue":
        result = queued(settings, instance, *pairs)
    elif by == "job":
        config = {"dids": [pair.did for pair in pairs], "collections": [POST]}
        result = run(settings, instance, "import_records", config=config)
    else:
        result = run(settings, instance, tags=rectangle(good, gone))
    assert not result.success
    assert cells(instance, settings) == Cells({good}, {bad}, set())


@pytest.mark.long
def test_what_a_run_had_found_gone_when_it_was_killed_is_not_red(
    settings: Settings, instance: dg.DagsterInstance, network: Running, good: Pair, gone: Pair
) -> None:
    network.network.behave(did=good.did, latency=600.0)
    pid = os.fork()
    if pid == 0:
        try:
            with parity_instance() as own:
                run(settings, own, "import_records", config={"dids": [good.did, gone.did], "collections": [POST]})
        finally:
            os._exit(1)
    try:
        until = time.monotonic() + 60
        while not instance.fetch_observations(RECORDS_KEY, limit=1).records:
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    (killed,) = instance.get_runs()
    instance.report_run_failed(killed)
    assert cells(instance, settings) == Cells(set(), {good}, set())


def test_pairs_of_the_queue_are_materializing_while_they_are_worked_on(
    settings: Settings, instance: dg.DagsterInstance, good: Pair
) -> None:
    seen: list[Cells] = []

    def look(event: ImportEvent) -> None:
        if isinstance(event, ImportProgress):
            seen.append(cells(instance, settings))

    with ImportService(settings, report=False) as service:
        service.enqueue([good])
    (request,) = launch_due(instance, settings)
    service = ImportService(settings, [look])
    job = build_defs(settings, {"import_service": service}).resolve_job_def("import_records")
    with service:
        assert job.execute_in_process(instance=instance, run_config=request.run_config, tags=request.tags).success
    assert seen
    assert set(map(str, seen)) == {str(Cells(set(), set(), {good}))}
    assert cells(instance, settings) == Cells({good}, set(), set())


def test_a_red_pair_whose_account_is_gone_by_now_is_red_no_more(
    settings: Settings, instance: dg.DagsterInstance, network: Running, bad: Pair
) -> None:
    assert not queued(settings, instance, bad).success
    assert cells(instance, settings).red == {bad}
    network.network.set_status(bad.did, "takendown")
    # of the command line, so of no run
    with ImportService(settings) as service:
        assert service.import_user_collection(*bad).is_gone
    report_pending(instance, settings)
    assert cells(instance, settings) == Cells(set(), set(), set())


def test_what_was_complete_before_its_account_went_stays_green(
    settings: Settings, instance: dg.DagsterInstance, network: Running, good: Pair
) -> None:
    assert queued(settings, instance, good).success
    network.network.set_status(good.did, "deleted")
    config = {"dids": [good.did], "collections": [POST], "refresh": True}
    assert run(settings, instance, "import_records", config=config).success
    state = row(settings, good)
    assert state is not None
    assert state.is_gone
    assert cells(instance, settings) == Cells({good}, set(), set())


def test_a_failed_run_of_the_queue_that_is_executed_again_tries_its_failed_pairs_again(
    settings: Settings, instance: dg.DagsterInstance, network: Running, good: Pair, bad: Pair
) -> None:
    first = queued(settings, instance, good, bad)
    assert not first.success
    job = build_defs(settings).resolve_job_def("import_records")

    # as the button Re-execute makes it
    tags = {**first.dagster_run.tags, "dagster/parent_run_id": first.run_id, "dagster/root_run_id": first.run_id}

    def executed_again() -> str:
        """The id of a run that has failed, or nothing."""
        again = instance.create_run_for_job(
            job, run_config=first.dagster_run.run_config, tags=tags, parent_run_id=first.run_id,
            root_run_id=first.run_id,
        )  # fmt: skip
        return "" if execute_run(InMemoryJob(job), again, instance).success else again.run_id

    requests = len(network.network.log.entries())
    assert executed_again()
    assert len(network.network.log.entries()) > requests
    network.network.behave(did=bad.did, faults=())
    assert not executed_again()
    state = row(settings, bad)
    assert state is not None
    assert not state.can_resume
    assert cells(instance, settings) == Cells({good, bad}, set(), set())
    # never green with nothing done
    (said,) = instance.all_logs(executed_again(), of_type=dg.DagsterEventType.STEP_FAILURE)
    assert said.dagster_event is not None
    why = said.dagster_event.step_failure_data.user_failure_data
    assert why is not None
    assert "Nothing is left" in (why.description or "")
