"""Discovery in Dagster: the sensor goes on with lists by itself, a stretch at a time, and a run shows what came."""

from __future__ import annotations

import threading
from typing import Any

import dagster as dg
import pytest

from parity_dagster.dagster_instance.keys import RECORDS_KEY
from parity_dagster.definitions import build_defs
from parity_dagster.models import Discovery
from parity_dagster.orchestration.discovery import (
    ACCOUNTS_PER_RUN,
    DISCOVER_ACCOUNTS,
    DISCOVERED_ACCOUNTS_KEY,
    look_for_lists,
)
from parity_dagster.orchestration.queue import launch_due
from parity_dagster.sample_network import FOLLOW, LIKE, POST, Fault, Running
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster_tests.dagster_runs import run
from parity_dagster_tests.imports import query


@pytest.fixture
def settings(settings: Settings, network: Running) -> Settings:
    return settings.model_copy(update={"relay_url": network.relay_url, "discover": (POST,)})


def add(network: Running, count: int, nsid: str = POST) -> list[str]:
    return [network.network.add_account({nsid: 1}) for _ in range(count)]


def launch(settings: Settings, instance: dg.DagsterInstance, **config: Any) -> dg.ExecuteInProcessResult:
    given = {"ops": {"discovered_accounts": {"config": config}}} if config else {}
    return run(settings, instance, DISCOVER_ACCOUNTS, config=given)


def tick(settings: Settings, instance: dg.DagsterInstance, **bounds: int) -> dg.RunRequest | None:
    return look_for_lists(instance, settings, **bounds).request


