"""A bad record costs one record: it is kept byte for byte and may be tried again."""

from __future__ import annotations

import pytest

from parity_dagster.importing.live import LiveRecord
from parity_dagster.sample_network import ODD_KINDS, POST, Record, SampleNetwork, run_in_thread
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings
from parity_dagster_tests.imports import assert_equal, importing, loads, query, settings_for, stored
from parity_dagster_tests.quick import quick
from parity_dagster_tests.sample_mappers import ARTICLES


def test_every_odd_record_is_stored_or_kept_and_its_neighbours_are_stored(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 250})
    kinds = network.add_odd(did, POST)
    with importing(settings, network) as (service, _):
        result = service.import_user_collection(did, POST)
        assert result.is_success
        rows = stored(settings, did, POST)
        failed = {bytes(record.body): record for record in service.find_failed_records(did)}
    truth = network.records(did, POST)
    for rkey, (cid, value) in truth.items():
        kind = kinds.get(rkey)
        if kind is None or ODD_KINDS[kind].storable:
            assert rows[rkey] == (None if kind == "null-cid" else cid, loads(value)), kind
        elif ODD_KINDS[kind].storable is False:
            assert rkey not in rows, kind
    with network.lock:
        held = network.accounts[did].repo.writable(POST).own
        exact = {held[rkey].as_entry(did, POST): rkey for rkey in kinds}
    assert failed.keys() <= exact.keys(), "what is kept is the entry byte for byte"
    assert {exact[body] for body in failed} == truth.keys() - rows.keys()
    assert result.records_synced == len(rows)
    assert result.records_failed == len(failed) == len(truth) - len(rows)


UNSTORABLE = b'{"$type":"x","n":' + b"9" * 140_000 + b', "text":"a number that no numeric holds",\n "f":1.5}'


# I5
def test_what_only_postgres_refuses_is_kept_byte_for_byte_and_costs_one_record(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 30})
    rkey = network.put_record(did, POST, UNSTORABLE)
    other = network.add_account({POST: 30})
    with importing(settings, network) as (service, _):
        results = service.import_pairs([(did, POST), (other, POST)])  # type: ignore[list-item]
        assert [(result.records_synced, result.records_failed) for result in results] == [(30, 1), (30, 0)]
        (failed,) = service.find_failed_records()
        assert (failed.did, failed.rkey, failed.reason) == (did, rkey, "refused_by_postgres")
        assert failed.body == Record(rkey, network.records(did, POST)[rkey][0], UNSTORABLE).as_entry(did, POST)
        assert service.find_failed_records(other) == []


LONG = [
    b'{"n":1e1000}',
    b'{"n":[1,-2.5E-999 ]}',
    b'{"n":{"a":1e99999999999}}',
    b'{"n":[%b]}' % b",".join([b"9e307"] * 4000),
]
"""Small on the wire, and more than a thousand digits each, or a million together, for whoever reads them."""
SHORT = [b'{"n":1e400,"m":-1.5E-300}', b'{"n":"1e131071, 1e131071]"}', b'{"n":[1e0000000000000000001]}']


def test_numbers_that_grow_without_end_when_they_are_read_are_kept_aside(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 30})
    for value in (*LONG, *SHORT):
        network.put_record(did, POST, value)
    network.add_odd(did, POST, ["exploding-numbers"])
    with importing(settings, network) as (service, _):
        result = service.import_user_collection(did, POST)
        assert (result.records_synced, result.records_failed) == (33, 5)
        assert {record.reason for record in service.find_failed_records()} == {"number_too_long"}
        kept = {record.body[record.body.index(b'"value":') + 8 : -1] for record in service.find_failed_records()}
        assert kept > set(LONG), "byte for byte"
        assert service.retry_failed_records() == (0, 5)
        uri = f"at://{did}/{POST}/3jzfcijpj2z2a"
        assert service.upsert_records([LiveRecord(uri, "3kbbbbbbbbb2a", "bafylive", LONG[0])]) == 1
        assert [record.reason for record in service.find_failed_records()] == ["number_too_long"] * 6
    ((longest,),) = query(settings, "SELECT max(length(value::text)) FROM atproto_records")
    assert longest < 10_000
    assert query(settings, "SELECT count(created_at) > 0 FROM posts") == [(True,)]


