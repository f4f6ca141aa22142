"""Failed records tried again while others write: each is stored once, and nothing comes back that was deleted."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from parity_dagster.importing.live import LiveRecord
from parity_dagster.sample_network import POST, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect, migrate
from parity_dagster_tests.importing.test_bad_records import entry_of, keep
from parity_dagster_tests.imports import importing, query, settings_for, stored

BARRIER = "SELECT FROM parity_import_states FOR UPDATE"
"""Whoever wants to store a failed record, which he has read by then, waits for the end of this transaction."""
FINE = b'{"text":"fine by now"}'


def counts(settings: Settings) -> tuple[int, int, int]:
    """records_synced and records_failed of the only pair, and its failed records."""
    ((synced, failed),) = query(settings, "SELECT records_synced, records_failed FROM parity_import_states")
    ((left,),) = query(settings, "SELECT count(*) FROM parity_failed_records")
    return synced, failed, left


def wait_for_lock(settings: Settings, number: int = 1) -> None:
    """Wait until so many sessions wait for somebody else's lock."""
    blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    deadline = time.monotonic() + 30
    while query(settings, blocked)[0][0] < number:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_record_that_is_deleted_while_it_is_tried_again_stays_deleted(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 3})
    with importing(settings, network) as (service, _), ThreadPoolExecutor() as threads:
        service.import_user_collection(did, POST)
        keep(settings, did, entry_of(did, FINE))
        with connect(settings) as barrier:
            barrier.execute(BARRIER)
            retry = threads.submit(service.retry_failed_records)
            wait_for_lock(settings)
            with ImportService(service.settings, report=False) as consumer:
                assert consumer.delete_record(f"at://{did}/{POST}/kept", "7777777777777")
            barrier.commit()
            assert retry.result(30) == (0, 0)
    assert "kept" not in stored(settings, did, POST)


def test_two_retries_at_once_store_and_count_a_record_once(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 3})
    with importing(settings, network) as (service, _), ThreadPoolExecutor() as threads:
        service.import_user_collection(did, POST)
        for text in (FINE, rb'{"text":"\u0000"}', rb'{"text":"\u0000 too"}'):
            keep(settings, did, entry_of(did, text))
        with (
            connect(settings) as barrier,
            ImportService(service.settings, report=False) as one,
            ImportService(service.settings, report=False) as other,
        ):
            barrier.execute(BARRIER)
            results = [threads.submit(each.retry_failed_records) for each in (one, other)]
            wait_for_lock(settings, 2)
            barrier.commit()
            assert sorted(result.result(30) for result in results) == [(0, 2), (1, 2)]
    assert counts(settings) == (4, 2, 2)


def test_a_record_that_another_retry_has_stored_is_not_skipped_once_more(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 3})
    with importing(settings, network) as (service, _), ThreadPoolExecutor() as threads:
        service.import_user_collection(did, POST)
        keep(settings, did, entry_of(did, b'{"text":"skip this"}'))
        mapped = service.settings.model_copy(update={"mappers": ("parity_dagster_tests.sample_mappers:NoPosts",)})
        with (
            connect(settings) as barrier,
            ImportService(mapped, report=False) as one,
            ImportService(mapped, report=False) as other,
        ):
            barrier.execute(BARRIER)
            results = [threads.submit(each.retry_failed_records) for each in (one, other)]
            wait_for_lock(settings, 2)
            barrier.commit()
            assert sorted(result.result(30) for result in results) == [(0, 0), (1, 0)]
    assert query(settings, "SELECT records_skipped, records_failed FROM parity_import_states") == [(1, 0)]


@pytest.mark.long
def test_a_page_does_not_keep_a_bad_record_that_was_deleted_meanwhile(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 3})
    deleted, replaced = network.add_odd(did, POST, ["nul", "nul"])
    with run_in_thread(network) as running, ThreadPoolExecutor() as threads:
        here = settings_for(settings, running)
        with ImportService(here, report=False) as service, ImportService(here, report=False) as consumer:
            assert consumer.find_failed_records() == []
            network.behave(host="pds-1", latency=1.0)
            walk = threads.submit(service.import_user_collection, did, POST)
            while not network.log.cursors(did, POST):
                assert not walk.done()
                time.sleep(0.01)
            later = network.rev(did)[:-4] + "zzzz"
            assert consumer.delete_record(f"at://{did}/{POST}/{deleted}", later)
            mended = LiveRecord(f"at://{did}/{POST}/{replaced}", later, "bafymended", {"text": "mended"})
            assert consumer.upsert_records([mended]) == 1
            result = walk.result(30)
            assert result.completed
            assert consumer.find_failed_records() == [], "both are out of date"
            assert result.records_failed == 0
            assert consumer.retry_failed_records() == (0, 0)
    assert stored(settings, did, POST)[replaced][1] == {"text": "mended"}


