"""Reading again what has not changed: every row ends as the network has it, whoever finishes the reading."""

from __future__ import annotations

import pytest

from parity_dagster.sample_network import LIKE, POST, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect
from parity_dagster.store.queue import make_batches, pairs_of_batch
from parity_dagster_tests.imports import assert_equal, importing, query, settings_for

WRONG = """
UPDATE atproto_records SET value = jsonb_set(value, '{text}', '"hÃ©llo"') WHERE did = %s AND rkey IN
    (SELECT rkey FROM atproto_records WHERE did = %s ORDER BY rkey LIMIT 20)
"""


def spoil(settings: Settings, did: str) -> None:
    """Leave rows behind as earlier versions could: some lost, some of another text under the right cid."""
    query(settings, WRONG, did, did)
    query(
        settings,
        "DELETE FROM atproto_records WHERE did = %s AND rkey IN"
        " (SELECT rkey FROM atproto_records WHERE did = %s ORDER BY rkey DESC LIMIT 30)",
        did,
        did,
    )


def test_a_refresh_believes_the_revision_and_a_reread_does_not(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 250, LIKE: 12})
    with importing(settings, network) as (service, _):
        service.import_user(did)
        spoil(settings, did)
        network.log.clear()
        service.import_user(did, refresh=True)
        assert not network.log.cursors(did, POST), "nothing has changed"
        result = service.import_user(did, reread=True)
        assert result.is_success
        for nsid in (POST, LIKE):
            assert_equal(settings, network, did, nsid)
    assert query(settings, "SELECT bool_or(reread), bool_and(reread_at IS NOT NULL) FROM parity_import_states") == [
        (False, True)
    ]


def test_a_reread_writes_nothing_that_is_right(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 250})
    written = "SELECT rkey, xmin::text, updated_at FROM atproto_records ORDER BY rkey"
    with importing(settings, network) as (service, _):
        service.import_user_collection(did, POST)
        before = query(settings, written)
        assert service.import_user_collection(did, POST, reread=True).records_synced == 250
        assert query(settings, written) == before


@pytest.mark.long
@pytest.mark.parametrize("how", ["queue", "call"])
def test_an_interrupted_reread_goes_on_as_one_whoever_resumes_it(settings: Settings, how: str) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 250})
    with run_in_thread(network) as running:
        here = settings_for(settings, running, page_size=50, retry_attempts=1)
        with ImportService(here, report=False) as service:
            service.import_user_collection(did, POST)
        spoil(settings, did)
        network.behave(host="pds-1", faults=[{"kind": "503", "method": "listRecords", "skip": 2}])
        with ImportService(here, report=False) as service:
            if how == "queue":
                assert service.enqueue([(did, POST)], reread=True)  # type: ignore[list-item]
                assert not service.import_user_collection(did, POST).completed
            else:
                assert not service.import_user_collection(did, POST, reread=True).completed
        assert query(settings, "SELECT pages, reread, reread_at FROM parity_import_states") == [(2, True, None)]
        network.behave_normally()
        network.log.clear()
        with ImportService(here, report=False) as service:
            (result,) = service.resume_all()
        assert result.is_success
        assert len(network.log.cursors(did, POST)) == 4, "the two pages that were read again are not read once more"
        assert_equal(settings, network, did, POST)


def test_a_walk_that_was_begun_without_the_mark_starts_again(settings: Settings) -> None:
    """It has passed over rows whose cid is right."""
    network = SampleNetwork()
    did = network.add_account({POST: 250})
    with run_in_thread(network) as running:
        here = settings_for(settings, running, page_size=50, retry_attempts=1)
        with ImportService(here, report=False) as service:
            service.import_user_collection(did, POST)
            spoil(settings, did)
            for rkey in network.records(did, POST):
                network.put_record(did, POST, {"text": "new"}, rkey=rkey)
                break
            network.behave(host="pds-1", faults=[{"kind": "503", "method": "listRecords", "skip": 3}])
            assert not service.import_user_collection(did, POST, refresh=True).completed
            network.behave_normally()
            queued = service.enqueue([(did, POST)], reread=True)  # type: ignore[list-item]
            assert [tuple(pair) for pair in queued] == [(did, POST)]
            assert service.enqueue([(did, POST)], reread=True) == [], "it is marked already"  # type: ignore[list-item]
            assert service.resume_all()[0].is_success
        assert_equal(settings, network, did, POST)


def test_the_queue_hands_a_reread_to_its_run(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 120})
    with importing(settings, network) as (service, _):
        service.import_user_collection(did, POST)
        spoil(settings, did)
        service.enqueue([(did, POST)], reread=True)  # type: ignore[list-item]
        with connect(service.settings, autocommit=True) as conn:
            (batch,) = make_batches(conn, settings.state_table, (POST,), size=10, count=1)
            pairs = pairs_of_batch(conn, settings.state_table, batch)
        assert service.import_pairs(pairs)[0].is_success
        assert_equal(settings, network, did, POST)


def test_a_reread_leaves_newer_live_records_alone(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 120})
    with importing(settings, network) as (service, _):
        service.import_user_collection(did, POST)
        rkey = max(network.records(did, POST))
        query(
            settings,
            'UPDATE atproto_records SET rev = %s, value = \'{"text": "newer"}\' WHERE rkey = %s',
            "z" * 13,
            rkey,
        )
        assert service.import_user_collection(did, POST, reread=True).is_success
    assert query(settings, "SELECT value->>'text' FROM atproto_records WHERE rkey = %s", rkey) == [("newer",)]
