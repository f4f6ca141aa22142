"""The promises of `ImportService` towards those who call it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

from parity_dagster.errors import CollectionNotRegistered, DatabaseUnreachable, InvalidIdentifier
from parity_dagster.events import ImportCompleted, ImportEvent, ImportFailed, ImportProgress, ImportStarted
from parity_dagster.importing.importer import WINDOW
from parity_dagster.models import ImportStatus, Pair
from parity_dagster.sample_network import FOLLOW, LIKE, POST, PROFILE, REPOST, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings, load_settings
from parity_dagster.store.known import ACCOUNTS_PER_STATEMENT
from parity_dagster_tests.imports import assert_equal, importing, query, settings_for, stored

NOBODY = "did:plc:" + "a" * 24


def test_import_user_takes_all_registered_collections_and_sums_up(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 250, LIKE: 3, PROFILE: 1})
    with importing(settings, network) as (service, _):
        result = service.import_user(did)
        assert (result.did, result.collection) == (did, "*")
        assert (result.records_synced, result.records_skipped, result.records_failed) == (254, 0, 0)
        assert result.completed
        assert result.is_success
        assert not result.is_partial
        assert not result.is_failed
        assert result.cursor is None
        assert result.error is None
        assert result.total_processed == 254
        states = service.get_status_for_user(did)
        assert [state.collection for state in states] == sorted([POST, LIKE, PROFILE, REPOST, FOLLOW])
        for nsid in (POST, LIKE, PROFILE, REPOST, FOLLOW):
            assert service.is_imported(did, nsid)
            assert_equal(settings, network, did, nsid)


def test_only_the_collections_that_were_asked_for_are_imported(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 5, LIKE: 3})
    with importing(settings, network) as (service, _):
        assert service.import_user(did, [LIKE, LIKE]).records_synced == 3
        assert not service.is_imported(did, POST)
        assert service.get_status(did, POST) is None
        assert service.import_user_collection(did, POST).collection == POST


def test_progress_is_told_after_each_committed_page_in_the_callers_thread(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 35})
    seen: list[tuple[int, int, int]] = []
    threads = set()

    def on_progress(event: ImportProgress) -> None:
        threads.add(threading.get_ident())
        ((count,),) = query(settings, "SELECT count(*) FROM atproto_records")
        seen.append((event.pages, event.records_synced, count))

    with importing(settings, network, page_size=10) as (service, _):
        service.import_user_collection(did, POST, on_progress)
    assert [(pages, synced) for pages, synced, _ in seen] == [(1, 10), (2, 20), (3, 30), (4, 35), (5, 35)]
    assert all(count >= synced for _, synced, count in seen), "what is told is committed"
    assert threads == {threading.get_ident()}


# I15
def test_every_pair_gets_one_ending_and_a_listener_that_raises_breaks_nothing(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 5})
    events: list[ImportEvent] = []

    def broken(event: ImportEvent) -> None:
        raise RuntimeError("a listener of the user's")

    pairs = [Pair(did, POST), Pair(did, LIKE), Pair(NOBODY, POST), Pair(did, "com.example.other"), Pair("x", POST)]
    with (
        run_in_thread(network) as running,
        ImportService(settings_for(settings, running), [broken], report=False) as service,
    ):
        results = service.import_pairs(pairs, on_event=events.append)
    ends = [event for event in events if isinstance(event, ImportCompleted | ImportFailed)]
    assert sorted((event.did, event.collection) for event in ends) == sorted(pairs)
    assert [(result.did, result.collection) for result in results] == pairs
    assert [result.error_code for result in results] == [
        None, None, "did_not_found", "not_registered", "invalid_identifier",
    ]  # fmt: skip
    started = [event for event in events if isinstance(event, ImportStarted)]
    assert sorted(event.collection for event in started) == sorted([POST, LIKE])


def test_a_pair_given_twice_is_imported_once(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 5})
    upper = POST.replace("app.bsky", "APP.bsky")
    with importing(settings, network) as (service, _):
        results = service.import_pairs([Pair(did, POST), Pair(did, upper), (did, POST)])  # type: ignore[list-item]
        assert [result.collection for result in results] == [POST]
        assert network.log.cursors(did, POST).count(None) == 1


def test_a_complete_pair_is_not_read_again_and_says_so(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 5})
    events: list[ImportEvent] = []
    with importing(settings, network) as (service, _):
        service.import_user_collection(did, POST)
        network.log.clear()
        results = service.import_pairs([Pair(did, POST)], on_event=events.append)
        assert network.log.count() == 0
    assert results[0].is_success
    assert results[0].records_synced == 5
    (event,) = events
    assert isinstance(event, ImportCompleted)
    assert not event.fetched


def test_a_queued_refresh_is_done_once(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 5})
    with importing(settings, network) as (service, _):
        service.import_user_collection(did, POST)
        network.put_record(did, POST)
        assert service.enqueue([Pair(did, POST)], refresh=True)
        service.import_user_collection(did, POST)
        assert_equal(settings, network, did, POST)
        network.put_record(did, POST)
        network.log.clear()
        assert service.import_user_collection(did, POST).records_synced == 6
        assert network.log.count() == 0, "nobody asked for another refresh"


def test_an_unregistered_collection_an_unknown_did_and_a_malformed_one_are_told_apart(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 5})
    with importing(settings, network) as (service, _):
        result = service.import_user_collection(did, "com.example.other")
        assert (result.error_code, result.is_failed) == ("not_registered", True)
        assert "PARITY_COLLECTIONS" in (result.error or "")
        assert service.import_user_collection(NOBODY, POST).error_code == "did_not_found"
        assert service.import_user("did:plc:short").error_code == "invalid_identifier"
        assert service.import_user("not a name").error_code == "invalid_identifier"
        with pytest.raises(CollectionNotRegistered):
            service.enqueue([Pair(did, "com.example.other")])
        with pytest.raises(InvalidIdentifier):
            service.resolve("")
        assert network.log.count(method="listRecords") == 0


def test_the_sum_over_collections_names_the_one_that_failed(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 5, LIKE: 3})
    network.behave(did=did, collection=LIKE, faults=[{"kind": "503", "method": "listRecords"}])
    with importing(settings, network) as (service, _):
        result = service.import_user(did, [POST, LIKE])
    assert (result.records_synced, result.completed, result.error_code) == (5, False, "server_error")
    assert result.is_partial
    assert (result.error or "").startswith(f"{LIKE}: ")


def interrupted(settings: Settings, network: SampleNetwork, did: str) -> ImportService:
    """A service whose import of the account's posts has failed after three pages."""
    network.behave(did=did, faults=[{"kind": "503", "method": "listRecords", "skip": 3}])
    service = ImportService(settings, report=False)
    result = service.import_user_collection(did, POST)
    assert (result.is_partial, result.is_failed, result.records_synced) == (True, True, 30)
    assert result.cursor is not None
    network.behave(did=did)
    return service


