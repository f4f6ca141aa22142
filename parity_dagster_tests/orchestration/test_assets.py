"""The asset `atproto/records`: one materialization per pair, whatever happens to its neighbours."""

from __future__ import annotations

import threading

import dagster as dg
import pytest

from parity_dagster.dagster_instance.keys import RECORDS_KEY
from parity_dagster.definitions import build_defs
from parity_dagster.models import ImportStatus, Pair
from parity_dagster.orchestration.partitions import register_dids
from parity_dagster.sample_network import LIKE, POST, Fault, Running
from parity_dagster.settings import Settings
from parity_dagster_tests.dagster_runs import (
    failure,
    materialized,
    observed,
    one,
    rectangle,
    remembered,
    row,
    run,
)
from parity_dagster_tests.quick import quick

REFUSES = Fault(kind="400", method="listRecords")


@pytest.fixture
def accounts(network: Running, instance: dg.DagsterInstance) -> list[str]:
    dids = [network.network.add_account({POST: 150 + 10 * number, LIKE: 5}) for number in range(3)]
    register_dids(instance, dids)
    return dids


def test_a_run_of_one_partition_materializes_it_with_its_whole_row(
    settings: Settings, instance: dg.DagsterInstance, accounts: list[str]
) -> None:
    pair = Pair(accounts[0], POST)
    result = run(settings, instance, tags=one(pair))
    assert result.success
    assert materialized(result) == [pair]
    state = row(settings, pair)
    assert state is not None
    assert state.records_synced == 150
    assert state.run_id == result.run_id
    assert remembered(instance, pair) == state


def test_a_range_run_materializes_each_pair_of_the_rectangle_once(
    settings: Settings, instance: dg.DagsterInstance, accounts: list[str]
) -> None:
    result = run(settings, instance, tags=rectangle(Pair(accounts[0], POST), Pair(accounts[2], LIKE)))
    assert result.success
    wanted = [Pair(did, collection) for did in accounts for collection in (POST, LIKE)]
    assert sorted(materialized(result)) == sorted(wanted)
    for pair in wanted:
        assert remembered(instance, pair) == row(settings, pair)


def test_a_run_in_which_pairs_fail_records_the_others_and_names_the_failed(
    settings: Settings, instance: dg.DagsterInstance, network: Running, accounts: list[str]
) -> None:
    network.network.behave(did=accounts[1], faults=(REFUSES,))
    result = run(settings, instance, tags=rectangle(Pair(accounts[0], POST), Pair(accounts[2], LIKE)))
    assert not result.success
    bad = [Pair(accounts[1], POST), Pair(accounts[1], LIKE)]
    good = [Pair(did, collection) for did in (accounts[0], accounts[2]) for collection in (POST, LIKE)]
    assert sorted(materialized(result)) == sorted(good)
    assert sorted(observed(result)) == sorted(bad)
    message, metadata = failure(result)
    failed = metadata["failed_pairs"]
    assert isinstance(failed, dg.TableMetadataValue)
    assert "2 of 6 pairs failed, the others are recorded." in message
    assert f"request_refused, 2 pairs of 1 account: {accounts[1]} ({POST}, {LIKE}): " in message
    assert sorted(str(record.data["partition"]) for record in failed.records) == sorted(
        f"{pair.collection}|{pair.did}" for pair in bad
    )
    assert {record.data["error_code"] for record in failed.records} == {"request_refused"}


def test_a_run_whose_only_failures_are_accounts_that_are_gone_succeeds_and_says_so(
    settings: Settings, instance: dg.DagsterInstance, network: Running, accounts: list[str]
) -> None:
    network.network.set_status(accounts[0], "deactivated")
    network.network.set_status(accounts[1], "takendown")
    result = run(settings, instance, tags=rectangle(Pair(accounts[0], POST), Pair(accounts[2], LIKE)))
    assert result.success
    (output,) = [event for event in result.all_events if event.is_successful_output]
    metadata = output.step_output_data.metadata
    assert metadata["pairs_failed"] == dg.IntMetadataValue(0)
    assert metadata["pairs_gone"] == dg.IntMetadataValue(4)
    named = metadata["gone_pairs"]
    assert isinstance(named, dg.TableMetadataValue)
    assert {record.data["error_code"] for record in named.records} == {"deactivated", "takendown"}
    # what each is stays as it is: failed, and observed with its row
    for did in accounts[:2]:
        state = row(settings, Pair(did, POST))
        assert state is not None
        assert state.status is ImportStatus.FAILED
        assert state.is_gone
    assert len(observed(result)) == 4


def test_a_failed_pair_leaves_an_observation_with_its_whole_row(
    settings: Settings, instance: dg.DagsterInstance, network: Running, accounts: list[str]
) -> None:
    network.network.set_status(accounts[0], "deactivated")
    pair = Pair(accounts[0], POST)
    run(settings, instance, tags=one(pair))
    (record,) = instance.fetch_observations(RECORDS_KEY, limit=10).records
    observation = record.asset_observation
    state = row(settings, pair)
    assert observation is not None
    assert state is not None
    assert state.status is ImportStatus.FAILED
    assert observation.metadata["error_code"] == dg.TextMetadataValue("deactivated")
    assert observation.metadata["id"] == dg.IntMetadataValue(state.id)


def test_a_failed_run_is_not_tried_again_by_dagster(
    settings: Settings, instance: dg.DagsterInstance, network: Running, accounts: list[str]
) -> None:
    network.network.behave(did=accounts[0], faults=(REFUSES,))
    result = run(settings, instance, tags=one(Pair(accounts[0], POST)))
    (event,) = [event for event in result.all_events if event.is_step_failure]
    said = event.step_failure_data.user_failure_data
    assert said is not None
    assert event.step_failure_data.error is not None
    assert not any(event.is_step_up_for_retry for event in result.all_events)