def follow(settings: Settings, instance: dg.DagsterInstance, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    return run(settings, instance, DISCOVER_ACCOUNTS, config=request.run_config, tags=request.tags)


def shown(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node("discovered_accounts")
    return {name: value.value for name, value in event.metadata.items()}


def pass_time(settings: Settings, interval: str) -> None:
    query(settings, f"UPDATE parity_discoveries SET tried_at = tried_at - interval '{interval}'")


def test_a_run_queues_the_accounts_and_shows_how_many(
    settings: Settings, instance: dg.DagsterInstance, network: Running
) -> None:
    add(network, 3)
    network.network.behave(host="relay", account_lies=("repeated",))
    metadata = shown(launch(settings, instance))
    assert {name: metadata[name] for name in ("accounts", "known_accounts", "new_imports", "repeated_entries")} == {
        "accounts": 3,
        "known_accounts": 0,
        "new_imports": 6,
        "repeated_entries": 2,
    }
    assert metadata["is_complete"] is True
    assert "problem" not in metadata
    assert POST in metadata["lists"]
    assert query(settings, "SELECT count(*) FROM parity_import_states WHERE status = 'pending'") == [(6,)]
    assert launch_due(instance, settings), "the queue's sensor takes it from there"


def test_the_sensor_goes_on_until_the_end_and_looks_again_in_an_hour(
    settings: Settings, instance: dg.DagsterInstance, network: Running
) -> None:
    add(network, 5)
    accounts = []
    while request := tick(settings, instance, accounts=2):
        accounts.append(shown(follow(settings, instance, request))["accounts"])
    assert accounts == [2, 2, 1]
    pass_time(settings, "59 minutes")
    assert tick(settings, instance) is None
    new = add(network, 1)
    pass_time(settings, "2 minutes")
    request = tick(settings, instance)
    assert request is not None
    assert shown(follow(settings, instance, request))["new_imports"] == 2
    assert query(settings, "SELECT count(*) FROM parity_import_states WHERE did = %s", new[0]) == [(2,)]


def test_a_long_list_that_has_to_be_read_from_its_start_is_read_once_a_day(
    settings: Settings, instance: dg.DagsterInstance, network: Running
) -> None:
    add(network, 3)
    launch(settings, instance)
    query(settings, "UPDATE parity_discoveries SET is_sorted = true, accounts = 20000")
    pass_time(settings, "23 hours")
    assert tick(settings, instance) is None
    pass_time(settings, "2 hours")
    assert tick(settings, instance) is not None


def test_several_lists_take_turns(settings: Settings, instance: dg.DagsterInstance, network: Running) -> None:
    add(network, 1)
    add(network, 1, FOLLOW)
    here = settings.model_copy(update={"discover": (POST, FOLLOW)})
    request = tick(here, instance)
    assert request is not None
    config = request.run_config["ops"]["discovered_accounts"]["config"]
    assert config == {"nsids": sorted((POST, FOLLOW)), "limit": ACCOUNTS_PER_RUN}
    follow(here, instance, request)
    assert tick(here, instance) is None
    query(settings, "UPDATE parity_discoveries SET ended_at = NULL WHERE collection = %s", POST)
    request = tick(here, instance)
    assert request is not None
    assert request.run_config["ops"]["discovered_accounts"]["config"]["nsids"] == [POST]
    # a collection that is not registered is looked for, and what is registered is imported
    assert query(settings, "SELECT DISTINCT collection FROM parity_import_states ORDER BY 1") == [(LIKE,), (POST,)]


@pytest.mark.long
def test_a_server_that_is_away_fails_the_run_and_is_asked_less_and_less_often(
    settings: Settings, instance: dg.DagsterInstance, network: Running
) -> None:
    add(network, 1)
    network.network.take_down_host("relay")
    for minutes in (1, 2, 4):
        request = tick(settings, instance)
        assert request is not None
        result = follow(settings, instance, request)
        assert not result.success
        assert tick(settings, instance) is None
        pass_time(settings, f"{minutes * 60 - 5} seconds")
        assert tick(settings, instance) is None
        pass_time(settings, "10 seconds")
    network.network.bring_up_host("relay")
    request = tick(settings, instance)
    assert request is not None
    assert follow(settings, instance, request).success


def test_what_came_before_a_refusal_is_shown_with_the_problem(
    settings: Settings, instance: dg.DagsterInstance, network: Running
) -> None:
    add(network, 4)
    faults = (Fault(kind="503", method="listReposByCollection", skip=1, times=3),)
    network.network.behave(host="relay", page_cap=2, faults=faults)
    metadata = shown(launch(settings, instance))
    assert (metadata["accounts"], metadata["is_complete"]) == (2, False)
    assert "503" in metadata["problem"]
    assert tick(settings, instance) is None, "it rests for a moment"
    pass_time(settings, "2 minutes")
    assert tick(settings, instance) is not None


@pytest.mark.long
def test_the_sensor_waits_while_a_run_or_a_command_reads_or_too_much_is_queued(
    settings: Settings, instance: dg.DagsterInstance, network: Running
) -> None:
    add(network, 4)
    network.network.behave(host="relay", page_cap=2)
    entered, leave = threading.Event(), threading.Event()

    def wait(_: Discovery) -> None:
        entered.set()
        leave.wait(30)

    with ImportService(settings, report=False) as service:
        thread = threading.Thread(target=lambda: service.discover([POST], on_progress=wait))
        thread.start()
        entered.wait(30)
        assert tick(settings, instance) is None
        assert launch(settings, instance).success, "a run that finds it being read leaves it"
        leave.set()
        thread.join()
    pass_time(settings, "2 hours")
    job = build_defs(settings).resolve_job_def(DISCOVER_ACCOUNTS)
    waiting = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert look_for_lists(instance, settings).reason == "A run is reading."
    instance.delete_run(waiting.run_id)
    assert "More than 7 imports wait" in look_for_lists(instance, settings, most_waiting=7).reason
    ((nsid,),) = query(settings, "SELECT collection FROM parity_import_states WHERE id = 1")
    for change in ("status = 'completed'", "batch = 'held:run'", "collection = 'com.example.former'"):
        query(settings, f"UPDATE parity_import_states SET {change} WHERE id = 1")
        assert tick(settings, instance, most_waiting=7) is not None
        query(
            settings,
            "UPDATE parity_import_states SET status = 'pending', batch = NULL, collection = %s WHERE id = 1",
            nsid,
        )
        assert tick(settings, instance, most_waiting=7) is None


def test_it_is_off_until_collections_are_named(settings: Settings, instance: dg.DagsterInstance) -> None:
    off = settings.model_copy(update={"discover": ()})
    sensor = build_defs(off).get_repository_def().get_sensor_def("discovery_sensor")
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED
    assert look_for_lists(instance, off).request is None
    assert not launch(off, instance).success
    on = build_defs(settings).get_repository_def().get_sensor_def("discovery_sensor")
    assert on.default_status is dg.DefaultSensorStatus.RUNNING


def test_a_tick_of_the_sensor_asks_for_the_run(
    settings: Settings, instance: dg.DagsterInstance, network: Running
) -> None:
    add(network, 1)
    definitions = build_defs(settings)
    sensor = definitions.get_repository_def().get_sensor_def("discovery_sensor")
    with dg.build_sensor_context(instance, definitions=definitions) as context:
        asked = sensor(context)
    assert isinstance(asked, dg.RunRequest)


def test_nobody_who_discovers_nothing_is_asked_whether_he_is_sure(settings: Settings) -> None:
    graph = build_defs(settings).resolve_asset_graph()
    # Dagster asks so before each import by hand while an asset upstream has never been materialized
    assert DISCOVERED_ACCOUNTS_KEY not in graph.get(RECORDS_KEY).parent_keys
    (spec,) = build_defs(settings).resolve_assets_def(DISCOVERED_ACCOUNTS_KEY).specs
    assert (spec.group_name, list(spec.owners)) == ("atproto", ["team:parity"])


def test_a_run_may_name_its_own_collections(settings: Settings, instance: dg.DagsterInstance, network: Running) -> None:
    add(network, 4, LIKE)
    assert shown(launch(settings, instance, nsids=[LIKE], limit=3))["accounts"] == 3
    assert shown(launch(settings, instance, nsids=[LIKE], from_start=True))["accounts"] == 4