def test_a_live_record_that_can_be_stored_by_now_is_stored_with_its_own_revision(settings: Settings) -> None:
    """It has left a tombstone of its own revision, which must not keep it out."""
    network = SampleNetwork()
    did = network.add_account({POST: 3})
    with importing(settings, network) as (service, _):
        service.import_user_collection(did, POST)
        rev = f"{network.rev(did)[:-4]}zzzz"
        service.upsert_records([LiveRecord(f"at://{did}/{POST}/kept", rev, "bafykept", {"text": "\x00"})])
        assert service.retry_failed_records() == (0, 1)
        query(settings, "UPDATE parity_failed_records SET body = %s", entry_of(did, FINE))
        assert service.retry_failed_records() == (1, 0)
    assert query(settings, "SELECT rev FROM atproto_records WHERE rkey = 'kept'") == [(rev,)]


def test_a_version_that_a_walk_under_way_has_overtaken_waits_for_its_end(settings: Settings) -> None:
    """The table still holds the version before; whether it or the failed one is right, the walk's end knows."""
    network = SampleNetwork()
    did = network.add_account({POST: 40})
    with run_in_thread(network) as running:
        here = settings_for(settings, running, page_size=10, retry_attempts=1)
        with ImportService(here, report=False) as service:
            service.import_user_collection(did, POST)
            newest = max(network.records(did, POST))
            network.put_record(did, POST, rb'{"text":"\u0000"}', rkey=newest)
            network.behave(host="pds-1", faults=[{"kind": "503", "method": "listRecords", "skip": 2}])
            assert not service.import_user_collection(did, POST, refresh=True).completed
            fine = entry_of(did, FINE).replace(b"/kept", f"/{newest}".encode())
            query(settings, "UPDATE parity_failed_records SET body = %s", fine)
            assert service.retry_failed_records() == (0, 1), "the older version is still there"
            network.behave_normally()
            assert service.resume_all()[0].completed
            assert newest not in stored(settings, did, POST)
            query(settings, "UPDATE parity_failed_records SET body = %s", fine)
            assert service.retry_failed_records() == (1, 0)
    assert stored(settings, did, POST)[newest][1] == {"text": "fine by now"}


@pytest.mark.parametrize("is_shown", [True, False])
def test_what_an_earlier_walk_met_is_for_the_present_walk_to_show(settings: Settings, is_shown: bool) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 40})
    bad = network.put_record(did, POST, rb'{"text":"\u0000"}', rkey="2222222222222")  # the last of the list
    with run_in_thread(network) as running:
        here = settings_for(settings, running, page_size=10, retry_attempts=1)
        with ImportService(here, report=False) as service:
            assert service.import_user_collection(did, POST).records_failed == 1
            if not is_shown:
                network.delete_record(did, POST, bad)
            network.behave(host="pds-1", faults=[{"kind": "503", "method": "listRecords", "skip": 2}])
            assert not service.import_user_collection(did, POST, refresh=True).completed
            fine = entry_of(did, FINE).replace(b"/kept", f"/{bad}".encode())
            query(settings, "UPDATE parity_failed_records SET body = %s", fine)
            assert service.retry_failed_records() == (1, 0)
            network.behave_normally()
            result = service.resume_all()[0]
    assert (result.completed, result.records_synced, result.records_failed) == (True, 40, int(is_shown))
    assert bad not in stored(settings, did, POST), "it is deleted, or what the list shows cannot be stored"


@pytest.fixture
def other(settings: Settings) -> Settings:
    """Another project's settings, in the same database."""
    other = settings.model_copy(update={"state_table": "other_states"})
    migrate(other)
    return other


def counted(service: ImportService) -> tuple[int, int, int]:
    (state,) = service.find_states()
    return state.records_synced, state.records_skipped, state.records_failed


def mend(settings: Settings, did: str, rkey: str, value: bytes = FINE) -> None:
    """Let a failed record be sound by today's rules."""
    body = entry_of(did, value).replace(b"/kept", f"/{rkey}".encode())
    query(settings, "UPDATE parity_failed_records SET body = %s WHERE rkey = %s", body, rkey)


# I1, I14
@pytest.mark.parametrize("is_ours", [True, False])
def test_a_record_that_any_project_stores_survives_the_walk_of_another_one(
    settings: Settings, other: Settings, is_ours: bool
) -> None:
    """Whoever tries again: the walk under way has shown the record, and one of another table has met it since."""
    network = SampleNetwork()
    did = network.add_account({POST: 20})
    bad = network.put_record(did, POST, rb'{"text":"\u0000"}')
    for _ in range(15):
        network.put_record(did, POST)
    with run_in_thread(network) as running:
        changes = {"page_size": 10, "retry_attempts": 1}
        with (
            ImportService(settings_for(settings, running, **changes), report=False) as ours,
            ImportService(settings_for(other, running, **changes), report=False) as theirs,
        ):
            assert ours.import_user_collection(did, POST).completed
            network.behave(host="pds-1", faults=[{"kind": "503", "method": "listRecords", "skip": 3}])
            assert not theirs.import_user_collection(did, POST).completed
            network.behave_normally()
            assert ours.import_user_collection(did, POST, refresh=True).completed
            assert (counted(ours), counted(theirs)) == ((35, 0, 1), (29, 0, 1))
            mend(settings, did, bad)
            assert (ours if is_ours else theirs).retry_failed_records() == (1, 0)
            assert theirs.import_user_collection(did, POST).completed
            assert stored(settings, did, POST)[bad][1] == {"text": "fine by now"}
            assert (counted(ours), counted(theirs)) == ((36, 0, 0), (36, 0, 0))


