"""Which archive is new enough: hosts that told no revision before, that go back, or that know less than was told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from parity_dagster.importing.live import LiveRecord
from parity_dagster.models import Pair
from parity_dagster.sample_network import POST, Fault, Running, SampleNetwork
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.database import migrate
from parity_dagster_tests.imports import assert_equal, importing, listed, query, stored

NO_REVISION = (Fault(kind="501", method="getLatestCommit"),)


@pytest.fixture
def network() -> SampleNetwork:
    return SampleNetwork()


@pytest.fixture
def served(settings: Settings, network: SampleNetwork) -> Iterator[tuple[ImportService, Running]]:
    with importing(settings, network, source="repo") as opened:
        yield opened


@pytest.fixture
def service(served: tuple[ImportService, Running]) -> ImportService:
    return served[0]


# I7
@pytest.mark.parametrize("then", ["told", "never told"])
def test_the_time_that_stood_in_for_a_revision_makes_no_archive_look_old(
    settings: Settings, network: SampleNetwork, service: ImportService, then: str
) -> None:
    did = network.add_account({POST: 30})
    network.behave(faults=NO_REVISION)
    service.import_pairs([Pair(did, POST)], source="list")
    if then == "told":
        network.behave_normally()
    service.import_pairs([Pair(did, POST)], source="list", refresh=True)
    network.delete_record(did, POST, min(network.records(did, POST)))
    network.update_record(did, POST, {"text": "changed"}, rkey=max(network.records(did, POST)))
    (result,) = service.import_pairs([Pair(did, POST)], reread=True)
    assert result.completed, result.error
    assert_equal(settings, network, did, POST)
    (state,) = service.find_states(did=did)
    assert (state.source, state.rev) == ("repo", network.rev(did))


# I1, I7
@pytest.mark.parametrize("told", [True, False])
def test_where_the_time_stood_in_an_archive_from_before_a_live_event_is_old(
    settings: Settings, network: SampleNetwork, service: ImportService, told: bool
) -> None:
    did = network.add_account({POST: 30})
    network.behave(faults=NO_REVISION)
    service.import_pairs([Pair(did, POST)], source="list")
    if told:
        rkey = network.put_record(did, POST)
        cid, value = network.records(did, POST)[rkey]
        network.set_clock(did)
        service.upsert_records([LiveRecord(f"at://{did}/{POST}/{rkey}", network.rev(did), cid, value)])
    network.behave(did=did, archive="outdated")
    before = stored(settings, did, POST)
    (result,) = service.import_pairs([Pair(did, POST)], refresh=True)
    assert (result.error_code == "archive_outdated") == told, "only its host could tell that it is"
    assert (stored(settings, did, POST) == before) == told


# I1
def test_what_was_deleted_does_not_come_back_with_an_archive_from_before(
    settings: Settings, network: SampleNetwork, service: ImportService
) -> None:
    did = network.add_account({POST: 12})
    service.import_pairs([Pair(did, POST)], source="list")
    for rkey in list(network.records(did, POST)):
        network.delete_record(did, POST, rkey)
    service.import_pairs([Pair(did, POST)], source="list", refresh=True)
    (state,) = service.find_states(did=did)
    assert state.rev is None, "a list that has become empty is looked at again"
    for _ in range(12):
        network.put_record(did, POST)
    network.behave(did=did, archive="outdated")
    (result,) = service.import_pairs([Pair(did, POST)], refresh=True)
    assert result.error_code == "archive_outdated"
    assert stored(settings, did, POST) == {}


# I1, I14
def test_a_project_whose_revision_another_has_forgotten_takes_no_older_archive(
    settings: Settings, network: SampleNetwork, service: ImportService
) -> None:
    did = network.add_account({POST: 12})
    other = service.settings.model_copy(update={"state_table": "other_states"})
    migrate(other)
    with ImportService(other, report=False) as another:
        for each in (another, service):
            assert each.import_user_collection(did, POST).completed
        network.set_status(did, "takendown")
        assert service.import_user_collection(did, POST, refresh=True).error_code == "takendown"
        network.set_status(did, "active")
        network.behave(did=did, archive="outdated")
        (state,) = another.find_states(did=did)
        assert state.rev is None, "it has to read what was hidden again"
        assert another.import_user_collection(did, POST, refresh=True).error_code == "archive_outdated"
        assert query(settings, "SELECT count(*) FROM atproto_records") == [(12,)]
        network.behave_normally()
        assert another.import_user_collection(did, POST, refresh=True).completed
    assert stored(settings, did, POST) == listed(network, did, POST)