@pytest.mark.parametrize("how", ["resume", "resume_all", "import"])
def test_a_failed_import_goes_on_where_it_stopped(settings: Settings, how: str) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 75})
    with (
        run_in_thread(network) as running,
        interrupted(settings_for(settings, running, page_size=10), network, did) as service,
    ):
        network.behave_normally()
        state = service.get_status(did, POST)
        assert state is not None
        assert state.can_resume
        asked = network.log.cursors(did, POST)
        network.log.clear()
        if how == "resume":
            result = service.resume(state)
        elif how == "resume_all":
            (result,) = service.resume_all()
        else:
            result = service.import_user_collection(did, POST)
        assert (result.completed, result.records_synced) == (True, 75)
        again = network.log.cursors(did, POST)
        assert again[0] == state.cursor
        assert not set(asked) & set(again), "no committed page is fetched again"
        assert_equal(settings, network, did, POST)


def test_a_reset_forgets_the_state_and_keeps_the_records(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 25, LIKE: 3})
    with importing(settings, network, page_size=10) as (service, _):
        service.import_user(did, [POST, LIKE])
        assert service.reset(did, POST) == 1
        assert service.reset(did, POST) == 0
        assert service.get_status(did, POST) is None
        assert service.is_imported(did, LIKE)
        assert len(stored(settings, did, POST)) == 25
        network.delete_record(did, POST, next(iter(network.records(did, POST))))
        network.log.clear()
        assert service.import_user_collection(did, POST).records_synced == 24
        assert network.log.cursors(did, POST)[0] is None
        assert_equal(settings, network, did, POST)
        assert service.reset_user(did) == 2
        assert service.get_status_for_user(did) == []