def test_a_complete_pair_is_materialized_again_without_being_read(
    settings: Settings, instance: dg.DagsterInstance, network: Running, accounts: list[str]
) -> None:
    pair = Pair(accounts[0], POST)
    run(settings, instance, tags=one(pair))
    before = len(network.network.log.entries())
    result = run(settings, instance, tags=one(pair))
    assert result.success
    assert materialized(result) == [pair]
    assert len(network.network.log.entries()) == before
    assert remembered(instance, pair) == row(settings, pair)


@pytest.mark.parametrize("way", quick(1, ["tag", "config"]))
def test_a_refresh_reads_a_complete_pair_again(
    settings: Settings, instance: dg.DagsterInstance, network: Running, accounts: list[str], way: str
) -> None:
    pair = Pair(accounts[0], POST)
    run(settings, instance, tags=one(pair))
    network.network.put_record(pair.did, POST, {"$type": POST, "text": "new", "createdAt": "2026-01-01T00:00:00Z"})
    config = {"ops": {"atproto__records": {"config": {"refresh": True}}}} if way == "config" else {}
    tags = {"parity/refresh": "true"} if way == "tag" else {}
    assert run(settings, instance, config=config, tags={**one(pair), **tags}).success
    assert remembered(instance, pair).records_synced == 151
    assert remembered(instance, pair).walk == 2


@pytest.mark.parametrize("way", ["tag", "config"])
def test_a_run_can_read_the_signed_repository(
    settings: Settings, instance: dg.DagsterInstance, network: Running, accounts: list[str], way: str
) -> None:
    pair = Pair(accounts[0], POST)
    config = {"ops": {"atproto__records": {"config": {"source": "repo"}}}} if way == "config" else {}
    tags = {"parity/source": "repo"} if way == "tag" else {}
    assert run(settings, instance, config=config, tags={**one(pair), **tags}).success
    state = remembered(instance, pair)
    assert state == row(settings, pair)
    assert (state.source, state.records_synced) == ("repo", 150)
    assert state.commit
    assert network.network.log.count(method="com.atproto.sync.getRepo") == 1


def test_a_source_that_does_not_exist_is_refused(
    settings: Settings, instance: dg.DagsterInstance, accounts: list[str]
) -> None:
    result = run(settings, instance, tags={**one(Pair(accounts[0], POST)), "parity/source": "relay"})
    assert "give list or repo" in failure(result)[0]


def test_pairs_turn_green_while_the_run_goes_on(
    settings: Settings, instance: dg.DagsterInstance, network: Running, accounts: list[str]
) -> None:
    """The first account is done at once, the last is slow: its neighbour must not wait for it in the UI."""
    network.network.behave(did=accounts[2], latency=0.6)
    slow = Pair(accounts[2], POST)
    seen: list[ImportStatus | None] = []
    done = threading.Event()

    def watch() -> None:
        while not seen and not done.wait(0.1):
            if instance.get_materialized_partitions(RECORDS_KEY):
                state = row(settings, slow)
                seen.append(state.status if state else None)

    watcher = threading.Thread(target=watch)
    watcher.start()
    result = run(settings, instance, tags=rectangle(Pair(accounts[0], POST), slow))
    done.set()
    watcher.join()
    assert result.success
    assert seen == [ImportStatus.IN_PROGRESS]


@pytest.mark.parametrize(
    ("key", "cure"),
    quick(
        2,
        [
            (f"{POST}|did:plc:{'z' * 24}", "registers and imports it"),
            ("nonsense", "COLLECTION|DID"),
            (f"com.example.other|did:plc:{'z' * 24}", "PARITY_COLLECTIONS"),
            ("", "dagster/partition"),
        ],
    ),
)
def test_a_partition_nobody_registered_is_refused_before_any_work(
    settings: Settings, instance: dg.DagsterInstance, network: Running, key: str, cure: str
) -> None:
    result = run(settings, instance, tags={"dagster/partition": key} if key else {})
    assert not result.success
    message, _ = failure(result)
    assert cure in message
    assert "\n" not in message
    assert materialized(result) == observed(result) == []
    assert network.network.log.entries() == []


def test_what_is_downstream_runs_after_the_import(
    settings: Settings, instance: dg.DagsterInstance, accounts: list[str]
) -> None:
    """The asset writes its own events, which must not make Dagster believe that it has no output."""
    definitions = build_defs(settings)
    partitions = definitions.resolve_assets_def(RECORDS_KEY).partitions_def

    @dg.asset(deps=[RECORDS_KEY], partitions_def=partitions)
    def downstream() -> None: ...

    job = dg.Definitions.merge(definitions, dg.Definitions([downstream])).resolve_implicit_global_asset_job_def()
    wanted = [RECORDS_KEY, dg.AssetKey("downstream")]
    result = job.execute_in_process(instance=instance, asset_selection=wanted, tags=one(Pair(accounts[0], LIKE)))
    keys = [event.asset_key for event in result.all_events if event.is_step_materialization]
    assert keys == wanted


def test_a_run_says_what_it_did(
    settings: Settings, instance: dg.DagsterInstance, network: Running, accounts: list[str]
) -> None:
    result = run(settings, instance, tags=rectangle(Pair(accounts[0], POST), Pair(accounts[1], LIKE)))
    (output,) = [event for event in result.all_events if event.is_successful_output]
    metadata = output.step_output_data.metadata
    assert metadata["pairs"] == dg.IntMetadataValue(4)
    assert metadata["records_synced"] == dg.IntMetadataValue(150 + 160 + 5 + 5)
    slowest = metadata["slowest_pairs"]
    assert isinstance(slowest, dg.TableMetadataValue)
    assert len(slowest.records) == 4
