"""The sensor that keeps copies fresh, and the queue behind it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
import pytest

from parity_dagster.definitions import build_defs
from parity_dagster.models import Pair
from parity_dagster.orchestration.queue import launch_due
from parity_dagster.orchestration.refreshing import refresh_stale
from parity_dagster.sample_network import LIKE, POST, Running, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster_tests.dagster_runs import run
from parity_dagster_tests.imports import assert_equal, query, settings_for


@pytest.fixture
def network() -> Iterator[Running]:
    with run_in_thread(SampleNetwork(hosts=2, seed=5)) as running:
        yield running


@pytest.fixture
def settings(settings: Settings, network: Running) -> Settings:
    return settings_for(settings, network, collections=(POST, LIKE), refresh_every=timedelta(days=7))


def test_the_sensor_is_off_until_an_age_is_set(settings: Settings, instance: dg.DagsterInstance) -> None:
    for every, status, said in (
        (None, dg.DefaultSensorStatus.STOPPED, "PARITY_REFRESH_EVERY is not set, e.g. to 7d."),
        (timedelta(days=7), dg.DefaultSensorStatus.RUNNING, "Nothing is due."),
    ):
        changed = settings.model_copy(update={"refresh_every": every})
        sensor = build_defs(changed).get_repository_def().get_sensor_def("refresh_sensor")
        assert sensor.default_status is status
        with dg.build_sensor_context(instance=instance) as context:
            assert sensor.evaluate_tick(context).skip_message == said


def test_what_has_changed_is_read_again_by_a_run_and_what_has_not_is_confirmed_beside_dagster(
    settings: Settings, instance: dg.DagsterInstance, network: Running
) -> None:
    dids = [network.network.add_account({POST: 3, LIKE: 2}, host=host) for host in 5 * ["pds-1"] + ["pds-2"]]
    with ImportService(settings, report=False) as service:
        service.import_pairs(Pair(did, nsid) for did in dids for nsid in (POST, LIKE))
        query(settings, "UPDATE parity_import_states SET completed_at = completed_at - interval '8 days'")
        network.network.put_record(dids[0], POST)
        assert refresh_stale(settings) == (
            "4 pairs queued and 8 confirmed by 1 page of their hosts' lists; the stalest copy is 0 minutes old."
        )
        (request,) = launch_due(instance, settings)
        assert run(settings, instance, "import_records", config=request.run_config, tags=request.tags).success
        assert_equal(settings, network.network, dids[0], POST)
        assert refresh_stale(settings) == "Nothing is due; the stalest copy is 0 minutes old."
        assert all(state.completed_at is not None for state in service.find_states())
