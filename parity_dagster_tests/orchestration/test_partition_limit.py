"""More accounts than Dagster is to show: all are imported, some are partitions, and any of them can become one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest

from parity_dagster.dagster_instance.keys import RECORDS_KEY
from parity_dagster.dagster_instance.storage import parity_instance
from parity_dagster.models import ImportStatus, Pair
from parity_dagster.orchestration.inbox import READ_DID_LIST, look_into_inbox
from parity_dagster.orchestration.partitions import DIDS, count_accounts, register_dids
from parity_dagster.orchestration.queue import launch_due
from parity_dagster.orchestration.report import Report, report_pending
from parity_dagster.sample_network import LIKE, POST, Running
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster_tests.command_line import call, variables
from parity_dagster_tests.dagster_runs import materialized, run
from parity_dagster_tests.imports import query
from parity_dagster_tests.names import Names

LIMIT = 3


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"partition_limit": LIMIT, "inbox": tmp_path / "inbox"})


@pytest.fixture
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    with parity_instance(settings) as found:
        yield found


@pytest.fixture
def dids(network: Running) -> list[str]:
    return [network.network.add_account({POST: 3, LIKE: 1}) for _ in range(5)]


def partitions(instance: dg.DagsterInstance) -> list[str]:
    found = list(instance.get_dynamic_partitions(DIDS))
    assert count_accounts(instance) == len(found)
    return found


def materialized_dids(instance: dg.DagsterInstance) -> list[str]:
    keys = instance.get_materialized_partitions(RECORDS_KEY)
    return sorted({key.partition("|")[2] for key in keys})


def complete(settings: Settings) -> int:
    ((found,),) = query(settings, "SELECT count(*) FROM parity_import_states WHERE status = 'completed'")
    return int(found)


@pytest.mark.long
def test_of_a_list_some_accounts_are_partitions_and_all_are_imported(
    settings: Settings, instance: dg.DagsterInstance, dids: list[str]
) -> None:
    settings.inbox.mkdir()
    path = settings.inbox / "dids.txt"
    path.write_text("\n".join(dids))
    os.utime(path, (time.time() - 60,) * 2)
    (request,) = look_into_inbox(instance, settings, None).requests
    read = run(settings, instance, READ_DID_LIST, config=request.run_config, tags=request.tags)
    (event,) = [event for event in read.all_events if event.is_step_materialization]
    assert event.materialization.metadata["accounts_without_partition"].value == 2
    assert "2 have no partition (PARITY_PARTITION_LIMIT)" in (event.materialization.description or "")
    assert partitions(instance) == dids[:LIMIT]

    (request,) = launch_due(instance, settings)
    result = run(settings, instance, "import_records", config=request.run_config, tags=request.tags)
    assert result.success
    assert sorted(materialized(result)) == sorted(Pair(did, nsid) for did in dids[:LIMIT] for nsid in (POST, LIKE))
    (output,) = [event for event in result.all_events if event.is_successful_output]
    assert output.step_output_data.metadata["pairs_without_partition"].value == 4
    assert complete(settings) == 10
    assert report_pending(instance, settings) == Report(), "the run has seen to all of them"
    overview = run(settings, instance, "refresh_overview")
    (found,) = [
        event.materialization.metadata
        for event in overview.all_events
        if event.is_step_materialization and event.asset_key == dg.AssetKey("import_overview")
    ]
    assert found["accounts_without_partition"].value == 2
    assert "2 accounts have no partition" in str(found["overview"].value)


@pytest.mark.long
def test_what_was_imported_outside_of_dagster_is_shown_as_far_as_it_goes(
    settings: Settings, instance: dg.DagsterInstance, dids: list[str]
) -> None:
    with ImportService(settings) as service:
        for did in dids:
            assert service.import_user(did).completed
    assert report_pending(instance, settings) == Report(written=6, unshown=4)
    assert sorted(partitions(instance)) == materialized_dids(instance) == sorted(dids[:LIMIT])
    assert query(settings, "SELECT count(*) FROM parity_announcements") == [(0,)]
    assert report_pending(instance, settings) == Report()
    checks = run(settings, instance, "run_all_checks").get_asset_check_evaluations()
    (compared,) = [check for check in checks if check.check_name == "state_equals_metadata"]
    assert compared.passed
    assert compared.description == (
        "State table and metadata agree for 6 pairs; 4 have no partition (PARITY_PARTITION_LIMIT)."
    )


@pytest.mark.long
@pytest.mark.parametrize("way", ["import", "queue", "handle", "complete", "python", "resume"])
def test_who_names_an_account_gives_it_its_partition(
    settings: Settings, instance: dg.DagsterInstance, network: Running, names: Names, way: str
) -> None:
    register_dids(instance, [f"did:plc:{number:024}" for number in range(LIMIT)])
    did = network.network.add_account({POST: 3, LIKE: 1}, handle="ada.sample.test")
    names.records["_atproto.ada.sample.test"] = f"did={did}"
    env = variables(settings, PARITY_PARTITION_LIMIT=str(LIMIT), PARITY_COLLECTIONS=f"{POST},{LIKE}")
    with ImportService(settings) as service:
        if way in ("complete", "python"):
            assert service.import_user(did).completed
            assert report_pending(instance, settings) == Report(unshown=2)
        if way == "resume":
            service.enqueue([Pair(did, POST), Pair(did, LIKE)])
        if way == "python":
            service.show_in_dagster([did])
    if way != "python":
        name = "ada.sample.test" if way == "handle" else did
        result = call("import", name, *([f"--{way}"] if way in ("queue", "resume") else []), env=env)
        assert result.exit_code == 0, result.output
    if way == "queue":
        (request,) = launch_due(instance, settings)
        assert run(settings, instance, "import_records", config=request.run_config, tags=request.tags).success
    assert did not in partitions(instance)
    assert report_pending(instance, settings) == Report(written=2)
    assert did in partitions(instance)
    assert materialized_dids(instance) == [did]
    assert query(settings, "SELECT count(*) FROM parity_named_accounts") == [(0,)]


@pytest.mark.long
def test_an_account_that_is_named_while_a_run_imports_it_has_its_partition_and_its_events(
    settings: Settings, instance: dg.DagsterInstance, network: Running, dids: list[str]
) -> None:
    with ImportService(settings) as service, ThreadPoolExecutor(1) as threads:
        service.enqueue(Pair(did, POST) for did in dids)
        (request,) = launch_due(instance, settings)
        for host in network.network.hosts:
            network.network.behave(host=host, latency=0.5)
        importing = threads.submit(
            run, settings, instance, "import_records", config=request.run_config, tags=request.tags
        )
        while not service.find_states(statuses=[ImportStatus.IN_PROGRESS]):
            assert not importing.done()
            time.sleep(0.02)
        (named, other) = set(dids) - set(partitions(instance))
        service.show_in_dagster([named])
        assert report_pending(instance, settings) == Report()
        assert importing.result().success
    assert report_pending(instance, settings) == Report(written=1)
    assert set(materialized_dids(instance)) == set(partitions(instance)) == set(dids) - {other}


def test_a_job_that_names_accounts_makes_them_partitions(
    settings: Settings, instance: dg.DagsterInstance, dids: list[str]
) -> None:
    result = run(settings, instance, "import_records", config={"dids": dids})
    assert result.success
    assert sorted(partitions(instance)) == materialized_dids(instance) == sorted(dids)


def test_report_says_what_it_could_not_show(settings: Settings, dids: list[str]) -> None:
    env = variables(settings, PARITY_PARTITION_LIMIT="1")
    with ImportService(settings) as service:
        service.import_pairs([Pair(did, POST) for did in dids])
    said = call("report", env=env).output
    assert "Dagster was told of 1 import." in said
    assert "4 imports of accounts without a partition" in said
    with parity_instance(settings) as instance:
        (other, *_) = set(dids) - set(partitions(instance))
    assert call("import", other, "--collection", POST, env=env).exit_code == 0
    assert call("report", env=env).output == "Dagster was told of 1 import.\n"
