"""`ImportUserJob.dispatch`: one call that queues, and a handle that tells what became of it."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator

import pytest

from parity_dagster import (
    CollectionNotRegistered,
    ImportService,
    ImportStatus,
    ImportUserJob,
    InvalidIdentifier,
    Pair,
    Settings,
)
from parity_dagster.sample_network import LIKE, POST, Fault, Running, SampleNetwork, run_in_thread


@pytest.fixture
def network() -> Iterator[Running]:
    with run_in_thread(SampleNetwork(hosts=2, seed=61)) as running:
        yield running


@pytest.fixture
def settings(settings: Settings, network: Running) -> Settings:
    return settings.model_copy(update={"plc_url": network.plc_url, "collections": (POST, LIKE)})


def test_dispatching_queues_all_registered_collections(settings: Settings, network: Running) -> None:
    did = network.network.add_account({POST: 3})
    queued = ImportUserJob.dispatch(did, settings=settings)
    assert queued.did == did
    assert queued.pairs == queued.queued == (Pair(did, LIKE), Pair(did, POST))
    assert queued.status() is ImportStatus.PENDING
    assert [state.status for state in queued.states()] == [ImportStatus.PENDING] * 2
    assert network.network.log.entries(method="com.atproto.repo.listRecords") == []


def test_dispatching_one_collection_queues_that_one(settings: Settings, network: Running) -> None:
    did = network.network.add_account({POST: 3})
    assert ImportUserJob.dispatch(did, POST, settings=settings).pairs == (Pair(did, POST),)
    assert ImportUserJob.dispatch(did, [LIKE], settings=settings).pairs == (Pair(did, LIKE),)


def test_what_is_queued_or_complete_is_not_queued_again_unless_it_is_to_be_refreshed(
    settings: Settings, network: Running
) -> None:
    did = network.network.add_account({POST: 3})
    first = ImportUserJob.dispatch(did, POST, settings=settings)
    assert first.queued
    assert ImportUserJob.dispatch(did, POST, settings=settings).queued == ()
    with ImportService(settings, report=False) as service:
        service.import_user_collection(did, POST)
    again = ImportUserJob.dispatch(did, POST, settings=settings)
    assert again.queued == ()
    assert again.status() is ImportStatus.COMPLETED
    refreshed = ImportUserJob.dispatch(did, POST, refresh=True, settings=settings)
    assert refreshed.queued == (Pair(did, POST),)
    assert refreshed.status() is ImportStatus.PENDING


def test_a_handle_is_resolved_before_it_is_queued(settings: Settings, network: Running) -> None:
    with pytest.raises(InvalidIdentifier):
        ImportUserJob.dispatch("nonsense", settings=settings)
    with pytest.raises(CollectionNotRegistered):
        ImportUserJob.dispatch("did:plc:z72i7hdynmk6r22z27h6tvur", "com.example.unknown", settings=settings)
    with ImportService(settings, report=False) as service:
        assert service.find_states() == []


def test_waiting_ends_when_another_process_has_imported(settings: Settings, network: Running) -> None:
    did = network.network.add_account({POST: 30, LIKE: 4})
    queued = pickle.loads(pickle.dumps(ImportUserJob.dispatch(did, settings=settings)))

    def worker() -> None:
        time.sleep(0.3)
        with ImportService(settings, report=False) as service:
            service.import_pairs(queued.pairs)

    thread = threading.Thread(target=worker)
    thread.start()
    result = queued.wait(timeout=20)
    thread.join()
    assert result.is_success
    assert (result.collection, result.records_synced) == ("*", 34)
    assert queued.status() is ImportStatus.COMPLETED


def test_waiting_for_too_long_is_a_timeout(settings: Settings, network: Running) -> None:
    queued = ImportUserJob.dispatch(network.network.add_account({POST: 3}), POST, settings=settings)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        queued.wait(timeout=0.3)
    assert time.monotonic() - began < 5


def test_a_failure_that_will_be_tried_again_is_still_pending_and_a_permanent_one_is_not(
    settings: Settings, network: Running
) -> None:
    gone, slow = network.network.add_account({POST: 3}), network.network.add_account({POST: 3})
    network.network.set_status(gone, "takendown")
    network.network.behave(did=slow, faults=(Fault(kind="429", method="listRecords", seconds=3600),))
    handles = [ImportUserJob.dispatch(did, POST, settings=settings) for did in (gone, slow)]
    with ImportService(settings, report=False) as service:
        service.import_pairs([Pair(did, POST) for did in (gone, slow)])
    failed = handles[0].wait(timeout=1)
    assert failed.error_code == "takendown"
    assert failed.collection == POST
    assert handles[0].status() is ImportStatus.FAILED
    assert handles[1].status() is ImportStatus.PENDING
