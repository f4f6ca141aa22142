"""The state table comes back from Dagster's metadata alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import dagster as dg
import psycopg
import pytest

from parity_dagster.dagster_instance.keys import RECORDS_KEY, to_partition_key
from parity_dagster.dagster_instance.storage import parity_instance
from parity_dagster.models import ImportState, ImportStatus, Pair
from parity_dagster.orchestration.rebuild import rebuild_states
from parity_dagster.sample_network import LIKE, POST, Fault, Running
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster_tests.dagster_runs import ReportedAtOnce


@pytest.fixture
def settings(settings_of_environment: Settings) -> Settings:
    return settings_of_environment


@pytest.fixture
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    with parity_instance() as found:
        yield found


@pytest.fixture
def service(settings: Settings, instance: dg.DagsterInstance) -> Iterator[ImportService]:
    with ImportService(settings, [ReportedAtOnce(instance, settings)]) as service:
        yield service


@pytest.fixture
def database(settings: Settings) -> Iterator[psycopg.Connection]:
    assert settings.database_url is not None
    with closing(psycopg.connect(settings.database_url.get_secret_value(), autocommit=True)) as connection:
        yield connection


def everything(service: ImportService) -> list[ImportState]:
    return service.find_states()


def fail_in_the_middle(service: ImportService, network: Running, did: str) -> ImportState:
    """Import an account whose PDS breaks after the second page of posts."""
    network.network.behave(faults=(Fault(kind="503", method="listRecords", skip=2),))
    assert service.import_user_collection(did, POST).is_failed
    network.network.behave_normally()
    state = service.get_status(did, POST)
    assert state is not None
    assert state.status is ImportStatus.FAILED
    assert state.cursor
    return state


def test_a_lost_table_comes_back_row_by_row(
    service: ImportService,
    settings: Settings,
    instance: dg.DagsterInstance,
    network: Running,
    database: psycopg.Connection,
) -> None:
    dids = [network.network.add_account({POST: 350, LIKE: 3}) for _ in range(3)]
    service.import_user(dids[0])
    network.network.set_status(dids[1], "takendown")
    service.import_user(dids[1])
    fail_in_the_middle(service, network, dids[2])
    before = everything(service)
    assert len(before) == 5
    database.execute("TRUNCATE parity_import_states")
    assert rebuild_states(instance, settings) == 5
    assert everything(service) == before
    assert rebuild_states(instance, settings) == 0
    # the pair that failed in the middle goes on where it was
    network.network.log.clear()
    assert service.import_user_collection(dids[2], POST).is_success
    assert None not in network.network.log.cursors(dids[2], POST)


def test_a_damaged_row_is_repaired(
    service: ImportService,
    settings: Settings,
    instance: dg.DagsterInstance,
    network: Running,
    database: psycopg.Connection,
) -> None:
    did = network.network.add_account({POST: 30, LIKE: 3})
    service.import_user(did)
    before = everything(service)
    database.execute(
        "UPDATE parity_import_states SET records_synced = 0, status = 'failed' WHERE collection = %s", [POST]
    )
    assert rebuild_states(instance, settings) == 1
    assert everything(service) == before


def test_the_newest_event_of_a_pair_is_its_row(
    service: ImportService,
    settings: Settings,
    instance: dg.DagsterInstance,
    network: Running,
    database: psycopg.Connection,
) -> None:
    """First complete, then a refresh that failed: the observation is newer than the materialization."""
    did = network.network.add_account({POST: 30})
    service.import_user_collection(did, POST)
    network.network.set_status(did, "deactivated")
    service.import_user_collection(did, POST, refresh=True)
    before = everything(service)
    assert before[0].status is ImportStatus.FAILED
    database.execute("TRUNCATE parity_import_states")
    rebuild_states(instance, settings)
    assert everything(service) == before


def test_a_row_that_knows_more_than_dagster_stays(
    settings: Settings, service: ImportService, instance: dg.DagsterInstance, network: Running
) -> None:
    did = network.network.add_account({POST: 30})
    service.import_user_collection(did, POST)
    network.network.put_record(did, POST, {"$type": POST, "text": "later"})
    with ImportService(settings, report=False) as unheard:
        unheard.import_user_collection(did, POST, refresh=True)
    before = everything(service)
    assert before[0].records_synced == 31
    assert rebuild_states(instance, settings) == 0
    assert everything(service) == before


def test_a_walk_whose_pages_are_lost_starts_again_and_loses_no_record(
    service: ImportService,
    settings: Settings,
    instance: dg.DagsterInstance,
    network: Running,
    database: psycopg.Connection,
) -> None:
    """Going on at the cursor without the keys of the earlier pages would delete their records at the end."""
    did = network.network.add_account({POST: 350})
    fail_in_the_middle(service, network, did)
    database.execute("TRUNCATE parity_import_states, parity_walk_pages")
    rebuild_states(instance, settings)
    state = service.get_status(did, POST)
    assert state is not None
    assert state.cursor is None
    assert service.resume(state).records_synced == 350
    assert database.execute("SELECT count(*) FROM atproto_records").fetchone() == (350,)


def test_a_number_that_somebody_else_has_by_now_is_not_taken_twice(
    service: ImportService,
    settings: Settings,
    instance: dg.DagsterInstance,
    network: Running,
    database: psycopg.Connection,
) -> None:
    dids = [network.network.add_account({POST: 3}) for _ in range(2)]
    service.import_user_collection(dids[0], POST)
    database.execute("TRUNCATE parity_import_states RESTART IDENTITY")
    service.import_user_collection(dids[1], POST)
    rebuild_states(instance, settings)
    states = everything(service)
    assert {state.did for state in states} == set(dids)
    assert len({state.id for state in states}) == 2
    # the sequence is past every restored number
    newcomer = network.network.add_account({POST: 3})
    assert service.import_user_collection(newcomer, POST).is_success


def test_events_of_somebody_else_are_passed_over(
    service: ImportService, settings: Settings, instance: dg.DagsterInstance
) -> None:
    key = to_partition_key(Pair("did:plc:" + "a" * 24, POST))
    instance.report_runless_asset_event(dg.AssetMaterialization(RECORDS_KEY, partition=key, metadata={"id": 1}))
    instance.report_runless_asset_event(dg.AssetMaterialization(RECORDS_KEY))
    assert rebuild_states(instance, settings) == 0
