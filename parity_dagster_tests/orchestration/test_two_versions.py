"""An upgrade in which two versions meet: each process says what is to be done, and nothing is lost or done twice."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
import psycopg
import pytest

from parity_dagster.definitions import build_defs
from parity_dagster.errors import MigrationNeeded
from parity_dagster.models import ImportStatus, Pair
from parity_dagster.orchestration.queue import launch_due
from parity_dagster.sample_network import LIKE, POST, Running
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.schema import SCHEMA_REVISION
from parity_dagster_tests.dagster_runs import run
from parity_dagster_tests.imports import assert_equal, query, settings_for

OTHERS = [("0016", r"run `parity migrate`"), ("9999", r"upgrade it, and start its processes anew")]
"""Revisions of a database that is not migrated yet, and of one that was by a newer version; and what is to be done."""


@pytest.fixture
def settings(settings: Settings, network: Running) -> Settings:
    return settings_for(settings, network, collections=(POST, LIKE))


@contextmanager
def of_another_version(settings: Settings, revision: str) -> Iterator[None]:
    """The database is of another version meanwhile."""
    assert settings.database_url is not None
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as conn:
        conn.execute("UPDATE parity_alembic_version SET version_num = %s", (revision,))
        yield
        conn.execute("UPDATE parity_alembic_version SET version_num = %s", (SCHEMA_REVISION,))


def rows(settings: Settings) -> list[tuple[object, ...]]:
    return query(settings, f"SELECT to_jsonb(s) FROM {settings.state_table} s ORDER BY id")


@pytest.mark.parametrize(("revision", "cure"), OTHERS)
@pytest.mark.long
def test_no_sensor_does_anything_until_the_database_is_of_its_version(
    revision: str, cure: str, settings: Settings, instance: dg.DagsterInstance, network: Running
) -> None:
    pair = Pair(network.network.add_account({POST: 3}), POST)
    with ImportService(settings, report=False) as service:
        service.enqueue([pair])
    before = rows(settings)
    sensors = build_defs(settings).get_repository_def().sensor_defs
    with of_another_version(settings, revision):
        said = {}
        for sensor in sensors:
            if sensor.default_status is dg.DefaultSensorStatus.RUNNING:
                with dg.build_sensor_context(instance=instance, sensor_name=sensor.name) as context:
                    try:
                        said[sensor.name] = str(sensor.evaluate_tick(context).skip_message)
                    except MigrationNeeded as error:
                        said[sensor.name] = str(error)
    for name in ("retry_sensor", "report_sensor", "overview_sensor"):
        assert re.search(cure, said[name])
    assert rows(settings) == before
    assert instance.get_runs() == []
    (request,) = launch_due(instance, settings)
    assert run(settings, instance, "import_records", config=request.run_config, tags=request.tags).success
    assert_equal(settings, network.network, *pair)


@pytest.mark.parametrize(("revision", "cure"), OTHERS)
@pytest.mark.long
def test_a_run_that_meets_a_database_of_another_version_says_so_and_its_pairs_wait(
    revision: str, cure: str, settings: Settings, instance: dg.DagsterInstance, network: Running
) -> None:
    pair = Pair(network.network.add_account({POST: 3}), POST)
    with ImportService(settings, report=False) as service:
        service.enqueue([pair])
    (request,) = launch_due(instance, settings)
    before = rows(settings)
    with of_another_version(settings, revision):
        result = run(settings, instance, "import_records", config=request.run_config, tags=request.tags)
    assert not result.success
    (failure,) = (event for event in result.all_events if event.is_step_failure)
    error = failure.step_failure_data.error
    assert error is not None
    assert re.search(cure, error.message)
    assert error.cause is None, "a sentence is enough"
    assert rows(settings) == before
    with ImportService(settings, report=False) as service:
        assert service.import_user_collection(*pair).is_success


@pytest.mark.long
def test_an_import_that_is_under_way_while_a_newer_version_migrates_goes_on_to_its_end(
    settings: Settings, network: Running
) -> None:
    dids = [network.network.add_account({POST: 250, LIKE: 3}) for _ in range(6)]
    pairs = [Pair(did, nsid) for did in dids for nsid in (POST, LIKE)]
    network.network.behave(did=dids[0], latency=600.0)
    done = threading.Event()
    with ImportService(settings, report=False) as service:
        results = []

        def work() -> None:
            results.extend(service.import_pairs(pairs))
            done.set()

        importing = threading.Thread(target=work)
        importing.start()
        others = f"SELECT count(*) FROM {settings.state_table} WHERE status = 'completed'"
        while query(settings, others) != [(10,)]:
            assert not done.is_set()
        with of_another_version(settings, "9999"):
            for table in (settings.state_table, "atproto_records", "parity_identities"):
                query(settings, f"ALTER TABLE {table} ADD COLUMN of_a_later_version integer DEFAULT 1")
            network.network.behave(did=dids[0], latency=0.0)
            importing.join(60)
        assert done.is_set()
        assert all(result.is_success for result in results)
        assert {state.status for state in service.find_states()} == {ImportStatus.COMPLETED}
    for pair in pairs:
        assert_equal(settings, network.network, *pair)