def test_a_walk_that_begins_after_a_reset_and_is_interrupted_ends_equal(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 60})
    with run_in_thread(network) as running:
        changed = settings_for(settings, running, page_size=10)
        with ImportService(changed, report=False) as service:
            service.import_user_collection(did, POST)
            service.reset(did, POST)
        for rkey in list(network.records(did, POST))[::7]:
            network.delete_record(did, POST, rkey)
        network.put_record(did, POST)
        with interrupted(changed, network, did) as service:
            network.behave_normally()
            service.import_user_collection(did, POST)
            assert_equal(settings, network, did, POST)


def dead_tuples(settings: Settings) -> int:
    ((count,),) = query(
        settings, "SELECT n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE relname = 'atproto_records'"
    )
    return int(count)


def test_a_refresh_brings_creations_updates_and_deletions(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 250})
    with importing(settings, network) as (service, _):
        service.import_user_collection(did, POST)
        rkeys = list(network.records(did, POST))
        network.delete_record(did, POST, rkeys[7])
        network.put_record(did, POST, {"text": "changed"}, rkey=rkeys[200])
        network.put_record(did, POST, {"text": "new"})
        assert service.import_user_collection(did, POST).records_synced == 250, "complete stays complete"
        assert stored(settings, did, POST).keys() == set(rkeys)
        assert service.import_user_collection(did, POST, refresh=True).records_synced == 250
        assert_equal(settings, network, did, POST)


def test_refreshing_an_unchanged_repository_asks_once_and_writes_no_record(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 250})
    with importing(settings, network) as (service, _):
        service.import_user_collection(did, POST)
        network.log.clear()
        result = service.import_user_collection(did, POST, refresh=True)
        assert (result.is_success, result.records_synced) == (True, 250)
        assert network.log.count(method="listRecords") == 0
        assert network.log.count(method="getLatestCommit") == 1


# I6
def test_reading_unchanged_records_again_writes_none_of_them(settings: Settings) -> None:
    network = SampleNetwork()
    network.behave(host="pds-1", sync_methods=False)
    did = network.add_account({POST: 250})
    with importing(settings, network) as (service, _):
        service.import_user_collection(did, POST)
        before = query(settings, "SELECT ctid, xmin, rkey FROM atproto_records ORDER BY rkey")
        network.log.clear()
        assert service.import_user_collection(did, POST, refresh=True).records_synced == 250
        assert network.log.count(method="listRecords") > 0
        assert query(settings, "SELECT ctid, xmin, rkey FROM atproto_records ORDER BY rkey") == before


def test_a_host_whose_revisions_go_back_does_not_lock_out_its_newer_records(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 20})
    network.behave(host="pds-1", sync_methods=False)  # rows are marked with our clock, which is ahead of the host's
    with importing(settings, network) as (service, _):
        service.import_user_collection(did, POST)
        network.behave(host="pds-1", sync_methods=True)
        rkeys = list(network.records(did, POST))
        network.put_record(did, POST, {"text": "changed"}, rkey=rkeys[3])
        network.delete_record(did, POST, rkeys[4])
        service.import_user_collection(did, POST, refresh=True)
        assert_equal(settings, network, did, POST)


def test_a_handle_will_do_where_a_did_is_wanted(settings: Settings) -> None:
    network = SampleNetwork()
    with importing(settings, network) as (service, _):
        result = service.import_user("nobody.sample.invalid")
        assert result.error_code == "handle_not_found"
        assert service.import_user("@@").error_code == "invalid_identifier"


def test_states_are_found_by_account_and_status(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 5})
    with importing(settings, network) as (service, _):
        service.import_user(did, [POST])
        service.import_user(NOBODY, [LIKE])
        assert [state.pair for state in service.find_states(statuses=[ImportStatus.FAILED])] == [(NOBODY, LIKE)]
        assert [state.pair for state in service.find_states(did=did)] == [(did, POST)]
        assert len(service.find_states()) == 2
        assert service.enqueue([Pair(did, POST), Pair(did, LIKE)]) == [(did, LIKE)]
        assert service.enqueue([Pair(did, POST)], refresh=True) == [(did, POST)]