def test_what_a_retry_skips_is_counted_so_by_the_walk_under_way(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 35})
    bad = network.put_record(did, POST, rb'{"text":"\u0000"}')
    with run_in_thread(network) as running:
        here = settings_for(settings, running, page_size=10, retry_attempts=1)
        mapped = here.model_copy(update={"mappers": ("parity_dagster_tests.sample_mappers:NoPosts",)})
        with ImportService(here, report=False) as service, ImportService(mapped, report=False) as one_that_skips:
            network.behave(host="pds-1", faults=[{"kind": "503", "method": "listRecords", "skip": 2}])
            assert not service.import_user_collection(did, POST).completed
            assert counted(service) == (19, 0, 1)
            mend(settings, did, bad)
            assert one_that_skips.retry_failed_records() == (1, 0)
            assert counted(service) == (19, 1, 0)
            network.behave_normally()
            assert service.import_user_collection(did, POST).completed
            assert counted(service) == (35, 1, 0)


# I14
def test_a_project_tries_its_own_pairs_again_and_those_of_nobody(settings: Settings, other: Settings) -> None:
    """Another project's mapper may want other records, and its own retry counts them."""
    network = SampleNetwork()
    did = network.add_account({POST: 3})
    bad = network.put_record(did, POST, rb'{"text":"\u0000"}')
    with (
        run_in_thread(network) as running,
        ImportService(settings_for(settings, running), report=False) as ours,
        ImportService(settings_for(other, running), report=False) as theirs,
    ):
        assert theirs.import_user_collection(did, POST).records_failed == 1
        assert ours.retry_failed_records() == (0, 0)
        assert theirs.retry_failed_records() == (0, 1)
        theirs.reset(did, POST)
        assert ours.retry_failed_records() == (0, 1), "no project knows the pair"
        assert theirs.import_user_collection(did, POST).records_failed == 1
        mend(settings, did, bad)
        assert ours.retry_failed_records() == (0, 0)
        assert theirs.retry_failed_records() == (1, 0)
        assert counted(theirs) == (4, 0, 0)


# I9, I14
def test_a_retry_corrects_the_counts_of_the_walks_that_have_met_the_record(settings: Settings, other: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 3})
    old = network.put_record(did, POST, rb'{"text":"\u0000"}')
    with (
        run_in_thread(network) as running,
        ImportService(settings_for(settings, running), report=False) as ours,
        ImportService(settings_for(other, running), report=False) as theirs,
    ):
        assert ours.import_user_collection(did, POST).records_failed == 1
        new = network.put_record(did, POST, rb'{"text":"new \u0000"}')
        assert theirs.import_user_collection(did, POST).records_failed == 2
        mend(settings, did, new)
        assert ours.retry_failed_records() == (1, 1)
        assert (counted(ours), counted(theirs)) == ((3, 0, 1), (4, 0, 1))
        mend(settings, did, old)
        assert ours.retry_failed_records() == (1, 0)
        assert (counted(ours), counted(theirs)) == ((4, 0, 0), (5, 0, 0))


# I1, I14
def test_a_retry_needs_no_right_to_write_the_state_table_of_another_project(
    settings: Settings, other: Settings
) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 20})
    bad = network.put_record(did, POST, rb'{"text":"\u0000"}')
    with run_in_thread(network) as running:
        changes = {"page_size": 10, "retry_attempts": 1}
        with (
            ImportService(settings_for(settings, running), report=False) as ours,
            ImportService(settings_for(other, running, **changes), report=False) as theirs,
        ):
            assert ours.import_user_collection(did, POST).completed
            network.behave(host="pds-1", faults=[{"kind": "503", "method": "listRecords", "skip": 2}])
            assert not theirs.import_user_collection(did, POST).completed
            network.behave_normally()
        mend(settings, did, bad)
        role = f"reader_{uuid.uuid4().hex}"
        ((database,),) = query(settings, "SELECT current_database()")
        query(settings, f"CREATE ROLE {role}")
        try:
            query(settings, f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
            query(settings, f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}")
            query(settings, f"REVOKE INSERT, UPDATE, DELETE ON other_states FROM {role}")
            query(settings, f"ALTER DATABASE {database} SET role = {role}")
            with ImportService(settings_for(settings, running), report=False) as ours:
                assert ours.retry_failed_records() == (1, 0)
        finally:
            with connect(settings) as conn:
                conn.execute("RESET ROLE")
                conn.execute("SET ROLE NONE")
                conn.execute(f"ALTER DATABASE {database} RESET role".encode())
                conn.execute(f"DROP OWNED BY {role}".encode())
                conn.execute(f"DROP ROLE {role}".encode())
                conn.commit()
        with ImportService(settings_for(other, running, **changes), report=False) as theirs:
            assert theirs.import_user_collection(did, POST).completed
    assert bad in stored(settings, did, POST)
