"""Wiping a materialization in the UI means that the pair is not imported any more."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

from parity_dagster.dagster_instance.keys import RECORDS_KEY, to_partition_key
from parity_dagster.dagster_instance.storage import parity_instance
from parity_dagster.models import Pair
from parity_dagster.orchestration.partitions import build_partitions, register_dids
from parity_dagster.orchestration.rebuild import rebuild_states
from parity_dagster.sample_network import LIKE, POST, Running
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster_tests.dagster_runs import ReportedAtOnce, rectangle, remembered, run


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


def wipe(instance: dg.DagsterInstance, pairs: list[Pair] | None) -> None:
    if pairs is None:
        instance.wipe_assets([RECORDS_KEY])
    else:
        instance.wipe_asset_partitions(RECORDS_KEY, [str(to_partition_key(pair)) for pair in pairs])


@pytest.mark.parametrize("whole", [False, True])
def test_a_wiped_pair_is_not_imported_any_more_and_the_next_import_reads_it(
    service: ImportService, instance: dg.DagsterInstance, network: Running, whole: bool
) -> None:
    did = network.network.add_account({POST: 8, LIKE: 3})
    service.import_user(did)
    wipe(instance, None if whole else [Pair(did, POST)])
    assert not service.is_imported(did, POST)
    assert service.is_imported(did, LIKE) is not whole
    left = set() if whole else {str(to_partition_key(Pair(did, LIKE)))}
    assert instance.get_materialized_partitions(RECORDS_KEY) == left
    assert service.import_user_collection(did, POST).is_success
    assert network.network.log.cursors(did, POST).count(None) == 2
    assert remembered(instance, Pair(did, POST)).records_synced == 8


def test_a_rebuild_does_not_bring_a_wiped_pair_back(
    service: ImportService, settings: Settings, instance: dg.DagsterInstance, network: Running
) -> None:
    did = network.network.add_account({POST: 8, LIKE: 3})
    service.import_user(did)
    wipe(instance, [Pair(did, POST)])
    rebuild_states(instance, settings)
    assert not service.is_imported(did, POST)
    assert service.is_imported(did, LIKE)


def test_wiping_another_asset_leaves_the_state_table_alone(
    service: ImportService, instance: dg.DagsterInstance, network: Running
) -> None:
    did = network.network.add_account({POST: 8})
    service.import_user_collection(did, POST)
    instance.report_runless_asset_event(dg.AssetMaterialization("other", partition="x"))
    instance.wipe_asset_partitions(dg.AssetKey("other"), ["x"])
    instance.wipe_assets([dg.AssetKey("other")])
    assert service.is_imported(did, POST)


def test_the_matrix_forgets_a_wiped_pair_and_its_neighbours_stay_green(
    service: ImportService, instance: dg.DagsterInstance, network: Running
) -> None:
    """What the UI colours comes from a cache, which a wipe must not leave behind."""
    did = network.network.add_account({POST: 8, LIKE: 3})
    service.import_user(did)
    partitions = build_partitions(service.settings)

    def green() -> set[str]:
        cached = get_and_update_asset_status_cache_value(instance, RECORDS_KEY, partitions)
        assert cached is not None
        with partition_loading_context(dynamic_partitions_store=instance):
            return {
                str(key) for key in cached.deserialize_materialized_partition_subsets(partitions).get_partition_keys()
            }

    both = {str(to_partition_key(Pair(did, nsid))) for nsid in (POST, LIKE)}
    assert green() == both
    wipe(instance, [Pair(did, LIKE)])
    assert green() == {str(to_partition_key(Pair(did, POST)))}
    latest = instance.get_latest_materialization_event(RECORDS_KEY)
    assert latest is not None
    assert latest.dagster_event is not None
    assert latest.dagster_event.partition == to_partition_key(Pair(did, POST))
    wipe(instance, [Pair(did, POST)])
    assert instance.get_latest_materialization_event(RECORDS_KEY) is None


@pytest.mark.long
def test_the_planned_events_of_a_run_are_written_at_once_and_shown(
    service: ImportService, settings: Settings, instance: dg.DagsterInstance, network: Running
) -> None:
    dids = [network.network.add_account({POST: 1}) for _ in range(40)]
    register_dids(instance, dids)
    tags = rectangle(Pair(dids[0], POST), Pair(dids[-1], LIKE))
    result = run(settings, instance, tags=tags)
    assert result.success
    planned = instance.get_records_for_run(
        result.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, limit=1000
    ).records
    assert {record.partition_key for record in planned} == {
        str(to_partition_key(Pair(did, nsid))) for did in dids for nsid in (POST, LIKE)
    }
    assert len(planned) == 80