def test_a_corrected_record_leaves_the_failed_ones_with_the_next_refresh(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 5})
    rkey = network.put_record(did, POST, b'{"name":"a\\u0000b"}')
    with importing(settings, network) as (service, _):
        assert service.import_user_collection(did, POST).records_failed == 1
        network.put_record(did, POST, {"name": "ab"}, rkey=rkey)
        result = service.import_user_collection(did, POST, refresh=True)
        assert (result.records_synced, result.records_failed) == (6, 0)
        assert service.find_failed_records() == []
        assert_equal(settings, network, did, POST)


# I10
def test_an_unchanged_repository_with_failed_records_is_read_again_by_a_refresh(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 5})
    network.add_odd(did, POST, ["nul"])
    with importing(settings, network) as (service, _):
        service.import_user_collection(did, POST)
        network.log.clear()
        result = service.import_user_collection(did, POST, refresh=True)
        assert (result.records_synced, result.records_failed) == (5, 1)
        assert network.log.cursors(did, POST)
        assert len(service.find_failed_records()) == 1


def test_failures_of_an_earlier_life_are_not_counted_after_a_reset(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 5})
    odd = network.add_odd(did, POST, ["nul", "value-null", "bad-rkey"])
    with importing(settings, network, page_size=2) as (service, _):
        assert service.import_user_collection(did, POST).records_failed == 3
        service.reset(did, POST)
        for rkey in odd:
            network.delete_record(did, POST, rkey)
        result = service.import_user_collection(did, POST)
        assert (result.records_synced, result.records_failed) == (5, 0)
        assert service.find_failed_records() == []


def test_a_record_rejected_twice_by_an_inclusive_cursor_counts_once(settings: Settings) -> None:
    network = SampleNetwork()
    network.behave(host="pds-1", dialect="arroba")
    did = network.add_account({POST: 9})
    network.add_odd(did, POST, ["nul", "nul", "nul"])
    with importing(settings, network, page_size=2) as (service, _):
        result = service.import_user_collection(did, POST)
        assert (result.records_synced, result.records_failed) == (9, 3)


def keep(settings: Settings, did: str, body: bytes, *, walk: int = 1) -> None:
    """Leave a record among the failed ones, as an older version would have that could store less."""
    query(
        settings,
        "INSERT INTO parity_failed_records (did, collection, rkey, fingerprint, reason, detail, body, walk,"
        " first_seen_at) SELECT did, collection, 'kept', md5(%s), 'old_reason', 'too much for an older version', %s,"
        " %s, coalesce(completed_at, now()) FROM parity_import_states WHERE did = %s AND collection = %s",
        str(body), body, walk, did, POST,
    )  # fmt: skip
    query(
        settings,
        "UPDATE parity_walk_pages SET failed = failed || md5(%s) WHERE page = 1 AND state_id = (SELECT id"
        " FROM parity_import_states WHERE did = %s AND collection = %s)",
        str(body), did, POST,
    )  # fmt: skip
    query(
        settings,
        "UPDATE parity_import_states SET records_failed = records_failed + 1 WHERE did = %s AND walk = %s",
        did,
        walk,
    )


def entry_of(did: str, value: bytes) -> bytes:
    return Record("kept", "bafykept", value).as_entry(did, POST)


def test_a_retry_stores_what_can_be_stored_now_and_counts_up_the_rest(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 3})
    with importing(settings, network) as (service, _):
        service.import_user_collection(did, POST)
        keep(settings, did, entry_of(did, b'{"text":"fine by now"}'))
        keep(settings, did, entry_of(did, b'{"text":"\\u0000"}'))
        keep(settings, did, entry_of(did, b'{"n":%b}' % (b"9" * 140_000)))
        assert service.retry_failed_records("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa") == (0, 0)
        assert service.retry_failed_records(did) == (1, 2)
        assert stored(settings, did, POST)["kept"] == ("bafykept", {"text": "fine by now"})
        assert [(f.reason, f.retries) for f in service.find_failed_records()] == [
            ("nul_character", 1),
            ("refused_by_postgres", 1),
        ]
        assert service.retry_failed_records() == (0, 2)
        assert [f.retries for f in service.find_failed_records()] == [2, 2]
        state = service.get_status(did, POST)
        assert state is not None
        assert (state.records_synced, state.records_failed) == (4, 2)


