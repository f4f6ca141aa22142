"""Imports that run outside of Dagster are seen in Dagster, and never break because of it."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from parity_dagster.dagster_instance.keys import RECORDS_KEY, to_partition_key
from parity_dagster.dagster_instance.storage import parity_instance
from parity_dagster.models import ImportStatus, Pair
from parity_dagster.orchestration.metadata import state_from_metadata
from parity_dagster.orchestration.partitions import DIDS
from parity_dagster.orchestration.reporter import BATCH_SIZE, DagsterReporter
from parity_dagster.sample_network import LIKE, POST, Running, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings, load_settings
from parity_dagster_tests.dagster_runs import remembered, row
from parity_dagster_tests.imports import query


@pytest.fixture
def network() -> Iterator[Running]:
    with run_in_thread(SampleNetwork(seed=13)) as running:
        yield running


@pytest.fixture
def settings(database_url: str, network: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings that the environment gives, which is where the reporter looks."""
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "DATABASE_URL": database_url,
        "HOME": str(tmp_path),
        "PLC_URL": network.plc_url,
        "COLLECTIONS": f"{POST},{LIKE}",
        "ALLOW_PRIVATE_HOSTS": "1",
        "PAGE_DELAY": "0",
    }.items():
        monkeypatch.setenv(f"PARITY_{name}", value)
    return load_settings()


@pytest.fixture
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    with parity_instance() as found:
        yield found


@pytest.fixture
def service(settings: Settings) -> Iterator[ImportService]:
    with ImportService(settings, listeners=[DagsterReporter()], report=False) as service:
        yield service


def test_each_pair_is_materialized_with_its_row_when_the_call_returns(
    service: ImportService, instance: dg.DagsterInstance, network: Running
) -> None:
    did = network.network.add_account({POST: 130, LIKE: 4})
    assert service.import_user(did).is_success
    assert instance.get_dynamic_partitions(DIDS) == [did]
    for pair in (Pair(did, POST), Pair(did, LIKE)):
        assert remembered(instance, pair) == row(service.settings, pair)


def test_a_failed_pair_is_observed_with_its_row_and_not_materialized(
    service: ImportService, instance: dg.DagsterInstance, network: Running
) -> None:
    did = network.network.add_account({POST: 3}, status="takendown")
    assert service.import_user_collection(did, POST).is_failed
    (record,) = instance.fetch_observations(RECORDS_KEY, limit=5).records
    assert record.partition_key == to_partition_key(Pair(did, POST))
    assert record.asset_observation is not None
    state = state_from_metadata(record.asset_observation.metadata)
    assert state == row(service.settings, Pair(did, POST))
    assert state.status is ImportStatus.FAILED
    assert instance.get_materialized_partitions(RECORDS_KEY) == set()


def test_what_is_refused_before_it_has_a_row_leaves_nothing_in_dagster(
    service: ImportService, instance: dg.DagsterInstance, network: Running
) -> None:
    did = network.network.add_account({POST: 1})
    assert service.import_user_collection(did, "com.example.other").is_failed
    assert instance.get_dynamic_partitions(DIDS) == []


def test_many_pairs_are_reported_in_batches_and_each_once(
    service: ImportService, instance: dg.DagsterInstance, network: Running
) -> None:
    dids = [network.network.add_account({POST: 1}) for _ in range(BATCH_SIZE + 20)]
    service.import_pairs(Pair(did, POST) for did in dids)
    assert instance.get_materialized_partitions(RECORDS_KEY) == {str(to_partition_key(Pair(did, POST))) for did in dids}
    assert len(instance.fetch_materializations(RECORDS_KEY, limit=2 * len(dids)).records) == len(dids)


def test_complete_pairs_that_nobody_reads_leave_dagsters_log_as_it_is(
    service: ImportService, instance: dg.DagsterInstance, network: Running
) -> None:
    did = network.network.add_account({POST: 3, LIKE: 1})
    pairs = [Pair(did, POST), Pair(did, LIKE)]
    for refresh in (False, False, True, True, False):
        service.import_pairs(pairs, refresh=refresh)
        for pair in pairs:  # a refresh that found nothing new writes the row, so it is told; the others are not
            assert remembered(instance, pair) == row(service.settings, pair)
    assert len(instance.fetch_materializations(RECORDS_KEY, limit=100).records) == len(pairs) * 3


def test_a_complete_pair_that_dagster_does_not_know_or_has_wrong_is_reported_without_being_read(
    service: ImportService, instance: dg.DagsterInstance, network: Running
) -> None:
    did = network.network.add_account({POST: 3, LIKE: 1})
    with ImportService(service.settings, report=False) as silent:
        silent.import_user_collection(did, POST)
    service.import_user_collection(did, LIKE)
    query(service.settings, "UPDATE parity_import_states SET pages = 7 WHERE collection = %s", LIKE)
    service.import_user(did)
    for pair in (Pair(did, POST), Pair(did, LIKE)):
        assert remembered(instance, pair) == row(service.settings, pair)


def test_calls_from_several_threads_report_everything(
    service: ImportService, instance: dg.DagsterInstance, network: Running
) -> None:
    dids = [network.network.add_account({POST: 2}) for _ in range(6)]
    threads = [threading.Thread(target=service.import_user_collection, args=(did, POST)) for did in dids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(instance.get_materialized_partitions(RECORDS_KEY)) == len(dids)


def test_an_import_succeeds_without_dagster_and_the_next_one_makes_up_for_it(
    service: ImportService,
    network: Running,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A dagster.yaml that cannot be loaded stands for everything that can be wrong with an instance."""
    did = network.network.add_account({POST: 5})
    pair = Pair(did, POST)
    broken = tmp_path / "dagster.yaml"
    broken.write_text("storage: {custom: {module: nowhere, class: Nothing, config: {}}}\n")
    with caplog.at_level(logging.WARNING, logger="parity_dagster"):
        assert service.import_user_collection(did, POST).is_success
    assert "not shown in Dagster yet" in caplog.text
    assert row(service.settings, pair) is not None

    broken.unlink()
    other = network.network.add_account({POST: 1})
    with ImportService(service.settings, listeners=[DagsterReporter()], report=False) as next_service:
        assert next_service.import_user_collection(other, POST).is_success
    with parity_instance() as instance:
        assert remembered(instance, pair) == row(service.settings, pair)


def test_the_command_line_can_load_the_reporter_without_loading_dagster() -> None:
    code = "import sys, parity_dagster.orchestration.reporter; print('dagster' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_service_with_settings_of_its_own_reports_to_the_instance_on_its_own_database(
    database_url: str, network: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the environment decides: without this, an embedded server would start in the current folder."""
    monkeypatch.chdir(tmp_path)
    own = load_settings(
        database_url=database_url,
        home=tmp_path / "home",
        plc_url=network.plc_url,
        allow_private_hosts=True,
        page_delay=0,
    )
    did = network.network.add_account({POST: 3})
    with ImportService(own) as service:
        assert service.import_user_collection(did, POST).is_success
        state = row(own, Pair(did, POST))
    with parity_instance(own) as instance:
        assert remembered(instance, Pair(did, POST)) == state
    assert not (tmp_path / ".parity").exists()