def test_what_known_accounts_lack_is_found_and_queued_in_pieces_of_any_number(settings: Settings) -> None:
    letters = str.maketrans("0123456789", "abcdefghij")
    dids = [f"did:plc:{f'{number:024d}'.translate(letters)}" for number in range(2 * ACCOUNTS_PER_STATEMENT + 1)]
    with ImportService(settings.model_copy(update={"collections": (POST, LIKE)}), report=False) as service:
        service.enqueue(Pair(did, POST) for did in dids)
        service.enqueue(Pair(did, LIKE) for did in dids[::2])
        assert [*service.known_pairs()] == [Pair(did, LIKE) for did in dids[1::2]]
        assert [*service.known_pairs([POST])] == []
        assert [*service.known_pairs([POST, LIKE], only_missing=False)] == [
            Pair(did, nsid) for did in dids for nsid in (POST, LIKE)
        ]
        assert service.enqueue_known([POST]) == 0
        assert service.enqueue_known() == ACCOUNTS_PER_STATEMENT
        assert [*service.known_pairs()] == []
        with pytest.raises(CollectionNotRegistered):
            service.known_pairs(["com.example.thing"])
        with pytest.raises(CollectionNotRegistered):
            service.enqueue_known(["com.example.thing"])


def test_the_callers_iterable_may_use_the_service_itself(settings: Settings) -> None:
    network = SampleNetwork()
    dids = [network.add_account({POST: 2}) for _ in range(3)]
    with importing(settings, network) as (service, _):

        def pairs() -> Iterator[Pair]:
            for did in dids:
                assert service.get_status(did, POST) is None
                yield Pair(service.resolve(did), POST)

        assert [result.records_synced for result in service.import_pairs(pairs())] == [2, 2, 2]


def test_an_error_in_the_callers_iterable_comes_out_and_leaves_nothing_claimed(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 2})

    def pairs() -> Iterator[Pair]:
        yield Pair(did, POST)
        raise LookupError("the caller's")

    with importing(settings, network) as (service, _):
        with pytest.raises(LookupError, match="caller's"):
            service.import_pairs(pairs())
        assert service.import_user_collection(did, POST).completed


def test_a_service_may_be_used_again_after_it_was_closed(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 2, LIKE: 2})
    with importing(settings, network) as (service, _):
        service.import_user(did, [POST])
        service.close()
        service.close()
        assert service.import_user(did, [LIKE]).completed
    threads = [thread.name for thread in threading.enumerate()]
    assert not any("parity-import" in name for name in threads)


def test_a_service_works_in_a_forked_child_and_stays_usable_in_its_parent(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 2, LIKE: 2})
    with importing(settings, network) as (service, _):
        service.import_user(did, [POST])
        child = os.fork()
        if not child:
            ok = False
            try:
                ok = service.import_user(did, [LIKE]).completed
            finally:
                os._exit(0 if ok else 1)
        deadline = time.monotonic() + 60
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            assert time.monotonic() < deadline, "the child hangs"
            time.sleep(0.05)
        assert ended[1] == 0
        assert service.is_imported(did, LIKE)
        assert service.import_user(did, [PROFILE]).completed


def test_threads_of_one_service_import_side_by_side(settings: Settings) -> None:
    network = SampleNetwork()
    dids = [network.add_account({POST: 30}) for _ in range(8)]
    with importing(settings, network) as (service, _):
        results = {}
        threads = [
            threading.Thread(target=lambda did=did: results.update({did: service.import_user(did, [POST])}))
            for did in dids
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(results[did].completed for did in dids)
        for did in dids:
            assert_equal(settings, network, did, POST)


def test_without_a_database_the_caller_is_told_what_to_check() -> None:
    service = ImportService(load_settings(database_url="postgresql://u:geheim@127.0.0.1:9/none"), report=False)
    with pytest.raises(DatabaseUnreachable, match="PARITY_DATABASE_URL") as caught:
        service.import_user(NOBODY)
    assert "geheim" not in str(caught.value)


def test_more_pairs_than_fit_the_window_are_imported_all_the_same(settings: Settings) -> None:
    network = SampleNetwork(hosts=2)
    done = [Pair(f"did:web:a{number}.example.com", POST) for number in range(WINDOW + 100)]
    query(
        settings,
        f"INSERT INTO {settings.state_table} (did, collection, status) SELECT unnest(%s::text[]), %s, 'completed'",
        [pair.did for pair in done],
        POST,
    )
    new = [Pair(network.add_account({POST: 1}), POST) for _ in range(40)]
    with importing(settings, network) as (service, _):
        results = service.import_pairs(iter([*done, *new]))
        assert len(results) == len(done) + len(new)
        assert all(result.completed for result in results)
        assert sum(result.records_synced for result in results) == len(new)
    assert query(settings, "SELECT count(*) FROM parity_importers") == [(0,)]
