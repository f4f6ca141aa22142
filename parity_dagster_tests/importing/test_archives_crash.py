"""Killed at any moment while repositories are read: resumed either way, and nothing is lost, doubled or left over."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from parity_dagster.importing.archives import PAGE_RECORDS
from parity_dagster.models import Source
from parity_dagster.sample_network import LIKE, POST, Running, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster_tests.forked import start_import
from parity_dagster_tests.importing.test_crash import Tripwire, forget, kill_at_request
from parity_dagster_tests.imports import assert_equal, query, settings_for

RECORDS = 2 * PAGE_RECORDS + 45


@pytest.fixture
def network() -> Iterator[Running]:
    network = SampleNetwork()
    did = network.add_account({POST: RECORDS, LIKE: 5})
    network.add_odd(did, POST, ["nul", "value-null"])
    with run_in_thread(network) as running:
        yield running


def pairs(network: Running) -> list[tuple[str, str]]:
    (did,) = network.network.dids
    return [(did, POST), (did, LIKE)]


def finish(settings: Settings, running: Running, source: Source) -> None:
    """Resume what the killed process left, after a change, and compare with the network."""
    network = running.network
    network.behave_normally()
    (did,) = network.dids
    network.delete_record(did, POST, max(network.records(did, POST).keys() - network.odd_records(did, POST).keys()))
    network.put_record(did, POST)
    with ImportService(settings_for(settings, running, source=source), report=False) as service:
        results = service.resume_all()
        while any(result.error_code == "busy" for result in results):  # the server has yet to notice the kill
            results = service.resume_all()
        for _, nsid in pairs(running):
            service.import_user_collection(did, nsid, refresh=True)
    for did, nsid in pairs(running):
        assert_equal(settings, network, did, nsid)
    assert query(settings, "SELECT count(*) FROM parity_walk_pages") == [(0,)]
    assert query(settings, "SELECT count(*) FROM parity_failed_records") == [(2,)]


# I3, I13
@pytest.mark.parametrize("source", ["repo", "list"])
@pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.long)])
def test_killed_at_a_wire_call(settings: Settings, network: Running, number: int, source: Source) -> None:
    network.network.behave(latency=0.05)
    process, _ = start_import(settings_for(settings, network, source="repo"), pairs(network))
    kill_at_request(network, process, number)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    finish(settings, network, source)


# I3
@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("source", ["repo", "list"])
@pytest.mark.parametrize(("step", "refresh"), [(3, False), (3, True)])
def test_killed_at_a_change_of_the_database(
    settings: Settings, network: Running, step: int, source: Source, refresh: bool
) -> None:
    wire = Tripwire(settings)
    number = killed = 0
    while True:
        number += step
        forget(settings)
        if refresh:
            process, _ = start_import(settings_for(settings, network, source="list"), pairs(network))
            process.join()
            (did,) = network.network.dids
            for rkey in sorted(
                network.network.records(did, POST).keys() - network.network.odd_records(did, POST).keys()
            )[:3]:
                network.network.delete_record(did, POST, rkey)
            for _ in range(3):
                network.network.put_record(did, POST)
        wire.set(number)
        process, _ = start_import(settings_for(settings, network, source="repo"), pairs(network), refresh=refresh)
        if not wire.kill(process):
            break
        killed += 1
        finish(settings, network, source)
    assert killed >= 40 // step
    wire.conn.close()