def test_a_retry_never_replaces_what_is_in_the_table(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 3})
    network.put_record(did, POST, {"text": "newer"}, rkey="kept")
    with importing(settings, network) as (service, _):
        service.import_user_collection(did, POST)
        keep(settings, did, entry_of(did, b'{"text":"older"}'))
        assert service.retry_failed_records() == (1, 0)
        assert stored(settings, did, POST)["kept"][1] == {"text": "newer"}
        state = service.get_status(did, POST)
        assert state is not None
        assert (state.records_synced, state.records_failed) == (4, 0)


def test_a_record_stored_by_a_retry_survives_the_end_of_a_walk_under_way(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 40})
    with run_in_thread(network) as running:
        network.behave(host="pds-1", faults=[{"kind": "503", "method": "listRecords", "skip": 3}])
        with ImportService(settings_for(settings, running, page_size=10), report=False) as service:
            assert service.import_user_collection(did, POST).is_partial
            keep(settings, did, entry_of(did, b'{"text":"met on an earlier page"}'))
            assert service.retry_failed_records() == (1, 0)
            network.behave_normally()
            result = service.import_user_collection(did, POST)
            assert (result.completed, result.records_synced, result.records_failed) == (True, 41, 0)
            assert "kept" in stored(settings, did, POST)


@pytest.mark.long
@pytest.mark.parametrize("size", quick(1, [5 * 2**20, 2**21]))
def test_records_of_megabytes_are_stored(settings: Settings, size: int) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 120})
    for _ in range(3):
        network.put_record(did, POST, {"text": "x" * size})
    with importing(settings, network) as (service, _):
        assert service.import_user_collection(did, POST).records_synced == 123
        assert_equal(settings, network, did, POST)


def test_a_retry_asks_the_mapper_too(settings: Settings) -> None:
    query(settings, ARTICLES)
    network = SampleNetwork()
    did = network.add_account({POST: [{"text": "one"}]})
    mappers = ("parity_dagster_tests.sample_mappers:Articles",)
    with importing(settings, network, mappers=mappers) as (service, _):
        service.import_user_collection(did, POST)
        before = query(settings, "SELECT count(*) FROM articles")
        keep(settings, did, entry_of(did, b'{"text":"fine by now"}'))
        assert service.retry_failed_records() == (1, 0)
        assert query(settings, "SELECT count(*) FROM articles") == [(before[0][0] + 1,)]
        assert query(settings, "SELECT title FROM articles WHERE rkey = 'kept'") == [("fine by now",)]


# I9
def test_what_failed_while_the_host_told_no_revision_is_dropped_when_the_list_no_longer_shows_it(
    settings: Settings,
) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 5})
    (rkey,) = network.add_odd(did, POST, ["nul"])
    with importing(settings, network) as (service, _):
        network.behave(faults=[{"kind": "503", "method": "getLatestCommit"}])
        assert service.import_user_collection(did, POST).records_failed == 1
        network.behave_normally()
        network.delete_record(did, POST, rkey)
        assert service.import_user_collection(did, POST, refresh=True).records_failed == 0
        assert service.find_failed_records() == []


def test_what_failed_before_a_reset_and_is_gone_is_no_failed_record_of_the_walk_after_it(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 15})
    network.put_record(did, POST, b'{"text":"\\u0000"}', rkey="bad")
    with importing(settings, network, page_size=10) as (service, _):
        for _number in range(3):  # so that the walks after the reset have smaller numbers
            assert service.import_user_collection(did, POST, refresh=True).records_failed == 1
            network.put_record(did, POST)
        assert service.reset(did, POST) == 1
        network.delete_record(did, POST, "bad")
        result = service.import_user_collection(did, POST)
        assert (result.completed, result.records_failed) == (True, 0)
        assert service.find_failed_records(did) == []
        assert_equal(settings, network, did, POST)


def test_progress_counts_what_failed_as_failed(settings: Settings) -> None:
    network = SampleNetwork()
    did = network.add_account({POST: 5})
    network.put_record(did, POST, b'{"text":"\\u0000"}')
    seen: list[tuple[int, int, int]] = []
    with importing(settings, network) as (service, _):
        service.import_user_collection(
            did, POST, lambda event: seen.append((event.records_synced, event.records_skipped, event.records_failed))
        )
    assert seen[-1] == (5, 0, 1)
